"""A factorised convolution whose ternary matrices are machine code (the ``code`` family; see `straight_line`).

Same numbers as `ternary_conv2d`; the weights are constants of the function instead of arguments. A tile of pixels
passes both stages before the next starts, and within it each piece of code runs over all vectors of the tile while its
instructions are in the caches. Where tiles are few, each stage is split by its outputs, and all tiles pass the first
before the second starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from tvm.tirx import Buffer

from tvm_ffn.kernels import epilogue as ep
from tvm_ffn.kernels.builder import KernelBuilder
from tvm_ffn.kernels.code_tile import CodeTiledConv2d, block_diagonal, tile_for
from tvm_ffn.kernels.codes import column_bounds
from tvm_ffn.kernels.epilogue import CONSTANT_BYTES, Epilogue
from tvm_ffn.kernels.geometry import ConvGeometry
from tvm_ffn.kernels.straight_line import VectorISA
from tvm_ffn.kernels.ternary_code import INT16_BYTES, CodeStyle, TernaryCode, segment_total
from tvm_ffn.kernels.tiled_conv2d import Sums, Tile
from tvm_ffn.kernels.work import Cost


@dataclass(frozen=True, eq=False)
class CodeConv2d(CodeTiledConv2d):
    """Static description with the matrices: ``y`` int8 (groups, k, n), ``x`` int8 (groups, m, k); ``limits`` bound the
    magnitudes of input and middle."""

    y: np.ndarray
    x: np.ndarray
    limits: tuple[int, int]

    @property
    def outputs(self) -> int:
        return self.x.shape[1]

    @property
    def terms(self) -> int:
        return self.y.shape[1]

    @property
    def sum_bytes(self) -> int:
        return max(code.sum_bytes for code in (self.code_y, self.code_x))

    @cached_property
    def code_y(self) -> TernaryCode:
        """Stage one, reading the planes."""
        y = block_diagonal(self.y)
        bounds = column_bounds(y, self.limits[0])
        return TernaryCode(y[None], bounds, self.offsets, self.tile * INT16_BYTES, self.isa, self.style, self.split)

    @cached_property
    def code_x(self) -> TernaryCode:
        """Stage two, reading the tile's middle."""
        row, x = self.tile * INT16_BYTES, block_diagonal(self.x)
        bounds = column_bounds(x, self.limits[1])
        return TernaryCode(x[None], bounds, np.arange(x.shape[1]) * row, row, self.isa, self.style, self.split)

    def cost_of(self, pixels: int) -> Cost:
        """Counts of ``pixels`` pixels; the instructions name every place, nothing is looked up."""
        adds, groups = self.code_y.adds + self.code_x.adds, self.geometry.groups
        scaled = groups * (self.terms + self.outputs * self.epilogue.multiplies)
        constants = groups * (4 * self.terms + CONSTANT_BYTES * self.outputs)
        code_bytes = self.code_y.code_bytes + self.code_x.code_bytes
        return Cost(pixels * adds, pixels * scaled, 0, code_bytes + constants)

    def further_work(self, pixels: int) -> dict[str, int]:
        """Loads of both stages."""
        stages = (self.code_y, self.code_x)
        return {name: pixels * sum(getattr(code, name) for code in stages) for name in ("loads", "misses")}

    @property
    def argument_count(self) -> int:
        return 1

    def arguments(self, b: KernelBuilder) -> list[Buffer]:
        """The middle scale, float32 (groups, k)."""
        return [b.arg("middle_scale", (self.geometry.groups, self.terms), "float32")]

    def source(self, b: KernelBuilder, arguments: list[Buffer], planes: Buffer) -> Buffer:
        """The planes, or with a ``split`` the middle int16 (images, tiles, groups * k, tile), by tiles "first"."""
        if self.split == 1:
            return planes
        images, rows = self.geometry.batch, self.geometry.groups * self.terms // self.split
        middle = b.tensor("middle", (images, self.tiles, rows * self.split, self.tile), "int16")
        with b.tile("first", (images, self.split, self.tiles)) as (n, part, t):
            requantized = self._middle(b, arguments, Tile(planes, n, part, t))
            shape = (rows, self.tile)
            b.compute("middle", shape, "int16", requantized, out=middle, at=lambda k, p: (n, t, part * rows + k, p))
        return middle

    def sums(self, b: KernelBuilder, arguments: list[Buffer], tile: Tile) -> Sums:
        """Blocks "y_code" and "middle", unless they are done, and "x_code"."""
        terms = self.geometry.groups * self.terms
        if self.split == 1:
            middle = b.compute("middle", (terms, self.tile), "int16", self._middle(b, arguments, tile))
            region, start = middle[0:terms, 0 : self.tile], middle[0, 0]
        else:
            region = tile.source[tile.image, tile.index, 0:terms, 0 : self.tile]
            start = tile.source[tile.image, tile.index, 0, 0]
        second = self.code_x.product(b, "x_code", region, start, self.tile, tile.part)
        return lambda m, p: segment_total(self.code_x.segments, lambda s: second[s, m, p])

    def _middle(self, b: KernelBuilder, arguments: list[Buffer], tile: Tile) -> Sums:
        """Block "y_code"; the requantised value of a part's term k at pixel p."""
        first = self.code_y.product(b, "y_code", *self.inputs_of(b, tile), self.tile, tile.part)
        rows = self.geometry.groups * self.terms // self.split

        def requantized(k: Any, p: Any) -> Any:
            term = tile.part * rows + k
            scale = arguments[0][term // self.terms, term % self.terms]
            return ep.requantize(segment_total(self.code_y.segments, lambda s: first[s, k, p]), scale, self.limits[1])

        return requantized

    def sums_numpy(self, columns: np.ndarray, arguments: tuple[np.ndarray, ...]) -> np.ndarray:
        """NumPy reference of `sums`."""
        first = self.y.astype(np.int64) @ columns
        middle = ep.requantize_numpy(first, arguments[0][None, :, :, None], self.limits[1])
        return self.x.astype(np.int64) @ middle.astype(np.int64)


def code_conv2d(
    geometry: ConvGeometry,
    y: np.ndarray,
    x: np.ndarray,
    limits: tuple[int, int],
    epilogue: Epilogue,
    isa: VectorISA,
    style: CodeStyle,
    threads: int,
) -> CodeConv2d:
    """The convolution with its tile, in parts for ``threads``."""
    whole = CodeConv2d(geometry, epilogue, isa, style, tile_for(geometry, isa, style), y, x, limits)
    return whole.in_parts(threads, len(y) * y.shape[1], len(x) * x.shape[1])
