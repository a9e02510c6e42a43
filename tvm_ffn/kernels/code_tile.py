"""What the two convolutions with weights as code share: an instruction set, and a tile that pays for fetching code."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_ffn.kernels.builder import KernelBuilder
from tvm_ffn.kernels.geometry import ConvGeometry
from tvm_ffn.kernels.split import output_parts
from tvm_ffn.kernels.straight_line import VectorISA
from tvm_ffn.kernels.ternary_code import INT16_BYTES, CodeStyle, plane_offsets
from tvm_ffn.kernels.tiled_conv2d import Tile, TiledConv2d


def tile_for(geometry: ConvGeometry, isa: VectorISA, style: CodeStyle) -> int:
    """Pixels of a tile: about the ``style``'s vectors, all tiles alike with nothing beyond the last pixel or little."""
    vectors, rest = divmod(geometry.pixels, isa.lanes)
    exact = [size for size in range(max(1, style.vectors // 2), 2 * style.vectors) if vectors % size == 0]
    if rest == 0 and exact:
        return min(exact, key=lambda size: abs(size - style.vectors)) * isa.lanes
    vectors += rest > 0
    tiles = max(1, round(vectors / style.vectors))
    return -(-vectors // tiles) * isa.lanes


def block_diagonal(matrices: np.ndarray) -> np.ndarray:
    """(groups, ..., m, n) to (..., groups * m, groups * n): each group's outputs read its own inputs only."""
    groups, *outer, m, n = matrices.shape
    whole = np.zeros((*outer, groups, m, groups, n), matrices.dtype)
    for group, matrix in enumerate(matrices):
        whole[..., group, :, group, :] = matrix
    return whole.reshape(*outer, groups * m, groups * n)


@dataclass(frozen=True, eq=False)
class CodeTiledConv2d(TiledConv2d):
    """A convolution over tiles of ``tile`` pixels, a multiple of the ISA's lanes, and ``split`` parts of the outputs.
    Its groups are one matrix of blocks, as zeros cost nothing."""

    op: ClassVar[str] = "ternary_code_conv2d"
    isa: VectorISA
    style: CodeStyle
    tile: int
    split: int = field(default=1, kw_only=True)

    @property
    @abstractmethod
    def sum_bytes(self) -> int:
        """Bytes of the largest block of int16 sums of a tile."""

    def in_parts(self, threads: int, *rows: int) -> Self:
        """Cut into parts of each stage's ``rows`` that keep ``threads`` busy and, where one tile is the whole image,
        whose sums stay in the caches; of several tiles each part would read all inputs anew."""
        tiles = self.geometry.batch * self.geometry.blocks(self.tile)
        kept = self.style.sums_kb << 10
        least = -(-self.sum_bytes // kept) if kept and tiles == 1 else 1
        split = output_parts(tiles, threads, *rows, least=least)
        return self if split == self.split else replace(self, split=split)

    @property
    def pixel_block(self) -> int:
        return self.tile

    @property
    def parts(self) -> int:
        return self.split

    @property
    def copies_tiles(self) -> bool:
        """Whether each tile copies its own inputs, which then come from L2: those of a 1x1 kernel are its pixels."""
        return self.geometry.is_image and self.fills_rows and self.split == 1

    @property
    def reads_planes(self) -> bool:
        """Where they are the kernel's own at stride 1; those of a 1x1 kernel are copied by tiles."""
        return self.geometry.has_own_planes

    @property
    def offsets(self) -> np.ndarray:
        """Byte offset of each input, all groups' in turn, from the first pixel of a tile."""
        if self.copies_tiles:
            return np.arange(self.geometry.channels) * self.tile * INT16_BYTES
        return plane_offsets(self.geometry, self.pixels, self.span)

    def planes_in(self, b: KernelBuilder, x: Buffer) -> Buffer:
        """Block "planes", or the image itself where `copies_tiles`."""
        return x if self.copies_tiles else super().planes_in(b, x)

    def inputs_of(self, b: KernelBuilder, tile: Tile) -> tuple[Any, Any]:
        """The region that the code reads, and its first element; block "inputs" where `copies_tiles`."""
        g = self.geometry
        if not self.copies_tiles:
            region = tile.source[tile.image, 0 : g.channels, 0 : self.span]
            return region, tile.source[tile.image, 0, tile.index * self.tile]

        def pixel(k: Any, p: Any) -> Any:
            place = tile.index * self.tile + p
            return T.Cast("int16", tile.source[tile.image, k, place // g.width, place % g.width])

        inputs = b.compute("inputs", (g.channels, self.tile), "int16", pixel)
        return inputs[0 : g.channels, 0 : self.tile], inputs[0, 0]
