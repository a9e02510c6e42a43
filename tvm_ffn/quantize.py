"""Solve a network layer by layer on calibration data (the label-free method of the authors' TNNLS 2020 follow-up).

The network runs in integers' precision up to the layer at hand; that layer's weights are then fitted to what the fp32
network answers, on the inputs they will really see:

    mu, H = mean, cov(a_q)      my, T = mean(y), cov(y, a_q)      y: fp32 response, a_q: input in the quantised network
    W* = W + (T - W H)(H + r_t I)^-1      X, d, Y, a = argmin |W* - diag(a) X diag(d) Y^T| in the metric H + r_h I
    bias = my - W_eff mu                  (the mean response is exact)

All samples pass a layer before the next one is solved; activations are kept as int8.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvm_ffn.config import FFNConfig, LayerConfig
from tvm_ffn.factorize import Factors, factorize, factorize_planes, response_error, response_target
from tvm_ffn.graph import Network, Unit, shape_of
from tvm_ffn.interpreter import conv2d, evaluate, im2col_rows
from tvm_ffn.observation import Observation, Rows
from tvm_ffn.progress import progress
from tvm_ffn.ranges import INT8_LIMIT, choose_scale, choose_scales, stored_as_int8
from tvm_ffn.samples import cut
from tvm_ffn.solution import LayerSolution, QuantizedNetwork

CHUNK = 16  # samples evaluated at a time where the graph's operators take many
WIDEST = 8192  # inputs of a layer whose covariance is formed: 0.27 GB, ten times that while solving
_MIDDLE_ROWS = 2000  # rows looked at for the scale of a layer's middle


def solve_network(
    network: Network,
    observation: Observation,
    batches: Iterable[dict[str, np.ndarray]],
    config: FFNConfig,
    layers: Mapping[str, LayerConfig | None],
    *,
    batched: bool,
) -> QuantizedNetwork:
    """Choose all scales and solve all linear units; ``layers`` are the resolved settings by layer name, ``batched``
    says whether the graph's operators take many samples at once."""
    scales = choose_scales(network, observation.samples)
    solver = _Solver(network, scales, config, layers)
    solver.load(batches, CHUNK if batched else shape_of(network.parameters[0])[0])
    solutions = {}
    for unit in progress(network.units, "solving"):
        if unit.is_linear:
            solutions[unit] = solver.solve(unit, observation.rows[unit])
        solver.run(unit, solutions.get(unit))
    return QuantizedNetwork(network, scales, solutions, config.mid_bits)


