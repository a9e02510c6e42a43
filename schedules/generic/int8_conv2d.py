"""Schedule of int8 convolutions: a register tile of outputs by pixels, accumulated in float32 registers."""

from __future__ import annotations

from tvm import s_tir
from tvm.tirx import PrimFunc

from tvm_ffn.schedules.generic.elementwise import schedule_copy, vectorize
from tvm_ffn.schedules.rule import Machine


class Int8Conv2d:
    """Schedules `int8_conv2d`; a depthwise convolution reads its inputs straight from the planes."""

    def apply(self, function: PrimFunc, machine: Machine) -> PrimFunc | None:
        if function.attrs.get("ffn.op") != "int8_conv2d":
            return None
        sch = s_tir.Schedule(function)
        lanes = machine.lanes("float32")
        block = int(function.attrs["ffn.pixel_block"])
        names = {sch.get(b).name_hint for b in sch.get_child_blocks(sch.get_sblock("root"))}
        for name in ("planes", "residual_flat", "store", "weights"):
            if name in names:
                schedule_copy(sch, sch.get_sblock(name))

        epilogue = sch.get_sblock("epilogue")
        image, group, row, pixel = sch.get_loops(epilogue)
        outputs = int(sch.get(row).extent)
        pixel_block, pixel = sch.split(pixel, [None, block])
        sch.reorder(image, group, pixel_block, row, pixel)
        sch.parallel(sch.fuse(image, group, pixel_block))
        place = sch.get_loops(epilogue)[0]
        vectorize(sch, pixel, lanes)

        total, segment = sch.get_sblock("sum"), place
        if len(sch.get(total).iter_vars) == 4:
            sch.compute_inline(total)
        else:
            sch.compute_at(total, place, preserve_unit_loops=True)
            total_row, total_pixel, segment = sch.get_loops(total)[-3:]
            sch.reorder(segment, total_row, total_pixel)
            vectorize(sch, total_pixel, lanes)

        partial = sch.get_sblock("partial")
        sch.compute_at(partial, segment, preserve_unit_loops=True)
        row, pixel, k = sch.get_loops(partial)[-3:]
        tile = _row_tile(outputs, machine.registers * 3 // 4 * lanes // block)
        row, row_tile = sch.split(row, [None, tile])
        sch.reorder(row, k, row_tile, pixel)
        registers = sch.cache_write(partial, 0, "local")
        sch.reverse_compute_at(registers, row, preserve_unit_loops=True)
        vectorize(sch, sch.get_loops(registers)[-1], lanes)
        sch.unroll(sch.get_loops(registers)[-3])
        sch.unroll(row_tile)
        vectorize(sch, pixel, lanes)
        columns = sch.get_sblock("columns")
        if outputs == 1:
            sch.compute_inline(columns)
        else:
            sch.compute_at(columns, segment, preserve_unit_loops=True)
            vectorize(sch, sch.get_loops(columns)[-1], lanes)
        sch.decompose_reduction(partial, k)
        if segment is not place:
            sch.decompose_reduction(total, segment)
        return sch.mod["main"]


def _row_tile(outputs: int, limit: int) -> int:
    """Largest divisor of ``outputs`` that is at most ``limit``."""
    return max(tile for tile in range(1, max(1, limit) + 1) if outputs % tile == 0)
