"""A factorised dense layer on many rows: activations are transposed once, then it is a 1x1 convolution over rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm.script.ir_builder import tirx as T
from tvm.tirx import PrimFunc

from tvm_ffn.kernels.builder import KernelBuilder
from tvm_ffn.kernels.factored import FactoredProduct
from tvm_ffn.kernels.work import Cost, Executed


@dataclass(frozen=True)
class TernaryDense:
    """Static description of ``rows`` activations times a factorised matrix, ``pixel_block`` rows at a time."""

    rows: int
    product: FactoredProduct
    pixel_block: int

    @property
    def out_shape(self) -> tuple[int, int]:
        return self.rows, self.product.outputs

    @property
    def cost(self) -> Cost:
        """Counts on the rows there are."""
        return self.product.cost(self.rows)

    @property
    def executed(self) -> Executed:
        """Counts on whole blocks of rows."""
        blocks = -(-self.rows // self.pixel_block)
        moves = self.rows * (self.product.inputs + (1 + self.product.epilogue.residual) * self.product.outputs)
        return Executed.of(self.product.cost(blocks * self.pixel_block), moves=moves)

    def prim_func(self, name: str) -> PrimFunc:
        """Arguments: x int8 (rows, n), then those of `FactoredProduct.arguments` with (rows, m) residual and output."""
        product = self.product
        b = KernelBuilder(
            name, {"ffn.op": "ternary_dense", "ffn.pixel_block": self.pixel_block, "ffn.split": product.split}
        )
        x = b.arg("x", (self.rows, product.inputs), "int8")
        arguments = product.arguments(b, self.out_shape)
        pixels = -(-self.rows // self.pixel_block) * self.pixel_block
        planes = _transpose(b, "planes", x, pixels)

        def read(n: Any, j: Any, k: Any, p: Any) -> Any:
            return T.Cast("int16", planes[k, p])

        flat = product.blocks(
            b,
            arguments,
            images=1,
            pixels=pixels,
            read=read,
            copy=lambda residual: _transpose(b, "residual_flat", residual, pixels),
            place=lambda n, m, p: (m, p),
        )
        rows, dtype = product.outputs // product.split, product.epilogue.out_dtype
        b.compute("store", self.out_shape, dtype, lambda p, m: flat[0, m // rows, m % rows, p], out=arguments.ends.out)
        return b.finish()

    def reference(self, x: np.ndarray, *arguments: np.ndarray) -> np.ndarray:
        """NumPy oracle on the function's arguments without the output; returns the output."""
        parameters, residual = list(arguments), None
        if self.product.epilogue.residual:
            residual = parameters.pop(5).T[None, None]
        return self.product.reference(x.T[None, None], parameters, residual)[0, 0].T


def _transpose(b: KernelBuilder, name: str, x: Any, pixels: int) -> Any:
    rows, columns = (int(s) for s in x.shape)
    size = (columns, pixels)
    return b.compute(name, (rows, columns), "int8", lambda p, k: x[p, k], at=lambda p, k: (k, p), size=size)
