"""Schedule of separable pooling: one image plane at a time, vectors along all of its rows."""

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
            place, window = sch.get_loops(block)[-2:]
            sch.reorder(window, place)
            sch.decompose_reduction(block, window)
        if "padded" in {sch.get(block).name_hint for block in sch.get_child_blocks(sch.get_sblock("root"))}:
            sch.compute_at(sch.get_sblock("padded"), plane, preserve_unit_loops=True)
        return sch.mod["main"]
