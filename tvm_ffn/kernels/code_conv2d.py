"""A factorised convolution whose ternary matrices are machine code (the ``code`` family; see `straight_line`).

Same numbers as `ternary_conv2d`; the weights are constants of the function instead of arguments. A tile of pixels
passes both stages before the next starts, and within it each piece of code runs over all vectors of the tile while its
instructions are in the caches.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from tvm.tirx import Buffer

from tvm_ffn.kernels import epilogue as ep
from tvm_ffn.kernels.builder import KernelBuilder
from tvm_ffn.kernels.code_tile import CodeTiledConv2d, tile_for
from tvm_ffn.kernels.codes import column_bounds
from tvm_ffn.kernels.epilogue import CONSTANT_BYTES, Epilogue
from tvm_ffn.kernels.geometry import ConvGeometry
from tvm_ffn.kernels.straight_line import VectorISA
from tvm_ffn.kernels.ternary_code import INT16_BYTES, CodeStyle, TernaryCode, plane_offsets, segment_total
from tvm_ffn.kernels.tiled_conv2d import Sums, Tile
from tvm_ffn.kernels.work import Cost


@dataclass(frozen=True, eq=False)
class CodeConv2d(CodeTiledConv2d):
    """Static description with the matrices: ``y`` int8 (k, n), ``x`` int8 (m, k); ``limits`` bound the magnitudes of
    input and middle."""

    y: np.ndarray
    x: np.ndarray
    limits: tuple[int, int]

    @property
    def outputs(self) -> int:
        return len(self.x)

    @property
    def terms(self) -> int:
        return len(self.y)

    @cached_property
    def code_y(self) -> TernaryCode:
        """Stage one, reading the planes."""
        offsets = plane_offsets(self.geometry, self.pixels)
        bounds = column_bounds(self.y, self.limits[0])
        return TernaryCode(self.y, bounds, offsets, self.tile * INT16_BYTES, self.isa, self.style)

    @cached_property
    def code_x(self) -> TernaryCode:
        """Stage two, reading the tile's middle."""
        row = self.tile * INT16_BYTES
        return TernaryCode(
            self.x, column_bounds(self.x, self.limits[1]), np.arange(self.terms) * row, row, self.isa, self.style
        )

    def cost_of(self, pixels: int) -> Cost:
        """Counts of ``pixels`` pixels; the instructions name every place, nothing is looked up."""
        adds = self.code_y.adds + self.code_x.adds
        scaled = self.terms + self.outputs * self.epilogue.multiplies
        constants = 4 * self.terms + CONSTANT_BYTES * self.outputs
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
        """The middle scale, float32 (1, k)."""
        return [b.arg("middle_scale", (1, self.terms), "float32")]

    def sums(self, b: KernelBuilder, arguments: list[Buffer], tile: Tile) -> Sums:
        """Blocks "y_code", "middle" and "x_code"."""
        first = self.code_y.product(b, "y_code", *self.inputs_of(tile), self.tile)

        def requantized(k: Any, p: Any) -> Any:
            return ep.requantize(segment_total(first, k, p), arguments[0][0, k], self.limits[1])

        middle = b.compute("middle", (self.terms, self.tile), "int16", requantized)
        whole = middle[0 : self.terms, 0 : self.tile]
        second = self.code_x.product(b, "x_code", whole, middle[0, 0], self.tile)
        return lambda m, p: segment_total(second, m, p)

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
) -> CodeConv2d:
    """The convolution with its tile."""
    return CodeConv2d(geometry, epilogue, isa, style, tile_for(geometry, isa, style), y, x, limits)
