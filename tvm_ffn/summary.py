"""The report's rows: what became of each layer, counted on what will run."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tvm_ffn.graph import Unit, shape_of
from tvm_ffn.passes.linear_operator import LinearOperator
from tvm_ffn.report import LayerRow, Report
from tvm_ffn.solution import LayerSolution, QuantizedNetwork

_SCALE_AND_BIAS = 8  # bytes an output of an int8 or ternary layer: float32 scale, int32 bias


def summarize(
    quantized: QuantizedNetwork,
    linear: Mapping[Unit, LinearOperator],
    *,
    model: str,
    target: str,
    warnings: tuple[str, ...],
) -> Report:
    """One row for every layer with a constant weight, in topological order."""
    rows = []
    for unit in quantized.network.units:
        if unit in linear:
            rows.append(_integer_row(unit, quantized.layers[unit], linear[unit]))
        elif _has_weight(unit):
            rows.append(_float_row(unit))
    return Report(tuple(rows), model, target, warnings)


def _has_weight(unit: Unit) -> bool:
    names = ("relax.nn.conv2d", "relax.matmul")
    return getattr(unit.call, "op", None) is not None and getattr(unit.call.op, "name", "") in names and hasattr(
        unit.call.args[1], "value"
    )


def _counts(unit: Unit) -> tuple[tuple[int, ...], int, int, int]:
    """Weight shape, its size, the output's channels, and the multiply-accumulates of one sample."""
    weight = shape_of(unit.call.args[1])
    output = shape_of(unit.call)
    is_conv = unit.call.op.name == "relax.nn.conv2d"
    channels = output[1] if is_conv else output[-1]
    inputs = int(np.prod(weight[1:])) if is_conv else weight[0]
    return weight, int(np.prod(weight)), channels, int(np.prod(output)) * inputs // output[0]


def _integer_row(unit: Unit, solution: LayerSolution, built: LinearOperator) -> LayerRow:
    weight, size, channels, macs = _counts(unit)
    factors = solution.factors
    adds, multiplies = built.operator.work
    batch = shape_of(unit.call)[0]
    return LayerRow(
        name=unit.name,
        op=unit.call.op.name.removeprefix("relax.").removeprefix("nn."),
        shape=weight,
        output_shape=shape_of(unit.output),
        kind="ternary" if solution.is_ternary else "int8",
        rank=factors[0].rank if factors else None,
        density_x=float(np.mean([f.density_x for f in factors])) if factors else None,
        density_y=float(np.mean([f.density_y for f in factors])) if factors else None,
        response_error=solution.response_error,
        macs=macs,
        adds=adds // batch,
        multiplies=multiplies // batch,
        weight_bytes=built.weight_bytes,
        int8_bytes=size + _SCALE_AND_BIAS * channels,
        fp32_bytes=4 * (size + channels),
        kernel=built.kernel,
        reason=solution.reason,
    )


def _float_row(unit: Unit) -> LayerRow:
    weight, size, channels, macs = _counts(unit)
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
        reason="fp32 by configuration",
    )
