"""Sums of int8 products for one tile of pixels, exact in int32.

    for chunk of inputs:    columns: the chunk's activations, `Dot.width` inputs of a pixel side by side
        for block of rows:  wide: its weights as the instruction takes them, small enough for L1
            for group of pixels, for inputs of an instruction:  registers += columns * wide

Cost of an instruction's inputs: rows * vectors multiplies and as many additions, rows + vectors loads; with two
multipliers of 32 bytes a core makes 32 products a cycle. Columns take about 6 instructions for as many inputs and each
vector of pixels, wide weights 3 for 16 of them: both pay off where rows and pixels are many.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_ffn.kernels.builder import KernelBuilder
from tvm_ffn.kernels.dot import DOTS, Dot, sequence

MOST_VECTORS = 4
LOOP = 3  # instructions that count


@dataclass(frozen=True)
class DotTile:
    """``rows`` outputs by ``vectors`` of pixels have their sums in registers; ``groups`` of such pixels make a tile,
    ``chunk`` inputs (even) are copied at a time."""

    isa: str
    rows: int
    vectors: int
    groups: int
    chunk: int

    @property
    def dot(self) -> Dot:
        return DOTS[self.isa]

    @property
    def group(self) -> int:
        """Pixels of a group."""
        return self.vectors * self.dot.lanes

    @property
    def pixels(self) -> int:
        """Pixels of a tile."""
        return self.groups * self.group


def dot_tile(isa: str, outputs: int, pixels: int, *, rows: int, groups: int, chunk: int) -> DotTile:
    """The tile of at most so many ``rows`` (0: as many as leave registers for two vectors of pixels) and inputs a
    ``chunk``, and of ``groups`` to twice as many and one: the one whose loop takes the fewest instructions for all
    outputs and pixels, what is beyond the last included. (Processors of four instructions a cycle are limited by them,
    AVX2 most.)

    Measured: with the groups that waste least times fall by 0 to 12 % (1x1 of 512 inputs on 13x13, 64 to 128 at stride
    2 from 56x56, 128 at 28x28 .93), with more for their own sake by little; from 256 to all inputs a chunk (with 128
    pixels 512 are 128 KB of columns) times differed by 5 %.
    """
    dot = DOTS[isa]
    room = (dot.registers - 2) // 2 - 1  # beside the sums of two vectors: these two, a weight and a product
    most = min(min(rows, room) or room, outputs)
    candidates = [
        (count, min(MOST_VECTORS, (dot.registers - 2) // (count + 1))) for count in range(most, most // 2, -1)
    ]

    def instructions(candidate: tuple[int, int]) -> int:
        count, vectors = candidate
        loop = dot.instructions * count * vectors + count + vectors + LOOP
        return -(-outputs // count) * -(-pixels // (vectors * dot.lanes)) * loop

    rows, vectors = min(candidates, key=instructions)
    total = -(-pixels // (vectors * dot.lanes))
    sizes = range(groups, 2 * groups + 2)
    return DotTile(isa, rows, vectors, min(total, min(sizes, key=lambda size: -(-total // size) * size)), chunk)


@dataclass(frozen=True)
class DotCut:
    """Weights (``outputs``, ``inputs``) in blocks of a tile's rows and equal chunks of inputs."""

    outputs: int
    inputs: int
    tile: DotTile

    @property
    def blocks(self) -> int:
        return -(-self.outputs // self.tile.rows)

    @property
    def rows(self) -> int:
        """Outputs of all blocks."""
        return self.blocks * self.tile.rows

    @property
    def chunks(self) -> int:
        return -(-self.inputs // self.tile.chunk)

    @property
    def steps(self) -> int:
        """Instructions that take in a chunk."""
        return -(-self.inputs // (self.chunks * self.tile.dot.width))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of packed weights: (chunks, blocks, steps, a block's rows, width)."""
        return self.chunks, self.blocks, self.steps, self.tile.rows, self.tile.dot.width

    @property
    def size(self) -> int:
        """Bytes of packed weights."""
        return self.rows * self.padded_inputs

    @property
    def padded_inputs(self) -> int:
        """Inputs of all chunks."""
        return self.chunks * self.steps * self.tile.dot.width

    def pack(self, weight: np.ndarray) -> np.ndarray:
        """Weights int8 (groups, m, n) as the kernel reads them, zeros beyond the last output and input."""
        chunks, blocks, steps, rows, width = self.shape
        padded = np.zeros((len(weight), self.rows, self.padded_inputs), np.int8)
        padded[:, : self.outputs, : self.inputs] = weight
        apart = padded.reshape(-1, blocks, rows, chunks, steps, width)
        return np.ascontiguousarray(apart.transpose(0, 3, 1, 4, 2, 5))

    def unpack(self, packed: np.ndarray) -> np.ndarray:
        """Inverse of `pack`."""
        padded = packed.transpose(0, 2, 4, 1, 3, 5).reshape(len(packed), self.rows, self.padded_inputs)
        return padded[:, : self.outputs, : self.inputs]


def dot_sum(
    b: KernelBuilder,
    weights: Buffer,
    cut: DotCut,
    group: Any,
    *,
    reads: Any,
    value: Callable[[Any, Any], Any],
) -> Buffer:
    """Add block "dot": int32 sums (rows, pixels) of one tile and ``group`` of ``weights`` int8 (groups,
    *`DotCut.shape`), of activations raised by `Dot.raise_by`; ``value(k, p)`` is the vector of int8 inputs k from pixel
    p of the tile on, ``reads`` the region of all."""
    tile, dot = cut.tile, cut.tile.dot
    rows, lanes, width = tile.rows, dot.lanes, dot.width
    total = b.tensor("total", (cut.rows, tile.pixels), "int32")
    columns = b.tensor("columns", (tile.groups, cut.steps, tile.group * width), dot.activations)
    wide = b.tensor("wide", (cut.steps * rows * width,), dot.weights)
    # Tensors of less than 1 KB are on the stack: LLVM makes registers of these.
    sums = [b.tensor(f"sum{row}", (tile.group,), "int32") for row in range(rows)]

    def each_sum(store: Callable[[Buffer, int, int], None]) -> None:
        for row, target in enumerate(sums):
            for vector in range(tile.vectors):
                store(target, row, vector * lanes)

    def copy_columns(chunk: Any) -> None:
        with T.serial(cut.steps) as step:
            inputs = [T.min((chunk * cut.steps + step) * width + i, cut.inputs - 1) for i in range(width)]
            with T.serial(tile.groups) as pixels:
                for vector in range(tile.vectors):
                    packed = dot.pack([value(k, pixels * tile.group + vector * lanes) for k in inputs])
                    T.buffer_store(columns, packed, [pixels, step, sequence(vector * lanes * width, lanes * width)])

    def widen(chunk: Any, block: Any) -> None:
        with T.serial(cut.steps * rows * width) as i:
            item = weights[group, chunk, block, i // (rows * width), i // width % rows, i % width]
            T.buffer_store(wide, T.Cast(dot.weights, item), [i])

    def multiply(block: Any, pixels: Any) -> None:
        def place(row: int, first: int) -> list[Any]:
            return [block * rows + row, sequence(pixels * tile.group + first, lanes)]

        def accumulate(target: Buffer, row: int, first: int) -> None:
            inputs = columns[pixels, step, sequence(first * width, lanes * width)]
            weight = dot.spread(wide[sequence((step * rows + row) * width, width)])
            at = sequence(first, lanes)
            T.buffer_store(target, dot.add(target[at], inputs, weight), [at])

        def start(row: int, first: int) -> Any:
            return total[tuple(place(row, first))] if cut.chunks > 1 else T.Broadcast(T.int32(0), lanes)

        each_sum(lambda target, *at: T.buffer_store(target, start(*at), [sequence(at[1], lanes)]))
        with T.serial(cut.steps) as step:
            each_sum(accumulate)
        each_sum(lambda target, *at: T.buffer_store(total, target[sequence(at[1], lanes)], place(*at)))

    packed = weights[(group, *(slice(0, extent) for extent in cut.shape))]
    with b.program("dot", reads=[reads, packed], writes=[total[0 : cut.rows, 0 : tile.pixels]]):
        if cut.chunks > 1:
            with T.serial(cut.rows) as m, T.serial(tile.pixels // lanes) as vector:
                T.buffer_store(total, T.Broadcast(T.int32(0), lanes), [m, sequence(vector * lanes, lanes)])
        with T.serial(cut.chunks) as chunk:
            copy_columns(chunk)
            with T.serial(cut.blocks) as block:
                widen(chunk, block)
                with T.serial(tile.groups) as pixels:
                    multiply(block, pixels)
    return total
