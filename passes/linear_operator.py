"""From a solved linear unit to its kernel: the operator's static description and its packed constants.

Units of the integer sums: one step of the sum is worth ``step[m]`` in real terms,

    ternary: step = a_m * s_middle      int8: step = s_in * s_weight[m]      planes: step = a_m * s_in / 2^(planes - 1)
    bias_int = rint(bias / step)        scale = step / s_out  (or step, for an fp32 output)

The output's zero point goes into the bias, unless a leaky ReLU asks for the sign of the sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tvm_ffn.graph import Unit, shape_of
from tvm_ffn.kernel_plan import KernelPlan
from tvm_ffn.kernels.digit_lists import integer_weights
from tvm_ffn.kernels.epilogue import Epilogue, with_residual
from tvm_ffn.kernels.geometry import ConvGeometry
from tvm_ffn.kernels.layer_kernel import LayerKernel, LayerShape, factored_kernel, int8_kernel, planes_kernel
from tvm_ffn.passes.bounds import stored_bounds
from tvm_ffn.solution import LayerSolution
from tvm_ffn.unit_rows import positions

_LARGEST_BIAS = 2.0**29


@dataclass(frozen=True)
class Scales:
    """Scales of a unit's input, output (None: fp32) and residual (None: none).

    ``steps`` float64 (M,) are the real values of one step of each output channel, 1 for fp32. ``zero`` and ``out_zero``
    are the integers that stand for 0 in the input and the output, and ``offset`` float64 (M,) is what the residual's
    takes into the bias, in real units.
    """

    input: float
    output: float | None
    residual: float | None
    steps: np.ndarray
    offset: np.ndarray
    zero: int
    out_zero: int


@dataclass(frozen=True)
class LinearOperator:
    """A kernel and its constant arguments: those between the activation and the residual, and those after it."""

    operator: Any
    constants: tuple[np.ndarray, ...]
    residual_multiplier: np.ndarray | None
    kernel: str


def linear_operator(
    unit: Unit, solution: LayerSolution, scales: Scales, middle_bits: int, plan: KernelPlan
) -> LinearOperator:
    """Choose and fill the kernel of one linear unit."""
    epilogue, multiplier = _epilogue(unit, scales)
    steps, alive = _steps(unit, solution, scales)
    shape = (unit.groups, -1)
    scale = (steps / scales.steps.reshape(shape)).astype(np.float32)
    kernel = unit_kernel(
        unit, solution, middle_bits, plan, epilogue=epilogue, zero=scales.zero, input_scale=scales.input, alive=alive
    )
    sums = _weight_sums(solution, alive)
    real_bias = _real_bias(unit, solution, scales)
    bias = (np.rint(real_bias.reshape(shape) / steps) - (scales.zero + kernel.raised) * sums).astype(np.int32)
    constants = (*kernel.weights, bias, scale)
    return LinearOperator(kernel.operator, constants, multiplier, kernel.family)


def unit_kernel(
    unit: Unit,
    solution: LayerSolution,
    middle_bits: int,
    plan: KernelPlan,
    *,
    epilogue: Epilogue | None = None,
    zero: int = 0,
    input_scale: float = 1.0,
    alive: np.ndarray | None = None,
) -> LayerKernel:
    """The kernel of a unit's weights; outputs that are not ``alive`` (groups, m) have none."""
    place, epilogue = layer_shape(unit, zero), epilogue or Epilogue()
    if not solution.is_ternary:
        assert solution.weight is not None
        return int8_kernel(place, solution.weight, epilogue, plan)
    if solution.factors[0].planes:
        return planes_kernel(place, _digits(solution, alive), epilogue, plan)
    assert zero == 0, "the middle of a two-stage product has no bias"
    y = np.stack([factors.y.T for factors in solution.factors])
    x = np.stack([factors.x for factors in solution.factors])
    x = x if alive is None else x * alive[:, :, None].astype(np.int8)
    d = np.stack([factors.d for factors in solution.factors])
    middle_scale = (d * (input_scale / solution.middle_scale)).astype(np.float32)
    return factored_kernel(place, y, x, middle_scale, 2 ** (middle_bits - 1) - 1, epilogue, plan)


