"""Sums of activations weighted by signed binary digits (the ``digits`` family): additions of whole rows, on any target.

For one tile of pixels, chunk by chunk of the inputs (`digit_lists`): the chunk's activations are copied to a table
(place, pixel) that lies in L1 or nearly. Every output then runs through its lists with its sums in registers:

    for run of planes:   a = 0;  for plane:  a = a + a;  for i in plus: a += table[i];  for i in minus: a -= table[i]
    total += sum_run a << shift(run)          (int32)

Cost of a digit and tile: one byte, one addition and one load of a table row. The loads are the limit, 64 bytes of
pixels a cycle with one 64-byte or two 32-byte load ports (measured: 1.0 to 1.3 times that). The ends of the lists
cannot be predicted, but the loads under way hide them if a row is 256 bytes long. With x, 2x and 4x in the table and
lists sorted by length, the ends are predicted; it was 5-15 % slower at 1.25 bytes a digit: a third of the inputs fit
into the table, and sums come and go for every list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_ffn.kernels.builder import KernelBuilder
from tvm_ffn.kernels.digit_lists import LONGEST_CHUNK, DigitCut

INT16_BYTES = 2
SHORTEST_ROW = 128  # bytes: the ends of lists take as long with shorter rows of the table
TILE_BYTES = 12  # bytes of a row that could be added in the time that a tile's beginning and end take
# Nothing, which LLVM must not copy: a loop with it is not unrolled. An unrolled one ends twice, once for the rest, and
# neither end can be predicted (a network takes 2 % longer with AVX-512, 0 to 9 % with AVX2).
_ONCE = """
define linkonce_odr i32 @ffn_once() alwaysinline nounwind {
  call void asm sideeffect "", ""() noduplicate nounwind
  ret i32 0
}
"""


@dataclass(frozen=True)
class DigitTile:
    """``pixels`` of a tile in vectors of ``lanes`` int16, and the bytes of a table of activations: best somewhat more
    than L1, for longer lists and fewer sums in memory."""

    pixels: int
    lanes: int
    table_bytes: int

    @property
    def vectors(self) -> int:
        return self.pixels // self.lanes

    @property
    def longest_chunk(self) -> int:
        """Inputs whose table is not too large."""
        return max(1, min(LONGEST_CHUNK, self.table_bytes // (self.pixels * INT16_BYTES)))


def tile_for(pixels: int, lanes: int, most: int, table_bytes: int) -> DigitTile:
    """The tile of at most ``most`` vectors that runs through ``pixels`` fastest: few beyond the last, few tiles."""

    def cost(vectors: int) -> int:
        tiles = -(-pixels // (vectors * lanes))
        return tiles * (max(vectors * lanes * INT16_BYTES, SHORTEST_ROW) + TILE_BYTES)

    vectors = min(range(1, most + 1), key=cost)
    return DigitTile(vectors * lanes, lanes, table_bytes)


def digit_sum(
    b: KernelBuilder,
    counts: Buffer,
    codes: Buffer,
    cut: DigitCut,
    tile: DigitTile,
    group: Any,
    *,
    reads: Any,
    value: Callable[[Any, Any], Any],
) -> Buffer:
    """Add block "digits": int32 sums (m, pixels) of one tile and ``group``; ``counts`` and ``codes`` as
    `digit_lists.pack_digits` gives them, ``value(k, p)`` the int16 input k at pixel p of the tile, ``reads`` the region
    of all."""
    outputs = int(counts.shape[2])
    total = b.tensor("total", (outputs, tile.pixels), "int32")
    table = b.tensor("table", (cut.length, tile.pixels), "int16")
    # Tensors of less than 1 KB are on the stack: LLVM makes registers of these two.
    sums = [b.tensor(f"sum{run}", (tile.pixels,), "int16") for run in range(len(cut.runs))]
    place = b.tensor("place", (1,), "int32")  # of the next entry
    everything = [counts[group, 0 : cut.chunks, 0:outputs, 0 : 2 * cut.planes], codes[group, 0 : int(codes.shape[1])]]

    def each_lane(store: Callable[[Any], None]) -> None:
        for vector in range(tile.vectors):
            with T.vectorized(tile.lanes) as lane:
                store(vector * tile.lanes + lane)

    def set_sum(target: Buffer, item: Callable[[Any], Any]) -> None:
        each_lane(lambda p: T.buffer_store(target, item(p), [p]))

    def add_list(target: Buffer, count: Any, sign: int) -> None:
        def added(p: Any) -> Any:
            row = table[T.Cast("int32", codes[group, place[0] + i]), p]
            return target[p] + row if sign > 0 else target[p] - row

        with T.serial(T.Cast("int32", count)) as i:
            T.evaluate(T.call_extern("int32", "ffn_once"))
            set_sum(target, added)
        T.buffer_store(place, place[0] + T.Cast("int32", count), [0])

    def add_run(target: Buffer, run: range, chunk: Any, m: Any) -> None:
        set_sum(target, lambda p: T.int16(0))
        for plane in run:
            if plane != run.start:
                set_sum(target, lambda p: target[p] + target[p])
            add_list(target, counts[group, chunk, m, 2 * plane], 1)
            add_list(target, counts[group, chunk, m, 2 * plane + 1], -1)

    def before(m: Any, p: Any) -> Any:
        return total[m, p] if cut.chunks > 1 else T.int32(0)

    def joined(p: Any) -> Any:
        result = T.Cast("int32", sums[0][p])
        for run, following in zip(sums[1:], cut.runs[1:], strict=True):
            result = T.shift_left(result, T.int32(len(following))) + T.Cast("int32", run[p])
        return result

    with b.program("digits", reads=[reads, *everything], writes=[total[0:outputs, 0 : tile.pixels]], llvm=_ONCE):
        T.buffer_store(place, T.int32(0), [0])
        if cut.chunks > 1:
            with T.serial(outputs) as m:
                each_lane(lambda p: T.buffer_store(total, T.int32(0), [m, p]))
        with T.serial(cut.chunks) as chunk:
            with T.serial(cut.length) as i:
                k = T.min(chunk * cut.length + i, cut.inputs - 1)  # beyond the last input no digit asks for it
                each_lane(lambda p: T.buffer_store(table, value(k, p), [i, p]))
            with T.serial(outputs) as m:
                for target, run in zip(sums, cut.runs, strict=True):
                    add_run(target, run, chunk, m)
                each_lane(lambda p: T.buffer_store(total, before(m, p) + joined(p), [m, p]))
    return total


def digit_adds(digits: int, cut: DigitCut, outputs: int) -> int:
    """Additions that one pixel executes in one group's product: the digits, then a doubling for every plane but a
    run's first, a join for every run but the first, and one to the total, each once an output and chunk."""
    return digits + outputs * cut.chunks * cut.planes
