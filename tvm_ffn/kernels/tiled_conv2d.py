"""What convolutions with weights as code share: planes in, one tile of pixels after the other, epilogue, rows out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm.tirx import Buffer, PrimFunc

from tvm_ffn.kernels import epilogue as ep
from tvm_ffn.kernels.builder import KernelBuilder
from tvm_ffn.kernels.epilogue import Epilogue
from tvm_ffn.kernels.geometry import ConvGeometry
from tvm_ffn.kernels.planes import flat_copy, im2col_numpy, image_planes
from tvm_ffn.kernels.straight_line import VectorISA

_TILE = 24  # vectors: long enough to pay for fetching the code, short enough for the sums to stay in the caches

Sums = Callable[[Any, Any], Any]  # int32 sum of output m at pixel p of the tile


def tile_for(geometry: ConvGeometry, isa: VectorISA) -> int:
    """Pixels of a tile: about `_TILE` vectors, all tiles alike with as little as possible beyond the last pixel."""
    vectors = -(-geometry.pixels // isa.lanes)
    tiles = max(1, round(vectors / _TILE))
    return -(-vectors // tiles) * isa.lanes


@dataclass(frozen=True, eq=False)
class TiledConv2d(ABC):
    """A convolution of one group over tiles of ``tile`` pixels, a multiple of the ISA's lanes."""

    geometry: ConvGeometry
    epilogue: Epilogue
    isa: VectorISA
    tile: int

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Output channels."""

    @abstractmethod
    def arguments(self, b: KernelBuilder) -> list[Buffer]:
        """Declare the arguments between the activation and the bias."""

    @abstractmethod
    def sums(self, b: KernelBuilder, arguments: list[Buffer], reads: Any, source: Any) -> Sums:
        """Add the blocks of one tile; ``source`` is its first input, ``reads`` the region of all."""

    @abstractmethod
    def sums_numpy(self, columns: np.ndarray, arguments: tuple[np.ndarray, ...]) -> np.ndarray:
        """NumPy reference of the sums, int64 (N, 1, outputs, pixels), from int64 columns (N, 1, inputs, pixels)."""

    @property
    def argument_count(self) -> int:
        """Arguments declared by `arguments`."""
        return 0

    @property
    def out_shape(self) -> tuple[int, int, int, int]:
        g = self.geometry
        return g.batch, self.outputs, g.out_height, g.out_width

    @property
    def pixels(self) -> int:
        """Length of the flat pixel space, a multiple of the tile."""
        return -(-self.geometry.pixels // self.tile) * self.tile

    def prim_func(self, name: str) -> PrimFunc:
        """Arguments: x int8 (N, C, H, W), those of `arguments`, bias int32 (1, m), scale float32 (1 or 2, 1, m),
        [residual int8 like the output, its scale float32 (1,)], out."""
        g, e = self.geometry, self.epilogue
        b = KernelBuilder(name, {"ffn.op": "ternary_code_conv2d", "ffn.pixel_block": self.tile})
        x = b.arg("x", (g.batch, g.channels, g.height, g.width), "int8")
        arguments = self.arguments(b)
        bias = b.arg("bias", (1, self.outputs), "int32")
        scale = b.arg("scale", (2 if e.leaky else 1, 1, self.outputs), "float32")
        residual = b.arg("residual", self.out_shape, "int8") if e.residual else None
        residual_scale = b.arg("residual_scale", (1,), "float32") if e.residual else None
        out = b.arg("out", self.out_shape, e.out_dtype)
        planes = image_planes(b, x, g, self.pixels, "int16")
        extra = flat_copy(b, residual, g, self.pixels) if residual is not None else None
        flat = b.tensor("flat", (g.batch, self.outputs, self.pixels), e.out_dtype)
        with b.tile("tile", (g.batch, self.pixels // self.tile)) as (n, t):
            start = t * self.tile
            span = planes[n, 0 : g.channels, 0 : g.span(self.pixels)]
            total = self.sums(b, arguments, span, planes[n, 0, start])

            def stored(m: Any, p: Any) -> Any:
                pair = None
                if extra is not None and residual_scale is not None:
                    pair = (extra[n, m, start + p], residual_scale[0])
                return ep.apply(e, total(m, p), bias[0, m], lambda i: scale[i, 0, m], pair)

            shape = (self.outputs, self.tile)
            b.compute("epilogue", shape, e.out_dtype, stored, out=flat, at=lambda m, p: (n, m, start + p))

        def cropped(n: Any, m: Any, h: Any, w: Any) -> Any:
            return flat[n, m, h * g.pitch + w]

        b.compute("store", self.out_shape, e.out_dtype, cropped, out=out)
        return b.finish()

    def reference(self, x: np.ndarray, *arguments: np.ndarray) -> np.ndarray:
        """NumPy oracle on the function's arguments without the output; returns the output."""
        own, rest = arguments[: self.argument_count], arguments[self.argument_count :]
        total = self.sums_numpy(im2col_numpy(x, self.geometry).astype(np.int64), own)
        extra = (rest[2].reshape(total.shape), rest[3]) if self.epilogue.residual else None
        bias, scale = rest[0][None, :, :, None], rest[1][:, None, :, :, None]
        return ep.apply_numpy(self.epilogue, total, bias, scale, extra).reshape(self.out_shape)
