"""What the two convolutions with packed weights share: tiles of one group's outputs, or of parts of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm_ffn.kernels.tiled_conv2d import Tile, TiledConv2d


@dataclass(frozen=True, eq=False)
class GroupTiledConv2d(TiledConv2d):
    """A convolution whose ``tile`` has so many ``pixels``; ``group_outputs`` m counts one group's channels, which are
    ``split`` parts."""

    tile: Any
    group_outputs: int
    split: int

    @property
    def pixel_block(self) -> int:
        return int(self.tile.pixels)

    @property
    def outputs(self) -> int:
        return self.group_outputs

    @property
    def parts(self) -> int:
        return self.geometry.groups * self.split

    def place(self, tile: Tile, k: Any, p: Any) -> tuple[Any, Any, Any]:
        """Where the planes hold the input k of a tile's outputs at its pixel p."""
        g = self.geometry
        first, tap = tile.part // self.split * (g.channels // g.groups), k % g.taps
        offset = g.tap_offset(tap // g.kernel[1], tap % g.kernel[1], self.pixels)
        return tile.image, first + k // g.taps, offset + tile.index * self.pixel_block + p
