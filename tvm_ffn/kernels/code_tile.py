"""What the two convolutions with weights as code share: an instruction set, and a tile that pays for fetching code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tvm_ffn.kernels.geometry import ConvGeometry
from tvm_ffn.kernels.straight_line import VectorISA
from tvm_ffn.kernels.ternary_code import CodeStyle
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
    split: int

    @property
    def pixel_block(self) -> int:
        return self.tile

    @property
    def parts(self) -> int:
        return self.split

    def inputs_of(self, tile: Tile) -> tuple[Any, Any]:
        """The region of the planes that the code reads, and its first element."""
        g = self.geometry
        region = tile.source[tile.image, 0 : g.channels, 0 : g.span(self.pixels)]
        return region, tile.source[tile.image, 0, tile.index * self.tile]
