"""Schedule of separable pooling: one image plane at a time, vectors along the rows."""

from __future__ import annotations

from tvm import s_tir
from tvm.tirx import PrimFunc

from tvm_ffn.schedules.rule import Machine


class Pool2d:
    """Schedules `max_pool2d` and `avg_pool2d`."""

    def apply(self, function: PrimFunc, machine: Machine) -> PrimFunc | None:
        if function.attrs.get("ffn.op") not in ("max_pool2d", "avg_pool2d"):
            return None
        sch = s_tir.Schedule(function)
        image, channel, *_ = sch.get_loops(sch.get_sblock("store"))
        plane = sch.fuse(image, channel)
        sch.parallel(plane)
        for name in ("pool", "columns"):
            block = sch.get_sblock(name)
            sch.compute_at(block, plane, preserve_unit_loops=True)
            row, column, window = sch.get_loops(block)[-3:]
            sch.reorder(row, window, column)
            sch.decompose_reduction(block, window)
        return sch.mod["main"]