class _Solver:
    """The quantised network, one unit at a time over all samples; each variable's values are a list, one a chunk."""

    def __init__(
        self,
        network: Network,
        scales: Mapping[relax.Var, float],
        config: FFNConfig,
        layers: Mapping[str, LayerConfig | None],
    ) -> None:
        self.network, self.scales, self.config, self.layers = network, scales, config, layers
        self.stored = stored_as_int8(network)
        self.values: dict[relax.Var, list[Any]] = {}
        self.chunks = 0
        self.readers = Counter(var for unit in network.units for var in unit.reads)

    def load(self, batches: Iterable[dict[str, np.ndarray]], size: int) -> None:
        """Keep the network's inputs in chunks of ``size`` samples: what the graph takes at once."""
        chunks = [part for batch in batches for part in cut(batch, size)]
        self.chunks = len(chunks)
        for var in self.network.parameters:
            self.values[var] = [self._keep(var, chunk[var.name]) for chunk in chunks]

    def run(self, unit: Unit, solution: LayerSolution | None) -> None:
        """Compute the unit's output for all samples, then drop the tensors nobody reads any more."""
        values = [self._evaluate(unit, solution, chunk) for chunk in range(self.chunks)]
        if self.readers[unit.output]:
            self.values[unit.output] = values
        for var in unit.reads:
            self.readers[var] -= 1
            if self.readers[var] == 0:
                del self.values[var]

    def _keep(self, var: relax.Var, value: Any) -> Any:
        if var not in self.stored:
            return value
        scale = np.float32(self.scales[var])
        return np.clip(np.rint(value / scale), -INT8_LIMIT, INT8_LIMIT).astype(np.int8)

    def _read(self, var: relax.Var, chunk: int) -> Any:
        value = self.values[var][chunk]
        return value * np.float32(self.scales[var]) if var in self.stored else value

    def _evaluate(self, unit: Unit, solution: LayerSolution | None, chunk: int) -> Any:
        if solution is not None:
            value = self._linear(unit, solution, self._read(unit.inputs[0], chunk))
        else:
            value = self._operand(unit.call, chunk)
            if unit.bias is not None:
                value = value + unit.bias[:, None, None]
        if unit.residual is not None:
            value = value + self._read(unit.residual, chunk)
        return self._keep(unit.output, value if unit.kind == "activation" else unit.activation(value))

    def _operand(self, expr: relax.Expr, chunk: int) -> Any:
        if isinstance(expr, relax.Var):
            return self._read(expr, chunk)
        if isinstance(expr, tvm.ir.GenericConst):
            return expr.value.numpy()
        if isinstance(expr, relax.Tuple):
            return tuple(self._operand(field, chunk) for field in expr.fields)
        if isinstance(expr, relax.TupleGetItem):
            return self._operand(expr.tuple_value, chunk)[expr.index]
        return (
            evaluate(expr, [self._operand(arg, chunk) for arg in expr.args]) if isinstance(expr, relax.Call) else expr
        )

    def _linear(self, unit: Unit, solution: LayerSolution, x: np.ndarray) -> np.ndarray:
        weight = solution.effective_weight()
        if unit.kind == "dense":
            return x @ weight[0].T + solution.bias
        shape = shape_of(unit.call.args[1])
        return conv2d(x, weight.reshape(shape), **conv_attributes(unit.call)) + solution.bias[:, None, None]

    def solve(self, unit: Unit, rows: Rows) -> LayerSolution:
        """Fit one linear unit to its fp32 response."""
        settings = self.layers[unit.name]
        assert settings is not None
        inputs = self._rows(unit, rows.index)
        reason = _reason_for_int8(unit, settings, self.network)
        if reason:
            return _solve_int8(unit, inputs, rows.response, reason)
        return self._solve_ternary(unit, settings, inputs, rows.response)

    def _rows(self, unit: Unit, index: np.ndarray) -> np.ndarray:
        """The layer's inputs at the sampled positions, float32 (rows, groups, n)."""
        var, out = unit.inputs[0], shape_of(unit.call)
        positions = int(np.prod(out)) // out[-1 if unit.kind == "dense" else 1]  # in one run of the graph
        parts, start = [], 0
        for chunk in range(self.chunks):
            x = self._read(var, chunk)
            end = start + positions * (len(x) // shape_of(var)[0])
            first, last = np.searchsorted(index, (start, end))
            mine, start = index[first:last] - start, end
            if unit.kind == "dense":
                parts.append(x.reshape(-1, x.shape[-1])[mine])
            elif len(mine):
                attributes = conv_attributes(unit.call)
                attributes.pop("groups")
                kernel = shape_of(unit.call.args[1])[2:]
                parts.append(im2col_rows(x, mine, kernel=kernel, **attributes))
        rows = np.concatenate(parts)
        return rows.reshape(len(rows), unit.groups, -1)

    def _solve_ternary(
        self, unit: Unit, settings: LayerConfig, inputs: np.ndarray, response: np.ndarray
    ) -> LayerSolution:
        groups, m, n = unit.weight.shape
        rank = settings.rank_for(m, n)
        factors: list[Factors] = []
        biases, errors = [], []
        for group in range(groups):
            a, y = inputs[:, group], response[:, group * m : (group + 1) * m]
            mu, my = a.mean(0), y.mean(0)
            target, metric = self._problem(unit.weight[group], a - mu, y - my, settings.method)
            solved = self._factorize(target, metric, settings, rank)
            factors.append(solved)
            biases.append(my - solved.weight() @ mu)
            errors.append(response_error(target, solved, metric))
        scale = 0.0 if factors[0].planes else self._middle_scale(factors, inputs)
        reason = f"{n} inputs: factorised without their covariance" if n > WIDEST else ""
        return LayerSolution(np.concatenate(biases), float(np.mean(errors)), tuple(factors), scale, reason=reason)

    def _problem(
        self, weight: np.ndarray, inputs: np.ndarray, response: np.ndarray, method: str | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """What to factorise and in which metric (None: the identity), from centred rows of inputs and responses."""
        if weight.shape[1] > WIDEST:
            return weight, None
        gram = inputs.T @ inputs / len(inputs)
        metric = _ridged(gram, self.config.ridge)
        if method == "sdd":
            return weight, metric
        return response_target(weight, gram, response.T @ inputs / len(inputs), ridge=self.config.target_ridge), metric

    def _factorize(self, target: np.ndarray, metric: np.ndarray | None, settings: LayerConfig, rank: int) -> Factors:
        c = self.config
        if settings.method == "planes":
            return factorize_planes(
                target, planes=c.planes, penalty=c.penalty, gram=metric, rounds=2, sweeps=3, threads=c.threads
            )
        method = "sdd" if metric is None else settings.method or c.method
        return factorize(
            target,
            rank,
            method=method,
            gram=metric if method == "response" else None,
            rounds=c.rounds,
            sweeps=c.sweeps,
            seed=c.seed,
            threads=c.threads,
        )

    def _middle_scale(self, factors: list[Factors], inputs: np.ndarray) -> float:
        """Real value of one step of the requantised middle ``d * (Y^T a)``, one for the layer."""
        some = inputs[:: max(1, len(inputs) // _MIDDLE_ROWS)]
        middles = [(some[:, g] @ f.y.astype(np.float32)) * f.d for g, f in enumerate(factors)]
        return choose_scale(np.concatenate(middles, axis=1), 2 ** (self.config.mid_bits - 1) - 1)


def _tensors(unit: Unit) -> set[relax.Var]:
    """All tensors that a unit reads."""
    return {*unit.inputs, *((unit.residual,) if unit.residual is not None else ())}


def conv_attributes(call: relax.Call) -> dict:
    """Strides, padding (top, left, bottom, right), dilation and groups of a conv2d call."""
    attrs = call.attrs
    return {
        "strides": tuple(int(v) for v in attrs.strides),
        "padding": tuple(int(v) for v in attrs.padding),
        "dilation": tuple(int(v) for v in attrs.dilation),
        "groups": int(attrs.groups),
    }


def _ridged(gram: np.ndarray, ridge: float) -> np.ndarray:
    """``gram + ridge * mean(diag gram) I``; the identity for inputs that never move."""
    mean = float(np.trace(gram)) / len(gram)
    if mean <= 0.0:
        return np.eye(len(gram), dtype=np.float32)
    return gram + np.float32(max(ridge, 1e-6) * mean) * np.eye(len(gram), dtype=np.float32)


def _reason_for_int8(unit: Unit, settings: LayerConfig, network: Network) -> str:
    """Why a layer is not factorised, or "" if it is."""
    if unit.is_depthwise:
        return "depthwise: one channel a group, there is nothing to share between outputs"
    if settings.precision == "ternary":
        return ""
    place = {network.linear[0]: "first layer", network.linear[-1]: "last layer"}.get(unit)
    return f"{place}: the answer is most sensitive to it" if place else "int8 by configuration"


def _solve_int8(unit: Unit, inputs: np.ndarray, response: np.ndarray, reason: str) -> LayerSolution:
    """Symmetric int8 weights, one scale an output, with the exact mean response."""
    scale = np.maximum(np.abs(unit.weight).max(2), np.finfo(np.float32).tiny) / np.float32(INT8_LIMIT)
    weight = np.rint(unit.weight / scale[:, :, None]).astype(np.int8)
    effective = weight.astype(np.float32) * scale[:, :, None]
    answer = np.einsum("gmn,gn->gm", effective, inputs.mean(0)).reshape(-1)
    error = effective - unit.weight
    denominator = float(np.linalg.norm(unit.weight)) or 1.0
    return LayerSolution(
        response.mean(0) - answer,
        float(np.linalg.norm(error)) / denominator,
        weight=weight,
        weight_scale=scale.astype(np.float32),
        reason=reason,
    )
