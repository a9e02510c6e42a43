"""Schedule of int8 dense layers: 64 outputs in float32 registers, parallel over blocks of outputs."""

from __future__ import annotations

from tvm import s_tir
from tvm.tirx import PrimFunc

from tvm_ffn.schedules.generic.elementwise import vectorize
from tvm_ffn.schedules.rule import Machine


class Int8Dense:
    """Schedules `int8_dense`."""

    def apply(self, function: PrimFunc, machine: Machine) -> PrimFunc | None:
        if function.attrs.get("ffn.op") != "int8_dense":
            return None
        sch = s_tir.Schedule(function)
        lanes = machine.lanes("float32")
        total = sch.get_sblock("sum")
        row, block, lane, run = sch.get_loops(total)
        sch.reorder(row, block, run, lane)
        sch.parallel(sch.fuse(row, block))
        vectorize(sch, lane, lanes)
        partial = sch.get_sblock("partial")
        sch.compute_at(partial, run, preserve_unit_loops=True)
        lane, k = sch.get_loops(partial)[-2:]
        sch.reorder(k, lane)
        vectorize(sch, lane, lanes)
        registers = sch.cache_write(partial, 0, "local")
        vectorize(sch, sch.get_loops(registers)[-1], lanes)
        sch.decompose_reduction(partial, k)
        sch.decompose_reduction(total, run)
        return sch.mod["main"]
