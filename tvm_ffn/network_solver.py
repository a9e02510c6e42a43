"""Solve a network layer by layer on calibration data (the label-free method of the authors' TNNLS 2020 follow-up).

The network runs in integers' precision up to the layer at hand; that layer's weights are then fitted (`layer_fit`) to
what the fp32 network answers, on the inputs they will really see. All samples pass a layer before the next one is
solved; activations are kept as int8. A layer that adds a residual is fitted to the sum: it also repairs what its
residual got wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvm_ffn.config import FFNConfig, LayerConfig
from tvm_ffn.graph import Network, Unit, shape_of
from tvm_ffn.interpreter import conv2d, evaluate, im2col_rows
from tvm_ffn.layer_fit import fit_int8, fit_ternary
from tvm_ffn.layer_rows import FOLDS, LayerRows
from tvm_ffn.observation import Observation, Rows, rows_of
from tvm_ffn.progress import progress
from tvm_ffn.ranges import INT8_LIMIT, choose_scales, stored_as_int8
from tvm_ffn.samples import cut
from tvm_ffn.solution import LayerSolution, QuantizedNetwork

CHUNK = 16  # samples evaluated at a time where the graph's operators take many


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
        response = rows.response
        if unit.residual is not None:
            response = response - np.concatenate(list(self._residual_rows(unit, rows.index)))
        inputs = np.concatenate(list(self._input_rows(unit, rows.index)))
        inputs = inputs.reshape(len(inputs), unit.groups, -1)
        held = rows.index // self._positions(unit) % FOLDS == 0
        reason = _reason_for_int8(unit, settings, self.network)
        sampled = LayerRows(inputs, response, held)
        if reason:
            return fit_int8(unit, sampled, self.config, reason)
        return fit_ternary(unit, settings, sampled, self.config)

    def _positions(self, unit: Unit) -> int:
        """Output positions in one run of the graph."""
        out = shape_of(unit.call)
        return int(np.prod(out)) // out[-1 if unit.kind == "dense" else 1]

    def _sampled(self, unit: Unit, var: relax.Var, index: np.ndarray) -> Iterator[tuple[Any, np.ndarray]]:
        """The chunks of ``var`` that hold sampled positions of the unit's output, each with those of its own."""
        start = 0
        for chunk in range(self.chunks):
            x = self._read(var, chunk)
            end = start + self._positions(unit) * (len(x) // shape_of(var)[0])
            first, last = np.searchsorted(index, (start, end))
            if last > first:
                yield x, index[first:last] - start
            start = end

    def _input_rows(self, unit: Unit, index: np.ndarray) -> Iterator[np.ndarray]:
        """The unit's inputs at the sampled positions, float32 (rows, inputs)."""
        for x, mine in self._sampled(unit, unit.inputs[0], index):
            if unit.kind == "dense":
                yield x.reshape(-1, x.shape[-1])[mine]
            else:
                attributes = conv_attributes(unit.call)
                attributes.pop("groups")
                yield im2col_rows(x, mine, kernel=shape_of(unit.call.args[1])[2:], **attributes)

    def _residual_rows(self, unit: Unit, index: np.ndarray) -> Iterator[np.ndarray]:
        """The unit's residual at the sampled positions, float32 (rows, M)."""
        assert unit.residual is not None
        for x, mine in self._sampled(unit, unit.residual, index):
            yield rows_of(x, unit.kind)[mine]


def conv_attributes(call: relax.Call) -> dict:
    """Strides, padding (top, left, bottom, right), dilation and groups of a conv2d call."""
    attrs = call.attrs
    return {
        "strides": tuple(int(v) for v in attrs.strides),
        "padding": tuple(int(v) for v in attrs.padding),
        "dilation": tuple(int(v) for v in attrs.dilation),
        "groups": int(attrs.groups),
    }


def _reason_for_int8(unit: Unit, settings: LayerConfig, network: Network) -> str:
    """Why a layer is not factorised, or "" if it is."""
    if unit.is_depthwise:
        return "depthwise: one channel a group, there is nothing to share between outputs"
    if settings.precision == "ternary":
        return ""
    place = {network.linear[0]: "first layer", network.linear[-1]: "last layer"}.get(unit)
    return f"{place}: the answer is most sensitive to it" if place else "int8 by configuration"