def layer_shape(unit: Unit, pad_value: int = 0) -> LayerShape:
    """Shape of a linear unit."""
    if unit.kind == "dense":
        return LayerShape.dense(positions(unit))
    return LayerShape(conv_geometry(unit, pad_value))


def conv_geometry(unit: Unit, pad_value: int = 0) -> ConvGeometry:
    """Geometry of a conv2d unit."""
    batch, channels, height, width = shape_of(unit.call.args[0])
    attrs = unit.call.attrs
    top, left, bottom, right = (int(v) for v in attrs.padding)
    return ConvGeometry(
        batch,
        channels,
        height,
        width,
        kernel=_pair(shape_of(unit.call.args[1])[2:]),
        strides=_pair(attrs.strides),
        padding=(top, left, bottom, right),
        dilation=_pair(attrs.dilation),
        groups=int(attrs.groups),
        pad_value=pad_value,
    )


def _pair(values: Any) -> tuple[int, int]:
    first, second = (int(v) for v in values)
    return first, second


def _epilogue(unit: Unit, scales: Scales) -> tuple[Epilogue, np.ndarray | None]:
    """What follows the sum, and a residual's multiplier."""
    activation = unit.activation
    if scales.output is None:
        lo, hi = (None if np.isinf(v) else float(v) for v in (activation.lo, activation.hi))
        return Epilogue("float32", lo, hi), None
    lo, hi = stored_bounds(activation, scales.steps, scales.out_zero)
    zero = 0 if _zero_in_bias(unit) else scales.out_zero
    plain = Epilogue("int8", lo, hi, activation.slope, zero)
    return (plain, None) if scales.residual is None else with_residual(plain, scales.residual / scales.output)


def _zero_in_bias(unit: Unit) -> bool:
    return unit.activation.slope == 1.0


def _steps(unit: Unit, solution: LayerSolution, scales: Scales) -> tuple[np.ndarray, np.ndarray]:
    """Real value of one step of each output's sum (groups, m), and which outputs' weights matter at all: where the bias
    is 2^29 steps or more, the weights are dropped and the step grows, so that the bias fits an int32."""
    if solution.is_ternary:
        a = np.stack([factors.a for factors in solution.factors]).astype(np.float64)
        planes = solution.factors[0].planes
        steps = a * (scales.input * 2.0 ** (1 - planes) if planes else solution.middle_scale)
    else:
        assert solution.weight_scale is not None
        steps = solution.weight_scale.astype(np.float64) * scales.input
    bias = np.abs(_real_bias(unit, solution, scales).reshape(steps.shape))
    alive = (steps > 0) & (bias < _LARGEST_BIAS * steps)
    return np.where(alive, steps, np.maximum(bias / _LARGEST_BIAS, np.finfo(np.float32).tiny)), alive


def _real_bias(unit: Unit, solution: LayerSolution, scales: Scales) -> np.ndarray:
    """Bias, offset and, if it goes there, the output's zero point, float64 (M,)."""
    bias = solution.bias.astype(np.float64) + scales.offset
    return bias + scales.out_zero * scales.steps if _zero_in_bias(unit) else bias


def _digits(solution: LayerSolution, alive: np.ndarray | None) -> np.ndarray:
    """Y as digits int8 (groups, planes, m, n), zeros in the outputs that are not ``alive``."""
    digits = np.stack([f.y.T.reshape(f.planes, len(f.a), -1) for f in solution.factors])
    return digits if alive is None else digits * alive[:, None, :, None].astype(np.int8)


def _weight_sums(solution: LayerSolution, alive: np.ndarray) -> np.ndarray:
    """The sum of each output's weights in the unit of its step, float64 (groups, m): what an input's zero point adds;
    zeros for factors, whose inputs have none."""
    if not solution.is_ternary:
        assert solution.weight is not None
        return solution.weight.sum(axis=2, dtype=np.float64)
    if solution.factors[0].planes:
        return integer_weights(_digits(solution, alive)).sum(axis=2, dtype=np.float64)
    return np.zeros(alive.shape)
