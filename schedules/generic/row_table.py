"""Row-table schedule of factorised products: all stages on one block of pixels, tables rebuilt chunk by chunk.

parallel for image, pixel block:
    for group:
        stage y: for segment, chunk: build the chunk's tables (they fit in L1); for row: add one table row a group
        middle:  scale and requantise
        stage x: the same; epilogue

Where blocks of pixels are few, both stages are split by their outputs, and all of stage y comes first:

parallel for image, pixel block, part:  stage y, middle
parallel for image, pixel block, part:  stage x, epilogue
"""

from __future__ import annotations

from tvm import s_tir
from tvm.s_tir.schedule import LoopRV, SBlockRV
from tvm.tirx import PrimFunc

from tvm_ffn.schedules.generic.elementwise import schedule_copy, vectorize, vectorize_end
from tvm_ffn.schedules.rule import Machine

FACTORED_OPS = ("ternary_conv2d", "ternary_dense")


class RowTable:
    """Schedules `ternary_conv2d` and `ternary_dense`."""

    def apply(self, function: PrimFunc, machine: Machine) -> PrimFunc | None:
        if function.attrs.get("ffn.op") not in FACTORED_OPS:
            return None
        sch = s_tir.Schedule(function)
        lanes = machine.lanes("int16")
        block = int(function.attrs["ffn.pixel_block"])
        names = {sch.get(b).name_hint for b in sch.get_child_blocks(sch.get_sblock("root"))}
        for name in ("planes", "residual_flat", "store"):
            if name in names:
                schedule_copy(sch, sch.get_sblock(name))

        split = int(function.attrs["ffn.split"]) > 1
        group = _tiles(sch, sch.get_sblock("epilogue"), block, lanes, split)
        _stage(sch, "x", group, lanes)
        middle = sch.get_sblock("middle")
        if split:
            group = _tiles(sch, middle, block, lanes, split)
        else:
            sch.compute_at(middle, group, preserve_unit_loops=True)
            vectorize_end(sch, sch.get_loops(middle)[-1], lanes)
        _stage(sch, "y", group, lanes)
        return sch.mod["main"]


def _tiles(sch: s_tir.Schedule, end: SBlockRV, block: int, lanes: int, split: bool) -> LoopRV:
    """Cut the loops over what ends a stage into tiles, in parallel; the loop inside which a tile's sums belong."""
    image, group, row, pixel = sch.get_loops(end)
    pixel_block, pixel = sch.split(pixel, [None, block])
    sch.reorder(image, pixel_block, group, row, pixel)
    vectorize_end(sch, pixel, lanes)
    if split:
        tile = group = sch.fuse(image, pixel_block, group)
    else:
        tile = sch.fuse(image, pixel_block)
    sch.parallel(tile)
    return group


def _stage(sch: s_tir.Schedule, stage: str, group: LoopRV, lanes: int) -> None:
    """Place one ternary product (tables, int16 partial sums, int32 sums) under the loop over groups."""
    total = sch.get_sblock(f"{stage}_sum")
    partial = sch.get_sblock(f"{stage}_partial")
    table = sch.get_sblock(f"{stage}_table")
    if len(sch.get(total).iter_vars) == 4:  # a single segment: only a cast
        sch.compute_inline(total)
        segment = group
    else:
        sch.compute_at(total, group, preserve_unit_loops=True)
        row, pixel, segment = sch.get_loops(total)[-3:]
        sch.reorder(segment, row, pixel)
        vectorize(sch, pixel, lanes)
    sch.compute_at(partial, segment, preserve_unit_loops=True)
    row, pixel, chunk, step = sch.get_loops(partial)[-4:]
    sch.reorder(chunk, row, step, pixel)
    sch.unroll(step)
    sch.compute_at(table, chunk, preserve_unit_loops=True)
    _table(sch, table, lanes)
    vectorize(sch, pixel, lanes)
    sch.decompose_reduction(partial, chunk)
    if segment is not group:
        sch.decompose_reduction(total, segment)


def _table(sch: s_tir.Schedule, table: SBlockRV, lanes: int) -> None:
    """All 27 rows of a group for one vector of pixels before the next vector, so that inputs stay in registers."""
    step, entry, pixel = sch.get_loops(table)[-3:]
    outer, inner = sch.split(pixel, [None, lanes])
    sch.reorder(step, outer, entry, inner)
    sch.vectorize(inner)
    sch.unroll(entry)
