"""From an integer sum to the stored activation: bias, scale, residual, activation, rounding.

    int8:      y = clip(rint((acc + bias) * factor) + zero, lo, hi)
    residual:  y = clip((sat16(rint((acc + bias) * factor * 2^f)) + (r * multiplier >> 8) + 2^(f-1) >> f) + zero,
                        lo, hi)
    float32:   y = clip((acc + bias) * factor, lo, hi)

``factor`` is ``scale``, one stored number an output, or ``scale * slope`` where a leaky ReLU meets a negative
``acc + bias``. The bias is an integer in the unit of the sum and ``zero`` one of the stored values, so that nothing is
added after a floating-point multiply: no target can contract the pair to a fused multiply-add, and all targets give
identical integers. The integer that stands for 0 can ride in the bias, free of charge, unless the sign of the sum
matters; only then is it ``zero``.

A residual is added in int16 with ``f`` fraction bits, where vectors are twice as long as in int32 and additions
saturate; with at most `MOST_FRACTION_BITS` of them, saturated sums are beyond what an int8 holds, zero point included.
Its product's last bit is cut off, not rounded: on average 2^-f-1 of a step.

A vector's conversion to int32 gives the least integer for all that is too small, but not always the largest for what is
too large: only that is clipped before it. What is below is clipped by the narrowing to int16 and int8, which saturates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tvm.script.ir_builder import tirx as T

from tvm_ffn.kernels.codes import INT16_MAX

MOST_FRACTION_BITS = 6
_INT8, _INT16 = 8, 16
_LARGE = float(2**30)  # what saturates in any case, and fits int32
CONSTANT_BYTES = 8  # of bias and scale, for each output channel


@dataclass(frozen=True)
class Epilogue:
    """What follows the integer sum: int8 values, as int8 or int16, or float32. ``lo`` and ``hi`` are in units of the
    stored value (None: unbounded, float32 only), ``slope`` is that of a leaky ReLU for negative sums; ``fraction_bits``
    are those of sums in int16."""

    out_dtype: str = "int8"
    lo: float | None = -127.0
    hi: float | None = 127.0
    slope: float = 1.0
    zero: int = 0
    residual: bool = False
    fraction_bits: int = MOST_FRACTION_BITS

    def __post_init__(self) -> None:
        if self.out_dtype == "float32" and (self.residual or self.zero or self.slope != 1.0):
            raise ValueError("a float32 output takes neither a residual nor a leaky ReLU nor a zero point")

    @property
    def multiplies(self) -> int:
        """Multiplies for each output element; the factor's own, once an output channel, are not counted."""
        return 2 if self.residual else 1


def with_residual(spec: Epilogue, scale: float) -> tuple[Epilogue, np.ndarray]:
    """The epilogue with a residual whose step is ``scale`` of the output's, and its multiplier int16 (1,)."""
    bits, multiplier = multipliers(np.array([scale]))
    return replace(spec, residual=True, fraction_bits=int(bits[0])), multiplier


