"""Convolution with int8 weights, for layers that are not factorised (depthwise, the first, by request); `dot_sum`. Its
activations are raised by `Dot.raise_by`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from tvm.tirx import Buffer

from tvm_ffn.kernels.builder import KernelBuilder
from tvm_ffn.kernels.dot import sequence
from tvm_ffn.kernels.dot_sum import DotCut, DotTile, dot_sum
from tvm_ffn.kernels.epilogue import CONSTANT_BYTES
from tvm_ffn.kernels.group_tiled_conv2d import GroupTiledConv2d
from tvm_ffn.kernels.planes import image_planes
from tvm_ffn.kernels.tiled_conv2d import Sums, Tile
from tvm_ffn.kernels.work import Cost, Executed


@dataclass(frozen=True, eq=False)
class Int8Conv2d(GroupTiledConv2d):
    """Static description."""

    op: ClassVar[str] = "int8_conv2d"
    tile: DotTile

    @property
    def cut(self) -> DotCut:
        """Blocks of a part's weights."""
        return DotCut(self.rows, self.geometry.inputs, self.tile)

    @property
    def argument_count(self) -> int:
        return 1

    def cost_of(self, pixels: int) -> Cost:
        """Counts of ``pixels`` pixels."""
        return self._cost(pixels, self.rows * self.geometry.inputs)

    @property
    def executed(self) -> Executed:
        """Counts on whole tiles and blocks; the columns are moved too."""
        g, pixels = self.geometry, self.geometry.batch * self.pixels
        columns = pixels * self.parts * self.cut.padded_inputs
        moves = columns + g.moves(self.pixels, g.groups * self.outputs, self.epilogue.residual)
        return Executed.of(self._cost(pixels, self.cut.size), moves=moves)

    def _cost(self, pixels: int, products: int) -> Cost:
        """Counts of ``pixels`` pixels with ``products`` a pixel and part."""
        parts, outputs = self.parts, self.geometry.groups * self.outputs
        constants = parts * self.cut.size + outputs * CONSTANT_BYTES
        scaled = outputs * self.epilogue.multiplies
        return Cost(pixels * parts * products, pixels * (parts * products + scaled), 0, constants)

    def arguments(self, b: KernelBuilder) -> list[Buffer]:
        """The weights, int8 (parts, ...) as `pack` gives them."""
        return [b.arg("weight", (self.parts, *self.cut.shape), "int8")]

    def pack(self, weight: np.ndarray) -> np.ndarray:
        """Weights int8 (groups, m, n) as the kernel reads them."""
        return self.cut.pack(weight.reshape(self.parts, self.rows, -1))

    def planes_in(self, b: KernelBuilder, x: Buffer) -> Buffer:
        """Block "planes": int8 (images, channels, span)."""
        return image_planes(b, x, self.geometry, self.pixels)

    def sums(self, b: KernelBuilder, arguments: list[Buffer], tile: Tile) -> Sums:
        """Block "dot"."""
        planes, lanes = tile.source, self.tile.dot.lanes

        def value(k: Any, p: Any) -> Any:
            image, channel, start = self.place(tile, k, p)
            return planes[image, channel, sequence(start, lanes)]

        reads = planes[tile.image, 0 : self.geometry.channels, 0 : int(planes.shape[2])]
        total = dot_sum(b, arguments[0], self.cut, tile.part, reads=reads, value=value)
        return lambda m, p: total[m, p]

    def sums_numpy(self, columns: np.ndarray, arguments: tuple[np.ndarray, ...]) -> np.ndarray:
        """NumPy reference of `sums`."""
        weight = self.cut.unpack(arguments[0]).astype(np.int64).reshape(self.geometry.groups, self.outputs, -1)
        return weight @ (columns + self.tile.dot.raise_by)
