"""Solve a network layer by layer on calibration data (the label-free method of the authors' TNNLS 2020 follow-up).

The network runs in integers' precision up to the layer at hand; that layer's weights are then fitted (`layer_fit`) to
what the fp32 network answers, on the inputs they will really see. All samples pass a layer before the next one is
solved; activations are kept as int8. A layer that adds a residual is fitted to the sum: it also repairs what its
residual got wrong.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvm_ffn.comparison import Comparison, Verification
from tvm_ffn.config import FFNConfig, LayerConfig
from tvm_ffn.forms import has_few_rows
from tvm_ffn.graph import Network, Unit, shape_of
from tvm_ffn.interpreter import conv2d, evaluate
from tvm_ffn.layer_fit import fit_int8, fit_ternary
from tvm_ffn.layer_rows import LayerRows
from tvm_ffn.observation import Observation, Rows, is_held_out
from tvm_ffn.plan import Plan
from tvm_ffn.progress import progress
from tvm_ffn.ranges import Ranges, choose_ranges, stored_as_int8
from tvm_ffn.samples import cut
from tvm_ffn.solution import LayerSolution, QuantizedNetwork
from tvm_ffn.unit_rows import conv_attributes, inputs_at, outputs_of, positions

MEMORY = 4 << 30  # bytes of activations kept at a time
CHUNK = 16  # samples evaluated at a time where the graph's operators take many


def solve_network(
    network: Network,
    observation: Observation,
    batches: Iterable[dict[str, np.ndarray]],
    config: FFNConfig,
    plan: Plan,
    *,
    batched: bool,
) -> QuantizedNetwork:
    """Choose all scales and solve all linear units as planned; ``batched`` says whether the graph's operators take many
    samples at once."""
    layers = {name: layer.settings for name, layer in plan.layers.items()}

    def takes_offset(unit: Unit) -> bool:
        own = layers[unit.name]
        assert own is not None
        return own.method == "planes" or bool(reason_for_int8(unit, own, network))

    ranges = choose_ranges(network, observation.samples, observation.peaks, takes_offset)
    solver = _Solver(network, ranges, config, layers)
    solver.load(batches, CHUNK if batched else solver.batch)
    solutions = {}
    for unit in progress(network.units, "solving"):
        if unit.is_linear:
            solutions[unit] = solver.solve(unit, observation.rows[unit])
        solver.run(unit, solutions.get(unit))
    return QuantizedNetwork(network, ranges, solutions, config.mid_bits, plan, solver.compare(observation.answers))


def samples_that_fit(network: Network) -> int:
    """Samples whose activations fit into ``MEMORY`` at every unit while the network is solved."""
    stored = stored_as_int8(network)

    def size(var: relax.Var) -> int:
        parts = var.ty.fields if isinstance(var.ty, relax.TupleType) else [var.ty]
        return sum(math.prod(int(dim) for dim in part.shape) for part in parts) * (1 if var in stored else 4)

    readers = Counter(var for unit in network.units for var in unit.reads)
    alive = peak = sum(map(size, network.parameters))
    for unit in network.units:
        alive += size(unit.output)
        peak = max(peak, alive)
        for var in unit.reads:
            readers[var] -= 1
            alive -= size(var) if readers[var] == 0 else 0
    batch = shape_of(network.parameters[0])[0]
    return max(1, MEMORY // peak) * batch


class _Solver:
    """The quantised network, one unit at a time over all samples; each variable's values are a list, one a chunk."""

    def __init__(
        self,
        network: Network,
        ranges: Ranges,
        config: FFNConfig,
        layers: Mapping[str, LayerConfig | None],
    ) -> None:
        self.network, self.ranges, self.config, self.layers = network, ranges, config, layers
        self.stored = stored_as_int8(network)
        self.values: dict[relax.Var, list[Any]] = {}
        self.chunks = 0
        self.batch = shape_of(network.parameters[0])[0]
        self.outputs = list(dict.fromkeys(out for out in network.outputs if isinstance(out, relax.Var)))
        self.readers = Counter(var for unit in network.units for var in unit.reads)
        self.readers.update(self.outputs)

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

    def compare(self, expected: list[np.ndarray]) -> Verification | None:
        """The outputs of the held-out samples against the fp32 network's; None without any."""
        if not expected:
            return None
        comparison = Comparison([f"output {place}" for place in range(len(expected))], None)
        comparison.add(expected, [self._held_out(out)[: len(expected[0])] for out in self.outputs])
        return comparison.result()

    def _held_out(self, var: relax.Var) -> np.ndarray:
        parts, start = [], 0
        for chunk in range(self.chunks):
            value = self._read(var, chunk)
            parts.append(value[is_held_out(np.arange(start, start + len(value)))])
            start += len(value)
        return np.concatenate(parts)

    def _keep(self, var: relax.Var, value: Any) -> Any:
        return self.ranges.to_integers(var, value) if var in self.stored else value

    def _read(self, var: relax.Var, chunk: int) -> Any:
        """The real value."""
        value = self.values[var][chunk]
        return self.ranges.counts(var, value) * self.ranges.step(var) if var in self.stored else value

    def _read_equalized(self, var: relax.Var, chunk: int) -> np.ndarray:
        """The value divided by the channels' ratios: what `Ranges.weight` acts on."""
        return self.ranges.counts(var, self.values[var][chunk]) * np.float32(self.ranges.scales[var])

    def _evaluate(self, unit: Unit, solution: LayerSolution | None, chunk: int) -> Any:
        if solution is not None:
            value = self._linear(unit, solution, self._read_equalized(unit.inputs[0], chunk))
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
        if isinstance(expr, tvm.ir.GlobalVar):
            return self.network.functions[expr.name_hint]
        return (
            evaluate(expr, [self._operand(arg, chunk) for arg in expr.args]) if isinstance(expr, relax.Call) else expr
        )

    def _linear(self, unit: Unit, solution: LayerSolution, x: np.ndarray) -> np.ndarray:
        weight = solution.effective_weight
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
        found = self._sampled(unit, unit.inputs[0], rows.index, self._read_equalized)
        inputs = np.concatenate([inputs_at(unit, x, mine) for x, mine in found])
        held = is_held_out(rows.index // max(1, positions(unit) // self.batch))
        reason = reason_for_int8(unit, settings, self.network)
        sampled = LayerRows(inputs, response, held)
        weight = self.ranges.weight(unit)
        if reason:
            return fit_int8(weight, settings, sampled, self.config, reason)
        return fit_ternary(weight, settings, sampled, self.config)

    def _sampled(
        self, unit: Unit, var: relax.Var, index: np.ndarray, read: Callable[[relax.Var, int], Any]
    ) -> Iterator[tuple[Any, np.ndarray]]:
        """The chunks of ``var`` that hold sampled positions of the unit's output, each with those of its own."""
        start = 0
        for chunk in range(self.chunks):
            x = read(var, chunk)
            end = start + positions(unit) * (len(x) // shape_of(var)[0])
            first, last = np.searchsorted(index, (start, end))
            if last > first:
                yield x, index[first:last] - start
            start = end

    def _residual_rows(self, unit: Unit, index: np.ndarray) -> Iterator[np.ndarray]:
        """The unit's residual at the sampled positions, float32 (rows, M)."""
        assert unit.residual is not None
        for x, mine in self._sampled(unit, unit.residual, index, self._read):
            yield outputs_of(x, unit.kind)[mine]


def to_be_planned(unit: Unit, settings: Mapping[str, LayerConfig | None]) -> bool:
    """Whether a layer becomes digit planes whose price nobody has named."""
    own = settings[unit.name]
    ternary = own is not None and own.precision == "ternary" and not unit.is_depthwise
    return ternary and own is not None and own.method == "planes" and own.penalty is None


def reason_for_int8(unit: Unit, settings: LayerConfig, network: Network) -> str:
    """Why a layer is not factorised, or "" if it is."""
    if unit.is_depthwise:
        return "depthwise: one channel a group, there is nothing to share between outputs"
    if settings.precision == "ternary":
        return ""
    if has_few_rows(unit) and settings.method == "planes" and unit is not network.linear[-1]:
        return "few rows: digits would work on too few positions at a time, factors take too long or lose too much"
    place = {network.linear[0]: "first layer", network.linear[-1]: "last layer"}.get(unit)
    if place:
        return f"{place}: the answer is most sensitive to it"
    return "int8 by configuration" if settings.penalty is None else "planned: digits would cost more than int8"
