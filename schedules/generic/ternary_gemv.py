"""Schedule of mask products: 64 outputs in registers, parallel over blocks of outputs."""

from __future__ import annotations

from tvm import s_tir
from tvm.tirx import PrimFunc

from tvm_ffn.schedules.rule import Machine


class TernaryGemv:
    """Schedules `ternary_gemv`."""

    def apply(self, function: PrimFunc, machine: Machine) -> PrimFunc | None:
        if function.attrs.get("ffn.op") != "ternary_gemv":
            return None
        sch = s_tir.Schedule(function)
        for stage in ("y", "x"):
            total = sch.get_sblock(f"{stage}_sum")
            row, block, word, lane, segment = sch.get_loops(total)
            sch.reorder(row, block, segment, word, lane)
            sch.vectorize(lane)
            sch.parallel(sch.fuse(row, block))
            partial = sch.get_sblock(f"{stage}_partial")
            sch.compute_at(partial, segment, preserve_unit_loops=True)
            word, lane, k = sch.get_loops(partial)[-3:]
            sch.reorder(k, word, lane)
            sch.unroll(word)
            sch.vectorize(lane)
            registers = sch.cache_write(partial, 0, "local")
            word, lane = sch.get_loops(registers)[-2:]
            sch.unroll(word)
            sch.vectorize(lane)
            sch.decompose_reduction(partial, k)
            sch.decompose_reduction(total, segment)
        return sch.mod["main"]
