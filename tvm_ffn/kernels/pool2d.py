"""Pooling of int8 tensors, separable: first down the columns, then along the rows. The sum of a whole plane is one run.

max:      y = max over the window (the scale does not change)
average:  y = epilogue(sum + bias[h, w]), scale[h, w] holds 1 / count and the ratio of the two scales, bias[h, w] what
          the zero point of the input adds to the sum
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from tvm.script.ir_builder import tirx as T
from tvm.tirx import PrimFunc

from tvm_ffn.kernels import epilogue as ep
from tvm_ffn.kernels.builder import KernelBuilder
from tvm_ffn.kernels.epilogue import Epilogue

LOWEST = -128  # below every stored value: what padding contributes to a maximum


@dataclass(frozen=True)
class Window:
    """A pooling window over NCHW; ``padding`` is (top, left), the output size settles the rest (ceil mode included)."""

    shape: tuple[int, int, int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    out_size: tuple[int, int]

    @property
    def out_shape(self) -> tuple[int, int, int, int]:
        return self.shape[0], self.shape[1], *self.out_size

    @property
    def is_plane(self) -> bool:
        """Whether the only window is the image, no more and no less."""
        return self.out_size == (1, 1) and self.kernel == self.shape[2:] and self.padding == (0, 0)

    def counts(self) -> np.ndarray:
        """Elements inside the image under each window, (out_height, out_width)."""
        return np.outer(*(self._inside(axis).sum(1) for axis in (0, 1)))

    def _inside(self, axis: int) -> np.ndarray:
        start = np.arange(self.out_size[axis])[:, None] * self.strides[axis] - self.padding[axis]
        at = start + np.arange(self.kernel[axis]) * self.dilation[axis]
        return (at >= 0) & (at < self.shape[2 + axis])

    @property
    def _padded(self) -> tuple[int, int]:
        """Rows and columns of the image with the padding that some window reads."""

        def size(axis: int) -> int:
            last = (self.out_size[axis] - 1) * self.strides[axis] + self._reach(axis)
            return max(self.shape[2 + axis] + self.padding[axis], last + 1)

        return size(0), size(1)

    def _reach(self, axis: int) -> int:
        """Distance of a window's last element from its first."""
        return (self.kernel[axis] - 1) * self.dilation[axis]

    def fold(self, b: KernelBuilder, x: Any, dtype: str, combine: Any, identity: int) -> Callable[..., Any]:
        """Blocks "padded", "columns" and "pool": the window folded with ``combine``, of ``dtype``, by output.

        Both folds run over a plane as one row, at every place of it: all loops are long and contiguous, and what a
        stride skips, or lies across the end of a row, is never read.
        """
        n, c, height, width = self.shape
        rows, pitch = self._padded
        (top, left), constant = self.padding, getattr(T, dtype)(identity)

        def inside(i: Any, j: Any, h: Any, w: Any) -> Any:
            y, z = h - top, w - left
            is_image = T.And(T.And(y >= 0, y < height), T.And(z >= 0, z < width))
            return T.if_then_else(is_image, T.Cast(dtype, x[i, j, y, z]), constant)

        plain = (rows, pitch) == (height, width) and dtype == "int8"
        source = x if plain else b.compute("padded", (n, c, rows, pitch), dtype, inside)
        length = ((self.out_size[0] - 1) * self.strides[0] + 1) * pitch

        def down(i: Any, j: Any, p: Any) -> Any:
            places = [p + d * self.dilation[0] * pitch for d in range(self.kernel[0])]
            return reduce(combine, (source[i, j, at // pitch, at % pitch] for at in places))

        columns = b.compute("columns", (n, c, length), dtype, down)

        def along(i: Any, j: Any, p: Any) -> Any:
            return reduce(combine, (columns[i, j, p + d * self.dilation[1]] for d in range(self.kernel[1])))

        pool = b.compute("pool", (n, c, length - self._reach(1)), dtype, along)
        return lambda i, j, h, w: pool[i, j, h * self.strides[0] * pitch + w * self.strides[1]]

    def fold_numpy(self, x: np.ndarray, combine: Any, identity: int) -> np.ndarray:
        """NumPy reference of `fold` in int64."""
        n, c, height, width = self.shape
        (top, left), (rows, columns) = self.padding, self.out_size
        span = [(self.out_size[a] - 1) * self.strides[a] + (self.kernel[a] - 1) * self.dilation[a] + 1 for a in (0, 1)]
        padded = np.full((n, c, max(span[0], height + top), max(span[1], width + left)), identity)
        padded[:, :, top : top + height, left : left + width] = x
        total = np.full(self.out_shape, identity)
        for dy in range(self.kernel[0]):
            for dx in range(self.kernel[1]):
                y0, x0 = dy * self.dilation[0], dx * self.dilation[1]
                part = padded[:, :, y0 :: self.strides[0], x0 :: self.strides[1]]
                total = combine(total, part[:, :, :rows, :columns])
        return total


@dataclass(frozen=True)
class MaxPool2d:
    """Maximum over a window of int8 values."""

    window: Window

    @property
    def out_shape(self) -> tuple[int, int, int, int]:
        return self.window.out_shape

    def prim_func(self, name: str) -> PrimFunc:
        """Arguments: x int8 NCHW, out int8."""
        b = KernelBuilder(name, {"ffn.op": "max_pool2d"})
        x = b.arg("x", self.window.shape, "int8")
        out = b.arg("out", self.out_shape, "int8")
        pooled = self.window.fold(b, x, "int8", lambda a, v: T.max(a, v), LOWEST)
        b.compute("store", self.out_shape, "int8", pooled, out=out)
        return b.finish()

    def reference(self, x: np.ndarray) -> np.ndarray:
        """NumPy oracle."""
        return self.window.fold_numpy(x, np.maximum, LOWEST).astype(np.int8)


@dataclass(frozen=True)
class AvgPool2d:
    """Average over a window of int8 values; a global average pool is a window of the image's size."""

    window: Window
    epilogue: Epilogue

    @property
    def out_shape(self) -> tuple[int, int, int, int]:
        return self.window.out_shape

    def prim_func(self, name: str) -> PrimFunc:
        """Arguments: x int8 NCHW, bias int32 and scale float32 (out_height, out_width), out."""
        b = KernelBuilder(name, {"ffn.op": "avg_pool2d"})
        x = b.arg("x", self.window.shape, "int8")
        bias = b.arg("bias", self.window.out_size, "int32")
        scale = b.arg("scale", self.window.out_size, "float32")
        out = b.arg("out", self.out_shape, self.epilogue.out_dtype)
        total = (
            self._plane_sum(b, x) if self.window.is_plane else self.window.fold(b, x, "int32", lambda a, v: a + v, 0)
        )

        def stored(n: Any, c: Any, h: Any, w: Any) -> Any:
            return ep.apply(self.epilogue, total(n, c, h, w), bias[h, w], scale[h, w])

        b.compute("store", self.out_shape, self.epilogue.out_dtype, stored, out=out)
        return b.finish()

    def _plane_sum(self, b: KernelBuilder, x: Any) -> Callable[..., Any]:
        """Block "plane": a channel's sum, by output."""
        n, c, height, width = self.window.shape
        total = b.reduce("plane", (n, c), (height, width), "int32", lambda i, j, h, w: T.Cast("int32", x[i, j, h, w]))
        return lambda i, j, h, w: total[i, j]

    def reference(self, x: np.ndarray, bias: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """NumPy oracle."""
        total = self.window.fold_numpy(x, np.add, 0)
        return ep.apply_numpy(self.epilogue, total, bias, scale)