def multipliers(scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For products of int8 values and float ``scales``: fraction bits int16, as many as keep each multiplier in int16,
    and the multipliers. More than 64 steps of the output count as 64: two of them are all it holds."""
    bits = np.ones(scales.shape, np.int16)
    for more in range(2, MOST_FRACTION_BITS + 1):
        bits[np.rint(np.abs(scales) * 2.0 ** (more + _INT8)) <= INT16_MAX] = more
    return bits, with_bits(scales, bits)


def with_bits(scales: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Multipliers int16 with so many fraction bits."""
    return np.clip(np.rint(scales * 2.0 ** (bits + _INT8)), -INT16_MAX, INT16_MAX).astype(np.int16)


def _clip(value: Any, lo: float | None, hi: float | None) -> Any:
    if hi is not None:
        value = T.min(value, T.float32(hi))
    return value if lo is None else T.max(value, T.float32(lo))


def to_int(value: Any, hi: float) -> Any:
    """TensorIR: ``int32(rint(min(value, hi)))``, ties to even; the least int32 for what is below that.

    LLVM's ``lrint`` is one conversion instruction on every target; TVM's own ``nearbyint`` is no vector operation.
    """
    return T.call_llvm_pure_intrin("int32", "llvm.lrint", T.min(value, T.float32(hi)))


def _saturated(value: Any, wide: int, bits: int) -> Any:
    """TensorIR: the nearest integer of ``bits`` to one of ``wide`` bits; one instruction on most targets."""
    bound, kind = 2 ** (bits - 1), getattr(T, f"int{wide}")
    return T.Cast(f"int{bits}", T.max(T.min(value, kind(bound - 1)), kind(-bound)))


def apply(spec: Epilogue, total: Any, bias: Any, scale: Any, residual: Any = None) -> Any:
    """TensorIR expression of the stored value; ``residual`` is the pair (int8 value, int16 multiplier)."""
    value = T.Cast("float32", total + bias)
    factor = scale
    if spec.slope != 1.0:
        factor = T.Select(value < T.float32(0), scale * T.float32(float(np.float32(spec.slope))), scale)
    if spec.out_dtype == "float32":
        return _clip(value * factor, spec.lo, spec.hi)
    assert spec.lo is not None and spec.hi is not None
    if not spec.residual:
        scaled = value * factor
        if not spec.zero:
            return _stored(spec, to_int(scaled, spec.hi), 32)
        return _stored(spec, to_int(T.max(scaled, T.float32(-_LARGE)), _LARGE) + T.int32(spec.zero), 32)
    item, multiplier = residual
    own = _saturated(to_int(value * (factor * T.float32(2**spec.fraction_bits)), _LARGE), 32, _INT16)
    fixed = add_saturated(own, multiplied(item, multiplier))
    return from_fixed(spec, fixed, T.int16(_half(spec)), T.int16(spec.fraction_bits))


def multiplied(item: Any, multiplier: Any) -> Any:
    """TensorIR: an int8 value times an int16 multiplier with 8 more fraction bits than the int16 result: the high half
    of a product, one instruction on most targets."""
    high = T.Cast("int32", T.shift_left(T.Cast("int16", item), T.int16(_INT8))) * T.Cast("int32", multiplier)
    return T.Cast("int16", T.shift_right(high, T.int32(_INT16)))


def add_saturated(a: Any, b: Any) -> Any:
    """TensorIR: the nearest int16 to the sum of two."""
    return T.call_llvm_pure_intrin("int16", "llvm.sadd.sat", a, b)


def from_fixed(spec: Epilogue, value: Any, offset: Any, bits: Any) -> Any:
    """TensorIR: ``clip(value + offset >> bits)`` of int16, which saturate."""
    return _stored(spec, T.shift_right(add_saturated(value, offset), bits), _INT16)


def _stored(spec: Epilogue, value: Any, wide: int) -> Any:
    """TensorIR: an integer of ``wide`` bits as one of the output's within the bounds."""
    assert spec.lo is not None and spec.hi is not None
    bits, constant = np.iinfo(spec.out_dtype).bits, getattr(T, spec.out_dtype)
    narrow = value if bits == wide else _saturated(value, wide, bits)
    if spec.hi < 2 ** (bits - 1) - 1:
        narrow = T.min(narrow, constant(int(spec.hi)))
    return T.max(narrow, constant(int(spec.lo)))


def _half(spec: Epilogue) -> int:
    """What is added to a fixed-point sum before the shift: half a step, and the zero point in its unit."""
    return (2 * spec.zero + 1) << (spec.fraction_bits - 1)


def apply_numpy(
    spec: Epilogue,
    total: np.ndarray,
    bias: np.ndarray,
    scale: np.ndarray,
    residual: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """NumPy reference of `apply`."""
    exact = total if total.dtype == np.float32 else total.astype(np.int64)
    value = (exact + bias).astype(np.float32)
    factor = scale if spec.slope == 1.0 else np.where(value < 0, scale * np.float32(spec.slope), scale)
    if spec.out_dtype == "float32":
        return np.clip(value * factor, spec.lo, spec.hi).astype(np.float32)
    if not spec.residual:
        return np.clip(np.rint(value * factor) + spec.zero, spec.lo, spec.hi).astype(spec.out_dtype)
    assert residual is not None
    own = _saturated_numpy(np.rint(value * (factor * np.float32(2**spec.fraction_bits))))
    fixed = _saturated_numpy(own + multiplied_numpy(*residual))
    return from_fixed_numpy(spec, fixed, np.array(_half(spec)), np.array(spec.fraction_bits))


def multiplied_numpy(item: np.ndarray, multiplier: np.ndarray) -> np.ndarray:
    """NumPy reference of `multiplied`, as int32."""
    return item.astype(np.int32) * multiplier >> _INT8


def from_fixed_numpy(spec: Epilogue, value: np.ndarray, offset: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """NumPy reference of `from_fixed`."""
    rounded = _saturated_numpy(value + offset.astype(np.int32)) >> bits
    return np.clip(rounded, spec.lo, spec.hi).astype(spec.out_dtype)


def _saturated_numpy(value: np.ndarray) -> np.ndarray:
    """The nearest int16, as int32."""
    return np.clip(value, -INT16_MAX - 1, INT16_MAX).astype(np.int32)


def requantize(total: Any, scale: Any, limit: int) -> Any:
    """TensorIR: the middle of a factorised layer, ``clip(rint(total * scale), -limit, limit)`` as int16."""
    narrow = _saturated(to_int(T.Cast("float32", total) * scale, float(limit)), 32, _INT16)
    return T.max(narrow, T.int16(-limit))


def requantize_numpy(total: np.ndarray, scale: np.ndarray, limit: int) -> np.ndarray:
    """NumPy reference of `requantize`."""
    return np.clip(np.rint(total.astype(np.float32) * scale), -limit, limit).astype(np.int16)
