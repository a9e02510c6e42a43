"""The report's rows: what became of each layer, counted on what will run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from tvm_ffn.graph import Unit, shape_of
from tvm_ffn.kernel_plan import CODE_KERNEL, INT8_KERNEL, PLANES_KERNEL
from tvm_ffn.passes.linear_operator import LinearOperator
from tvm_ffn.report import LayerRow, Report
from tvm_ffn.solution import LayerSolution, QuantizedNetwork
from tvm_ffn.tuning.task import Task

_PLANES_AS_INT8 = "digit planes, run as the int8 weights they stand for: too few rows for vectors of rows"
_SCALE_AND_BIAS = 8  # bytes an output of an int8 or ternary layer: float32 scale, int32 bias


def summarize(
    quantized: QuantizedNetwork,
    linear: Mapping[Unit, LinearOperator],
    *,
    tasks: Mapping[Unit, Task],
    tuning: Mapping[str, str],
    operators: Mapping[str, str],
    packed: Mapping[str, int],
    model: str,
    target: str,
    warnings: tuple[str, ...],
) -> Report:
    """One row for every layer with a constant weight, in topological order."""
    rows = []
    batch = shape_of(quantized.network.parameters[0])[0]
    calls = {unit: place for place, unit in enumerate(u for u in quantized.network.units if u in linear)}
    for unit in sorted(quantized.network.units, key=lambda unit: unit.index):
        if unit in linear:
            row = _integer_row(unit, quantized.layers[unit], linear[unit], batch)
            task, tuned = tasks[unit].to_dict(), tuning[unit.name]
            instead = packed.get(unit.name) if row.kernel.startswith((CODE_KERNEL, f"{PLANES_KERNEL}-")) else None
            damage = _damage(quantized, unit)
            rows.append(
                dataclasses.replace(row, damage=damage, task=task, tuned=tuned, packed_bytes=instead, call=calls[unit])
            )
        elif unit.reason:
            rows.append(_float_row(unit, batch))
    held = quantized.held_out
    held_out = None if held is None else {**dataclasses.asdict(held), "expected_drop": held.expected_drop}
    budget = dict(quantized.plan.budget)
    return Report(tuple(rows), model, target, warnings, held_out, budget, dict(operators))


def _damage(quantized: QuantizedNetwork, unit: Unit) -> float | None:
    """Expected damage of the layer alone: the plan's, scaled to the error that was reached."""
    planned = quantized.plan.layers.get(unit.name)
    if planned is None or planned.damage is None or not planned.error:
        return None
    return planned.damage * (quantized.layers[unit].response_error / planned.error) ** 2


def _counts(unit: Unit, batch: int) -> tuple[tuple[int, ...], int, int, int]:
    """Weight shape, its size, the output's channels, and the multiply-accumulates of one sample."""
    weight, output = shape_of(unit.call.args[1]), shape_of(unit.call)
    size = int(np.prod(weight))
    if unit.call.op.name == "relax.matmul":
        return weight, size, output[-1], int(np.prod(output)) * weight[-2] // batch
    positions = shape_of(unit.call.args[0]) if unit.call.op.name.endswith("_transpose") else output
    return weight, size, output[1], int(np.prod(positions)) * int(np.prod(weight[1:])) // batch


def _integer_row(unit: Unit, solution: LayerSolution, built: LinearOperator, batch: int) -> LayerRow:
    weight, size, channels, macs = _counts(unit, batch)
    factors = solution.factors
    cost = built.operator.cost
    return LayerRow(
        name=unit.name,
        op=unit.call.op.name.removeprefix("relax.").removeprefix("nn."),
        shape=weight,
        output_shape=shape_of(unit.output),
        kind="int8" if built.kernel == INT8_KERNEL else "ternary",
        rank=factors[0].rank if factors else None,
        density_x=float(np.mean([f.density_x for f in factors])) if factors else None,
        density_y=float(np.mean([f.density_y for f in factors])) if factors else None,
        response_error=solution.response_error,
        macs=macs,
        adds=cost.adds // batch,
        multiplies=cost.multiplies // batch,
        weight_bytes=cost.bytes,
        int8_bytes=size + _SCALE_AND_BIAS * channels,
        fp32_bytes=4 * (size + channels),
        kernel=built.kernel,
        reason=solution.reason or (_PLANES_AS_INT8 if built.kernel == INT8_KERNEL else ""),
        groups=unit.groups,
        planes=factors[0].planes or None if factors else None,
        accumulated_error=solution.accumulated_error,
    )


def _float_row(unit: Unit, batch: int) -> LayerRow:
    weight, size, channels, macs = _counts(unit, batch)
    return LayerRow(
        name=unit.name,
        op=unit.call.op.name.removeprefix("relax.").removeprefix("nn."),
        shape=weight,
        output_shape=shape_of(unit.output),
        kind="fp32",
        rank=None,
        density_x=None,
        density_y=None,
        response_error=None,
        macs=macs,
        adds=macs,
        multiplies=macs,
        weight_bytes=4 * size,
        int8_bytes=size + _SCALE_AND_BIAS * channels,
        fp32_bytes=4 * (size + channels),
        kernel="fp32",
        reason=unit.reason,
    )
