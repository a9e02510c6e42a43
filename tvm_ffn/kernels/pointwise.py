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
    """``y = clip((a multipliers[0] >> 8) + (b multipliers[1] >> 8) + half >> bits)`` in int16, of two int8 tensors: a
    sum at another scale; the epilogue holds the bounds."""

    shape: Shape
    epilogue: Epilogue

    @property
    def out_shape(self) -> Shape:
        return self.shape

    def constants(self, scales: tuple[float, float]) -> tuple[np.ndarray, ...]:
        """Multipliers int16 (2,), and half a step and bits int16 (1,), for float ``a scales[0] + b scales[1]`` in steps
        of the output. Half a fraction bit is what cutting off each product takes on average."""
        bits = ep.multipliers(np.array(scales))[0].min(keepdims=True)
        return ep.with_bits(np.array(scales), bits), np.int16(1) + np.left_shift(np.int16(1), bits - np.int16(1)), bits

    def prim_func(self, name: str) -> PrimFunc:
        """Arguments: a int8, b int8, multipliers int16 (2,), half int16 (1,), bits int16 (1,), out int8."""
        b = KernelBuilder(name, {"ffn.op": "add"})
        first, second = b.arg("a", self.shape, "int8"), b.arg("b", self.shape, "int8")
        multipliers = b.arg("multipliers", (2,), "int16")
        half, bits = b.arg("half", (1,), "int16"), b.arg("bits", (1,), "int16")
        out = b.arg("out", self.shape, "int8")

        def value(*i: Any) -> Any:
            terms = ep.multiplied(first[i], multipliers[0]), ep.multiplied(second[i], multipliers[1])
            return ep.from_fixed(self.epilogue, ep.add_saturated(*terms), half[0], bits[0])

        b.compute("store", self.shape, "int8", value, out=out)
        return b.finish()

    def reference(
        self, a: np.ndarray, b: np.ndarray, multipliers: np.ndarray, half: np.ndarray, bits: np.ndarray
    ) -> np.ndarray:
        """NumPy oracle; two products fit int16."""
        total = ep.multiplied_numpy(a, multipliers[0]) + ep.multiplied_numpy(b, multipliers[1])
        return ep.from_fixed_numpy(self.epilogue, total, half, bits)


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
