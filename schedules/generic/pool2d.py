"""Schedule of pooling: one image plane at a time, vectors along all of its rows, which are one run."""

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
        names = {sch.get(block).name_hint for block in sch.get_child_blocks(sch.get_sblock("root"))}
        if "plane" in names:
            block = sch.get_sblock("plane")
            sch.compute_at(block, plane, preserve_unit_loops=True)
            sch.fuse(*sch.get_loops(block)[-2:])
            return sch.mod["main"]
        for name in ("pool", "columns"):
            sch.compute_at(sch.get_sblock(name), plane, preserve_unit_loops=True)
        if "padded" in names:
            sch.compute_at(sch.get_sblock("padded"), plane, preserve_unit_loops=True)
        return sch.mod["main"]
