"""Elementwise operators at and between int8 tensors: add, channel-wise affine, rescale, quantise, dequantise.

The formulas are those of `epilogue`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm.script.ir_builder import tirx as T
from tvm.tirx import PrimFunc

from tvm_ffn.kernels import epilogue as ep
from tvm_ffn.kernels.builder import KernelBuilder
from tvm_ffn.kernels.epilogue import Epilogue

Shape = tuple[int, ...]
FRACTION_BITS = 8  # of `Affine`
_WIDE = float(2**22)  # bound on its product: far above int8 * 2^8, far below int32


@dataclass(frozen=True)
class Add:
    """``y = a a_scale + b b_scale`` of two int8 tensors, b as a residual; the epilogue holds the bounds."""

    shape: Shape
    epilogue: Epilogue

    @property
    def out_shape(self) -> Shape:
        return self.shape

    def prim_func(self, name: str) -> PrimFunc:
        """Arguments: a int8, a_scale float32 (1,), b int8, its multiplier int16 (1,), out int8."""
        b = KernelBuilder(name, {"ffn.op": "add"})
        first, first_scale = b.arg("a", self.shape, "int8"), b.arg("a_scale", (1,), "float32")
        second, multiplier = b.arg("b", self.shape, "int8"), b.arg("multiplier", (1,), "int16")
        out = b.arg("out", self.shape, "int8")

        def value(*i: Any) -> Any:
            pair = (second[i], multiplier[0])
            return ep.apply(self.epilogue, T.Cast("int32", first[i]), T.int32(0), first_scale[0], pair)

        b.compute("store", self.shape, "int8", value, out=out)
        return b.finish()

    def reference(self, a: np.ndarray, a_scale: np.ndarray, b: np.ndarray, multiplier: np.ndarray) -> np.ndarray:
        """NumPy oracle."""
        return ep.apply_numpy(self.epilogue, a, np.zeros((), np.int32), a_scale, (b, multiplier))


@dataclass(frozen=True)
class Affine:
    """``y = clip((rint(x scale[c] 2^8) + offset[c] + 2^7) >> 8)``: a BatchNorm that no convolution could take."""

    shape: Shape
    lo: int
    hi: int

    @property
    def out_shape(self) -> Shape:
        return self.shape

    def prim_func(self, name: str) -> PrimFunc:
        """Arguments: x int8, scale float32 (channels,), offset int32 (channels,) in 1 / 256 of a step, out int8."""
        b = KernelBuilder(name, {"ffn.op": "affine"})
        x = b.arg("x", self.shape, "int8")
        scale, offset = b.arg("scale", (self.shape[1],), "float32"), b.arg("offset", (self.shape[1],), "int32")
        out = b.arg("out", self.shape, "int8")

        def value(*i: Any) -> Any:
            product = T.Cast("float32", x[i]) * (scale[i[1]] * T.float32(2**FRACTION_BITS))
            bounded = T.max(product, T.float32(-_WIDE))
            fixed = ep.to_int(bounded, _WIDE) + offset[i[1]] + T.int32(2 ** (FRACTION_BITS - 1))
            rounded = T.shift_right(fixed, T.int32(FRACTION_BITS))
            return T.Cast("int8", T.max(T.min(rounded, T.int32(self.hi)), T.int32(self.lo)))

        b.compute("store", self.shape, "int8", value, out=out)
        return b.finish()

    def reference(self, x: np.ndarray, scale: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """NumPy oracle."""
        one = np.float32(2**FRACTION_BITS)
        channels = (1, -1, *(1,) * (len(self.shape) - 2))
        product = x.astype(np.float32) * (scale * one).reshape(channels)
        fixed = (
            np.rint(np.clip(product, -_WIDE, _WIDE)).astype(np.int32)
            + offset.reshape(channels)
            + 2 ** (FRACTION_BITS - 1)
        )
        return np.clip(fixed >> FRACTION_BITS, self.lo, self.hi).astype(np.int8)


@dataclass(frozen=True)
class Rescale:
    """``epilogue(x - zero)`` of a tensor: another scale, a ReLU, a clip, a leaky ReLU, int8 to float32 or float32 to
    int8; ``zero`` is the integer that stands for 0 in an int8 tensor."""

    shape: Shape
    in_dtype: str
    epilogue: Epilogue
    zero: int = 0

    @property
    def out_shape(self) -> Shape:
        return self.shape

    def prim_func(self, name: str) -> PrimFunc:
        """Arguments: x, scale float32 (1,), out."""
        b = KernelBuilder(name, {"ffn.op": "rescale"})
        x = b.arg("x", self.shape, self.in_dtype)
        scale = b.arg("scale", (1,), "float32")
        out = b.arg("out", self.shape, self.epilogue.out_dtype)
        bias = T.int32(-self.zero) if self.in_dtype == "int8" else T.float32(0)
        kind = "int32" if self.in_dtype == "int8" else "float32"

        def value(*i: Any) -> Any:
            return ep.apply(self.epilogue, T.Cast(kind, x[i]), bias, scale[0])

        b.compute("store", self.shape, self.epilogue.out_dtype, value, out=out)
        return b.finish()

    def reference(self, x: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """NumPy oracle."""
        bias = np.array(-self.zero, np.int32 if self.in_dtype == "int8" else np.float32)
        return ep.apply_numpy(self.epilogue, x, bias, scale)
