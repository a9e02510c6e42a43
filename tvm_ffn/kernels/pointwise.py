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
    """``y = clip((x multiplier[c] >> 8) + offset[c] >> bits[c])`` in int16: a BatchNorm that no convolution could take;
    the epilogue holds the bounds."""

    shape: Shape
    epilogue: Epilogue

    @property
    def out_shape(self) -> Shape:
        return self.shape

    def constants(self, scale: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, ...]:
        """Multiplier, offset and bits, int16 (channels,), for float ``x scale[c] + bias[c]`` in steps of the output.
        Half a fraction bit is what cutting off the product takes on average."""
        bits, multiplier = ep.multipliers(scale)
        offset = np.rint(bias * 2.0**bits + 0.5) + 2.0 ** (bits - 1)
        limits = np.iinfo(np.int16)
        return multiplier, np.clip(offset, limits.min, limits.max).astype(np.int16), bits

    def prim_func(self, name: str) -> PrimFunc:
        """Arguments: x int8, multiplier, offset, bits int16 (channels,), out int8."""
        b = KernelBuilder(name, {"ffn.op": "affine"})
        x = b.arg("x", self.shape, "int8")
        multiplier, offset, bits = (b.arg(n, (self.shape[1],), "int16") for n in ("multiplier", "offset", "bits"))
        out = b.arg("out", self.shape, "int8")

        def value(*i: Any) -> Any:
            product = ep.multiplied(x[i], multiplier[i[1]])
            return ep.from_fixed(self.epilogue, product, offset[i[1]], bits[i[1]])

        b.compute("store", self.shape, "int8", value, out=out)
        return b.finish()

    def reference(self, x: np.ndarray, *constants: np.ndarray) -> np.ndarray:
        """NumPy oracle."""
        channels = (1, -1, *(1,) * (len(self.shape) - 2))
        multiplier, offset, bits = (value.reshape(channels) for value in constants)
        return ep.from_fixed_numpy(self.epilogue, ep.multiplied_numpy(x, multiplier), offset, bits)


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
