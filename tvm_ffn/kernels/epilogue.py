"""From an integer sum to the stored activation: bias, scale, residual, activation, rounding.

    int8:      y = clip(rint((acc + bias) * factor) + zero, lo, hi)
    residual:  y = clip(((rint((acc + bias) * factor * 2^8) + rint(r * r_scale * 2^8) + 2^7) >> 8) + zero, lo, hi)
    float32:   y = clip((acc + bias) * factor, lo, hi)

``factor`` is ``scale``, one stored number an output, or ``scale * slope`` where a leaky ReLU meets a negative
``acc + bias``. The bias is an integer in the unit of the sum and ``zero`` one of the stored values, so that nothing is
added after a floating-point multiply: no target can contract the pair to a fused multiply-add, and all targets give
identical integers. The integer that stands for 0 can ride in the bias, free of charge, unless the sign of the sum
matters; only then is it ``zero``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm.script.ir_builder import tirx as T

FRACTION_BITS = 8
WIDE = float(2**22)  # bound on a fixed-point term: far above int8 * 2^8, far below int32
CONSTANT_BYTES = 8  # of bias and scale, for each output channel


@dataclass(frozen=True)
class Epilogue:
    """What follows the integer sum; ``lo`` and ``hi`` in units of the stored value (None: unbounded, float32 only),
    ``slope`` is that of a leaky ReLU for negative sums."""

    out_dtype: str = "int8"
    lo: float | None = -127.0
    hi: float | None = 127.0
    slope: float = 1.0
    zero: int = 0
    residual: bool = False

    def __post_init__(self) -> None:
        if self.out_dtype == "float32" and (self.residual or self.zero or self.slope != 1.0):
            raise ValueError("a float32 output takes neither a residual nor a leaky ReLU nor a zero point")

    @property
    def multiplies(self) -> int:
        """Multiplies for each output element; the factor's own, once an output channel, are not counted."""
        return 2 if self.residual else 1


def _clip(value: Any, lo: float | None, hi: float | None) -> Any:
    if hi is not None:
        value = T.min(value, T.float32(hi))
    return value if lo is None else T.max(value, T.float32(lo))


def to_int(value: Any, lo: float, hi: float) -> Any:
    """TensorIR: ``int32(rint(clip(value, lo, hi)))`` for integer bounds, ties to even.

    LLVM's ``lrint`` is one conversion instruction on every target; TVM's own ``nearbyint`` is no vector operation.
    """
    return T.call_llvm_pure_intrin("int32", "llvm.lrint", _clip(value, lo, hi))


def apply(spec: Epilogue, total: Any, bias: Any, scale: Any, residual: Any = None) -> Any:
    """TensorIR expression of the stored value; ``residual`` is the pair (int8 value, float32 scale)."""
    value = T.Cast("float32", total + bias)
    factor = scale
    if spec.slope != 1.0:
        factor = T.Select(value < T.float32(0), scale * T.float32(float(np.float32(spec.slope))), scale)
    if spec.out_dtype == "float32":
        return _clip(value * factor, spec.lo, spec.hi)
    assert spec.lo is not None and spec.hi is not None
    if not spec.residual:
        rounded = to_int(value * factor, spec.lo - spec.zero, spec.hi - spec.zero)
        return T.Cast("int8", rounded + T.int32(spec.zero) if spec.zero else rounded)
    item, item_scale = residual
    one = T.float32(2**FRACTION_BITS)
    terms = (value * (factor * one), T.Cast("float32", item) * (item_scale * one))
    fixed = to_int(terms[0], -WIDE, WIDE) + to_int(terms[1], -WIDE, WIDE)
    rounded = T.shift_right(fixed + T.int32(_half(spec)), T.int32(FRACTION_BITS))
    return T.Cast("int8", T.max(T.min(rounded, T.int32(int(spec.hi))), T.int32(int(spec.lo))))


def _half(spec: Epilogue) -> int:
    """What is added to a fixed-point sum before the shift: half a step, and the zero point in its unit."""
    return (2 * spec.zero + 1) << (FRACTION_BITS - 1)


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
        return np.clip(np.rint(value * factor) + spec.zero, spec.lo, spec.hi).astype(np.int8)
    assert residual is not None
    one = np.float32(2**FRACTION_BITS)
    terms = [value * (factor * one), residual[0].astype(np.float32) * (residual[1] * one)]
    fixed = sum(np.clip(np.rint(term), -WIDE, WIDE).astype(np.int32) for term in terms)
    rounded = ((fixed + 2 ** (FRACTION_BITS - 1)) >> FRACTION_BITS) + spec.zero
    return np.clip(rounded, spec.lo, spec.hi).astype(np.int8)


def requantize(total: Any, scale: Any, limit: int) -> Any:
    """TensorIR: the middle of a factorised layer, ``clip(rint(total * scale), -limit, limit)`` as int16."""
    return T.Cast("int16", to_int(T.Cast("float32", total) * scale, -float(limit), float(limit)))


def requantize_numpy(total: np.ndarray, scale: np.ndarray, limit: int) -> np.ndarray:
    """NumPy reference of `requantize`."""
    return np.clip(np.rint(total.astype(np.float32) * scale), -limit, limit).astype(np.int16)
