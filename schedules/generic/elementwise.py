"""Copies and elementwise blocks: outer loops in parallel, the contiguous loop in vectors."""

from __future__ import annotations

from tvm import s_tir
from tvm.s_tir.schedule import LoopRV, SBlockRV
from tvm.tirx import BufferStore

PARALLEL_LOOPS = 2


def schedule_copy(sch: s_tir.Schedule, block: SBlockRV) -> None:
    """Parallel over the first two axes (image and channel), the last one always excepted unless the block has loops
    inside; the innermost loop is left to LLVM's loop vectoriser, which copes with strides, borders and any length."""
    loops = sch.get_loops(block)
    outer = len(loops) - 1 if isinstance(sch.get(block).body, BufferStore) else len(loops)
    sch.parallel(sch.fuse(*loops[: min(PARALLEL_LOOPS, outer)]))


def vectorize(sch: s_tir.Schedule, loop: LoopRV, lanes: int) -> None:
    """Vectors of ``lanes`` elements along ``loop`` (whose extent they divide), unrolled."""
    outer, inner = sch.split(loop, [None, lanes])
    sch.vectorize(inner)
    sch.unroll(outer)


def vectorize_end(sch: s_tir.Schedule, loop: LoopRV, lanes: int) -> None:
    """Vectors along ``loop`` of what narrows sums: twice ``lanes`` int16, which make one whole vector of int8, or
    ``lanes`` where those do not divide the loop."""
    pair = 2 * lanes
    vectorize(sch, loop, lanes if int(sch.get(loop).extent) % pair else pair)
