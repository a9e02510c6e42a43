"""A factorised convolution in one function: ternary convolution, scale and requantise, ternary 1x1, epilogue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm.script.ir_builder import tirx as T
from tvm.tirx import PrimFunc

from tvm_ffn.kernels.builder import KernelBuilder
from tvm_ffn.kernels.factored import FactoredProduct
from tvm_ffn.kernels.geometry import ConvGeometry
from tvm_ffn.kernels.planes import cropped, flat_copy, im2col_numpy, image_planes
from tvm_ffn.kernels.work import Cost, Executed


@dataclass(frozen=True)
class TernaryConv2d:
    """Static description of one factorised convolution; ``pixel_block`` pixels are computed at a time."""

    geometry: ConvGeometry
    product: FactoredProduct
    pixel_block: int

    @property
    def out_shape(self) -> tuple[int, int, int, int]:
        g = self.geometry
        return g.batch, g.groups * self.product.outputs, g.out_height, g.out_width

    @property
    def cost(self) -> Cost:
        """Counts on the stored pixels."""
        return self.product.cost(self.geometry.out_pixels)

    @property
    def executed(self) -> Executed:
        """Counts on whole blocks of pixels."""
        g, blocks = self.geometry, self.geometry.blocks(self.pixel_block)
        cost = self.product.cost(g.batch * blocks * self.pixel_block)
        moves = g.moves(blocks * self.pixel_block, self.out_shape[1], self.product.epilogue.residual)
        return Executed.of(cost, moves=moves)

    def prim_func(self, name: str) -> PrimFunc:
        """Arguments: x int8 (N, C, H, W), then those of `FactoredProduct.arguments` with NCHW residual and output."""
        g, product = self.geometry, self.product
        b = KernelBuilder(
            name, {"ffn.op": "ternary_conv2d", "ffn.pixel_block": self.pixel_block, "ffn.split": product.split}
        )
        x = b.arg("x", (g.batch, g.channels, g.height, g.width), "int8")
        arguments = product.arguments(b, self.out_shape)
        pixels = g.blocks(self.pixel_block) * self.pixel_block
        planes = image_planes(b, x, g, pixels)
        channels = g.channels // g.groups

        def read(n: Any, j: Any, k: Any, p: Any) -> Any:
            tap = k % g.taps
            offset = g.tap_offset(tap // g.kernel[1], tap % g.kernel[1], pixels)
            return T.Cast("int16", planes[n, j * channels + k // g.taps, offset + p])

        flat = product.blocks(
            b,
            arguments,
            images=g.batch,
            pixels=pixels,
            read=read,
            copy=lambda residual: flat_copy(b, residual, g, pixels),
            place=lambda n, m, p: (n, m, p),
        )
        rows = product.outputs // product.split
        cropped(b, arguments.ends.out, g, lambda n, m, p: flat[n, m // rows, m % rows, p])
        return b.finish()

    def reference(self, x: np.ndarray, *arguments: np.ndarray) -> np.ndarray:
        """NumPy oracle on the function's arguments without the output; returns the output."""
        g, product = self.geometry, self.product
        columns = im2col_numpy(x, g)
        shape = (g.batch, g.groups, product.outputs, -1)
        parameters, residual = list(arguments), None
        if product.epilogue.residual:
            residual = parameters.pop(5).reshape(shape)
        return product.reference(columns, parameters, residual).reshape(self.out_shape)
