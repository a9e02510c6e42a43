"""3x3 convolution with int8 weights by Winograd's F(2x2, 3x3), exact in integers: for instructions that multiply int16.

    B'd B: 4x4 inputs of a channel, int16         (2G)g(2G)': 4x4 of 3x3 weights, int16
    their products, summed over the channels, int32       A'm A: 2x2 sums of 4 times a convolution's, shifted back

(Lavin and Gray, CVPR 2016, section 4.1; G doubled on both sides, so that all are integers.) Inputs grow fourfold and
weights ninefold, so no sum of `MOST_CHANNELS` leaves int32; intermediate ones may, modulo 2^32, and come back.

Cost of a pixel: 4 products an output and channel instead of 9, 8 additions a channel, 6 an output. Weights stay int8 in
memory and are transformed in every run, a few outputs at a time: 28 additions for 9. On a Zen 3 with AVX2 and with SSE2
.45 to .54 of the direct convolution's time from 56x56 to 14x14, .85 to .89 at 7x7 (512 channels).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_ffn.kernels.builder import KernelBuilder
from tvm_ffn.kernels.dot import DOTS, Dot, sequence
from tvm_ffn.kernels.dot_sum import LOOP
from tvm_ffn.kernels.epilogue import CONSTANT_BYTES
from tvm_ffn.kernels.geometry import ConvGeometry
from tvm_ffn.kernels.tiled_conv2d import Sums, Tile, TiledConv2d
from tvm_ffn.kernels.work import Cost, Executed

Transform = Callable[[Sequence[Any]], list[Any]]

VECTORS = 2  # of outputs that are computed together
INPUT_LANES = 16  # channels whose inputs are transformed together
MOST_CHANNELS = (2**31 - 1) // (4 * 9 * 128 * 128)
MOST_BYTES = 2 << 20  # of transformed inputs: those of 64 channels at 56x56 are 1.6 MB
FEWEST_TILES = 8  # below, transforming weights takes as long as the products
POINTS = 16  # of a transform
APART = 3  # pairs of inputs more, so that the points' weights do not compete for the same places in L1


def is_winograd(g: ConvGeometry, outputs: int, isa: str) -> bool:
    """Whether a layer can be computed so, and with advantage."""
    dot, (down, across) = DOTS[isa], _tiles(g)
    return (
        dot.width == 2
        and (g.kernel, g.strides, g.dilation, g.groups) == ((3, 3), (1, 1), (1, 1), 1)
        and outputs % (VECTORS * dot.lanes) == 0
        and g.channels % INPUT_LANES == 0
        and g.channels <= MOST_CHANNELS
        and g.pitch >= 2 * across
        and down * across >= FEWEST_TILES
        and 2 * POINTS * down * across * g.channels <= MOST_BYTES
    )


@dataclass(frozen=True, eq=False)
class WinogradConv2d(TiledConv2d):
    """Static description; a part is ``VECTORS`` vectors of the instruction set's outputs, its tile the whole image."""

    op: ClassVar[str] = "int8_conv2d"
    group_outputs: int
    isa: str

    @property
    def dot(self) -> Dot:
        return DOTS[self.isa]

    @property
    def tiles_down(self) -> int:
        return _tiles(self.geometry)[0]

    @property
    def tiles_across(self) -> int:
        return _tiles(self.geometry)[1]

    @property
    def block(self) -> int:
        """Tiles whose sums are in registers: the number that takes the fewest instructions for all."""
        most = (self.dot.registers - VECTORS - 2) // VECTORS
        return min(range(most, 0, -1), key=lambda count: self._padded(count) // count * (5 * count + VECTORS + LOOP))

    def _padded(self, block: int) -> int:
        """Tiles in whole blocks."""
        return -(-self.tiles_down * self.tiles_across // block) * block

    @property
    def pixel_block(self) -> int:
        vector = 2 * self.dot.lanes
        return -(-2 * self.tiles_down * self.geometry.pitch // vector) * vector

    @property
    def outputs(self) -> int:
        return self.group_outputs

    @property
    def parts(self) -> int:
        return self.group_outputs // (VECTORS * self.dot.lanes)

    @property
    def argument_count(self) -> int:
        return 1

    def cost_of(self, pixels: int) -> Cost:
        """Counts of ``pixels`` pixels."""
        channels, outputs = self.geometry.channels, self.group_outputs
        products = 4 * channels * outputs
        adds = products + 8 * channels + 6 * outputs
        constants = 9 * channels * outputs + outputs * CONSTANT_BYTES
        return Cost(pixels * adds, pixels * (products + outputs * self.epilogue.multiplies), 0, constants)

    @property
    def executed(self) -> Executed:
        """Counts on whole blocks of tiles; inputs and weights are moved too."""
        g, pixels = self.geometry, 4 * self.geometry.batch * self._padded(self.block)
        transformed = POINTS * g.channels * (pixels // 4 + g.batch * self.group_outputs)
        return Executed.of(self.cost_of(pixels), moves=transformed + g.moves(0, self.outputs, self.epilogue.residual))

    def arguments(self, b: KernelBuilder) -> list[Buffer]:
        """The weights, int8 (parts, channels / 2, 9, a part's outputs * 2) as `pack` gives them."""
        return [b.arg("weight", (self.parts, self.geometry.channels // 2, 9, 2 * self.rows), "int8")]

    def pack(self, weight: np.ndarray) -> np.ndarray:
        """Weights int8 (1, m, channels * 9) as the kernel reads them."""
        apart = weight.reshape(self.parts, self.rows, -1, 2, 9)
        return np.ascontiguousarray(apart.transpose(0, 2, 4, 1, 3)).reshape(self.parts, -1, 9, 2 * self.rows)

    def planes_in(self, b: KernelBuilder, x: Buffer) -> Buffer:
        """Block "planes": int8 (images, rows, columns, channels), the padded image."""
        g = self.geometry
        shape = (g.batch, 2 * self.tiles_down + 2, 2 * self.tiles_across + 2, g.channels)

        def value(n: Any, row: Any, column: Any, c: Any) -> Any:
            h, w = row - g.padding[0], column - g.padding[1]
            inside = T.And(T.And(h >= 0, h < g.height), T.And(w >= 0, w < g.width))
            return T.if_then_else(inside, x[n, c, h, w], T.int8(g.pad_value))

        return b.compute("planes", shape, "int8", value)

    def source(self, b: KernelBuilder, arguments: list[Buffer], planes: Buffer) -> Buffer:
        """Block "first": transformed inputs, int16 (images, 16, tiles, channels)."""
        g = self.geometry
        inputs = b.tensor("inputs", (g.batch, POINTS, self._padded(self.block), g.channels), "int16")
        with b.tile("first", (g.batch, self.tiles_down)) as (n, down):
            tiles = slice(down * self.tiles_across, down * self.tiles_across + self.tiles_across)
            reads = planes[n, 2 * down : 2 * down + 4, 0 : 2 * self.tiles_across + 2, 0 : g.channels]
            with b.program("transform", reads=[reads], writes=[inputs[n, 0:POINTS, tiles, 0 : g.channels]]):
                with T.serial(self.tiles_across) as across, T.serial(g.channels // INPUT_LANES) as vector:
                    channels = sequence(vector * INPUT_LANES, INPUT_LANES)

                    def at(row: int, column: int) -> Any:
                        value = planes[n, 2 * down + row, 2 * across + column, channels]
                        return T.Cast(f"int16x{INPUT_LANES}", value)

                    for point, value in enumerate(_both(_of_inputs, 4, at)):
                        tile = down * self.tiles_across + across
                        T.buffer_store(inputs, value, [n, point, tile, channels])
        return inputs

    def sums(self, b: KernelBuilder, arguments: list[Buffer], tile: Tile) -> Sums:
        """Block "dot": int32 (pixels, a part's outputs)."""
        inputs, weights = tile.source, arguments[0]
        g, rows, tiles = self.geometry, self.rows, self._padded(self.block)
        wide = b.tensor("wide", (POINTS, g.channels // 2 + APART, 2 * rows), "int16")
        products = b.tensor("products", (POINTS, tiles, rows), "int32")
        total = b.tensor("total", (self.pixel_block, rows), "int32")
        # Tensors of less than 1 KB are on the stack: LLVM makes registers of these.
        sums = [b.tensor(f"sum{row}", (rows,), "int32") for row in range(self.block)]
        whole = [slice(0, int(extent)) for extent in (*inputs.shape[1:], *weights.shape[1:])]
        reads = [inputs[(tile.image, *whole[:3])], weights[(tile.part, *whole[3:])]]
        with b.program("dot", reads=reads, writes=[total[0 : self.pixel_block, 0:rows]]):
            self._transform_weights(weights, tile.part, wide)
            with T.serial(POINTS) as point, T.serial(tiles // self.block) as block:
                self._multiply(inputs, wide, sums, products, (tile.image, point, block))
            with T.serial(self.tiles_down) as down, T.serial(self.tiles_across) as across:
                self._transform_sums(products, total, down, across)
        return lambda m, p: total[p, m]

    def _transform_weights(self, weights: Buffer, part: Any, wide: Buffer) -> None:
        lanes = 2 * self.dot.lanes
        with T.serial(self.geometry.channels // 2) as pair:
            for vector in range(VECTORS):
                places = sequence(vector * lanes, lanes)

                def at(row: int, column: int, places: Any = places) -> Any:
                    return T.Cast(f"int16x{lanes}", weights[part, pair, 3 * row + column, places])

                for point, value in enumerate(_both(_of_weights, 3, at)):
                    T.buffer_store(wide, value, [point, pair, places])

    def _multiply(
        self, inputs: Buffer, wide: Buffer, sums: list[Buffer], products: Buffer, at: tuple[Any, Any, Any]
    ) -> None:
        (image, point, block), dot = at, self.dot
        places = [sequence(vector * dot.lanes, dot.lanes) for vector in range(VECTORS)]
        for target in sums:
            for place in places:
                T.buffer_store(target, T.Broadcast(T.int32(0), dot.lanes), [place])
        with T.serial(self.geometry.channels // 2) as pair:
            for row, target in enumerate(sums):
                spread = dot.spread(inputs[image, point, block * self.block + row, sequence(2 * pair, 2)])
                for vector, place in enumerate(places):
                    weight = wide[point, pair, sequence(vector * 2 * dot.lanes, 2 * dot.lanes)]
                    T.buffer_store(target, dot.add(target[place], spread, weight), [place])
        for row, target in enumerate(sums):
            for place in places:
                T.buffer_store(products, target[place], [point, block * self.block + row, place])

    def _transform_sums(self, products: Buffer, total: Buffer, down: Any, across: Any) -> None:
        tile = down * self.tiles_across + across
        for vector in range(VECTORS):
            place = sequence(vector * self.dot.lanes, self.dot.lanes)

            def at(row: int, column: int, place: Any = place) -> Any:
                return products[4 * row + column, tile, place]

            for point, value in enumerate(_both(_of_sums, 4, at)):
                pixel = (2 * down + point // 2) * self.geometry.pitch + 2 * across + point % 2
                two = T.Broadcast(T.int32(2), self.dot.lanes)
                T.buffer_store(total, T.shift_right(value, two), [pixel, place])

    def sums_numpy(self, columns: np.ndarray, arguments: tuple[np.ndarray, ...]) -> np.ndarray:
        """NumPy reference of `sums`: the convolution itself."""
        apart = arguments[0].reshape(self.parts, -1, 9, self.rows, 2).transpose(0, 3, 1, 4, 2)
        return apart.astype(np.int64).reshape(1, self.group_outputs, -1) @ columns


def _tiles(g: ConvGeometry) -> tuple[int, int]:
    """2x2 outputs that cover an image, down and across."""
    return -(-g.out_height // 2), -(-g.out_width // 2)


def _both(transform: Transform, size: int, at: Callable[[int, int], Any]) -> list[Any]:
    """``transform`` of the columns of a square ``at(row, column)``, then of the rows of what that gives, row by row."""
    columns = [transform([at(row, column) for row in range(size)]) for column in range(size)]
    return [value for row in zip(*columns, strict=True) for value in transform(row)]


def _of_inputs(d: Sequence[Any]) -> list[Any]:
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _of_weights(g: Sequence[Any]) -> list[Any]:
    ends = g[0] + g[2]
    return [g[0] + g[0], ends + g[1], ends - g[1], g[2] + g[2]]


def _of_sums(m: Sequence[Any]) -> list[Any]:
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]
