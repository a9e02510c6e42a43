"""What the two convolutions with weights as code share: an instruction set, and a tile that pays for fetching code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tvm_ffn.kernels.geometry import ConvGeometry
from tvm_ffn.kernels.straight_line import VectorISA
from tvm_ffn.kernels.tiled_conv2d import Tile, TiledConv2d

_TILE = 24  # vectors: long enough to pay for fetching the code, short enough for the sums to stay in the caches


def tile_for(geometry: ConvGeometry, isa: VectorISA) -> int:
    """Pixels of a tile: about `_TILE` vectors, all tiles alike with as little as possible beyond the last pixel."""
    vectors = -(-geometry.pixels // isa.lanes)
    tiles = max(1, round(vectors / _TILE))
    return -(-vectors // tiles) * isa.lanes


@dataclass(frozen=True, eq=False)
class CodeTiledConv2d(TiledConv2d):
    """A convolution of one group over tiles of ``tile`` pixels, a multiple of the ISA's lanes."""

    op: ClassVar[str] = "ternary_code_conv2d"
    isa: VectorISA
    tile: int

    @property
    def pixel_block(self) -> int:
        return self.tile

    def inputs_of(self, tile: Tile) -> tuple[Any, Any]:
        """The region that the code reads, and its first element."""
        g = self.geometry
        region = tile.planes[tile.image, 0 : g.channels, 0 : g.span(self.pixels)]
        return region, tile.planes[tile.image, 0, tile.start]
