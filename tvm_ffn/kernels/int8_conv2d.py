"""Convolution with int8 weights, for layers that are not factorised (depthwise, the first, by request).

The products are formed in float32 and summed in runs of at most 1040 inputs: every partial sum is an integer below
2^24, so the arithmetic is exact whatever the order and with or without fused multiply-adds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm.script.ir_builder import tirx as T
from tvm.tirx import PrimFunc

from tvm_ffn.kernels import epilogue as ep
from tvm_ffn.kernels.builder import KernelBuilder
from tvm_ffn.kernels.epilogue import CONSTANT_BYTES, Epilogue
from tvm_ffn.kernels.geometry import ConvGeometry
from tvm_ffn.kernels.planes import flat_copy, im2col_numpy, image_planes
from tvm_ffn.kernels.work import Cost, Executed

EXACT_INPUTS = 2**24 // 127**2  # 1040 products of two int8 stay exact in float32


def exact_runs(inputs: int) -> tuple[int, int]:
    """Cut ``inputs`` products into (runs, length) with exact float32 sums; the last run may be shorter."""
    runs = -(-inputs // EXACT_INPUTS)
    return runs, -(-inputs // runs)


@dataclass(frozen=True)
class Int8Conv2d:
    """Static description; ``outputs`` counts one group's channels, ``pixel_block`` pixels are computed at a time."""

    geometry: ConvGeometry
    outputs: int
    epilogue: Epilogue
    pixel_block: int

    @property
    def out_shape(self) -> tuple[int, int, int, int]:
        g = self.geometry
        return g.batch, g.groups * self.outputs, g.out_height, g.out_width

    @property
    def cost(self) -> Cost:
        """Counts on the stored pixels."""
        return self._cost(self.geometry.out_pixels)

    @property
    def executed(self) -> Executed:
        """Counts on whole blocks of pixels; the columns in float32 are moved too, unless they are read once only."""
        g, blocks = self.geometry, self.geometry.blocks(self.pixel_block)
        pixels = g.batch * blocks * self.pixel_block
        columns = pixels * g.groups * g.inputs if self.outputs > 1 else 0
        moves = columns + g.moves(blocks * self.pixel_block, self.out_shape[1], self.epilogue.residual)
        return Executed.of(self._cost(pixels), moves=moves)

    def _cost(self, pixels: int) -> Cost:
        channels, inputs = self.out_shape[1], self.geometry.inputs
        stored, constants = pixels * channels, channels * (inputs + CONSTANT_BYTES)
        return Cost(stored * inputs, stored * (inputs + self.epilogue.multiplies), 0, constants)

    def prim_func(self, name: str) -> PrimFunc:
        """Arguments: x int8 (N, C, H, W), weight int8 (groups, m, inputs), bias int32 (groups, m), scale float32
        (groups, m), [residual int8 like the output, its scale float32 (1,)], output."""
        g, e = self.geometry, self.epilogue
        b = KernelBuilder(name, {"ffn.op": "int8_conv2d", "ffn.pixel_block": self.pixel_block})
        x = b.arg("x", (g.batch, g.channels, g.height, g.width), "int8")
        weight = b.arg("weight", (g.groups, self.outputs, g.inputs), "int8")
        bias = b.arg("bias", (g.groups, self.outputs), "int32")
        scale = b.arg("scale", (g.groups, self.outputs), "float32")
        residual = b.arg("residual", self.out_shape, "int8") if e.residual else None
        residual_scale = b.arg("residual_scale", (1,), "float32") if e.residual else None
        out = b.arg("out", self.out_shape, e.out_dtype)

        pixels = g.blocks(self.pixel_block) * self.pixel_block
        planes = image_planes(b, x, g, pixels)
        extra = flat_copy(b, residual, g, pixels) if residual is not None else None
        channels = g.channels // g.groups

        def column(n: Any, j: Any, k: Any, p: Any) -> Any:
            tap = k % g.taps
            offset = g.tap_offset(tap // g.kernel[1], tap % g.kernel[1], pixels)
            return T.Cast("float32", planes[n, j * channels + k // g.taps, offset + p])

        shape = (g.batch, g.groups, self.outputs, pixels)
        columns = b.compute("columns", (g.batch, g.groups, g.inputs, pixels), "float32", column)
        weights = b.compute("weights", weight.shape, "float32", lambda j, m, k: T.Cast("float32", weight[j, m, k]))
        runs, length = exact_runs(g.inputs)

        def product(n: Any, j: Any, s: Any, m: Any, p: Any, k: Any) -> Any:
            at = s * length + k
            item = columns[n, j, T.min(at, g.inputs - 1), p] * weights[j, m, T.min(at, g.inputs - 1)]
            return item if runs * length == g.inputs else T.Select(at < g.inputs, item, T.float32(0))

        partial = b.reduce("partial", (*shape[:2], runs, *shape[2:]), (length,), "float32", product)
        total = exact_total(b, partial, shape, runs)

        def stored(n: Any, j: Any, m: Any, p: Any) -> Any:
            pair = None
            if extra is not None and residual_scale is not None:
                pair = (extra[n, j * self.outputs + m, p], residual_scale[0])
            return ep.apply(e, total[n, j, m, p], bias[j, m], scale[j, m], pair)

        flat = b.compute("epilogue", shape, e.out_dtype, stored)

        def cropped(n: Any, m: Any, h: Any, w: Any) -> Any:
            return flat[n, m // self.outputs, m % self.outputs, h * g.pitch + w]

        b.compute("store", self.out_shape, e.out_dtype, cropped, out=out)
        return b.finish()

    def reference(
        self, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, scale: np.ndarray, *residual: np.ndarray
    ) -> np.ndarray:
        """NumPy oracle on the function's arguments without the output; returns the output."""
        columns = im2col_numpy(x, self.geometry).astype(np.int64)
        total = weight.astype(np.int64)[None] @ columns
        extra = (residual[0].reshape(total.shape), residual[1]) if residual else None
        stored = ep.apply_numpy(self.epilogue, total, bias[None, :, :, None], scale[None, :, :, None], extra)
        return stored.reshape(self.out_shape)


def exact_total(b: KernelBuilder, partial: Any, shape: tuple[int, ...], runs: int) -> Any:
    """Block "sum": int32 totals of the exact float32 runs (third axis of ``partial``)."""
    if runs == 1:
        return b.compute("sum", shape, "int32", lambda n, j, m, p: T.Cast("int32", partial[n, j, 0, m, p]))
    return b.reduce("sum", shape, (runs,), "int32", lambda n, j, m, p, s: T.Cast("int32", partial[n, j, s, m, p]))
