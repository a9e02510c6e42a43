"""Schedule of elementwise integer operators and copies: parallel over image and channel, one flat inner loop."""

from __future__ import annotations

from tvm import s_tir
from tvm.tirx import PrimFunc

from tvm_ffn.schedules.rule import Machine

POINTWISE_OPS = ("add", "affine", "rescale", "concat")


class Pointwise:
    """Schedules `add`, `affine`, `rescale` and `concat`."""

    def apply(self, function: PrimFunc, machine: Machine) -> PrimFunc | None:
        if function.attrs.get("ffn.op") not in POINTWISE_OPS:
            return None
        sch = s_tir.Schedule(function)
        for block in sch.get_child_blocks(sch.get_sblock("root")):
            loops = sch.get_loops(block)
            split = min(2, len(loops) - 1)
            if split:
                sch.parallel(sch.fuse(*loops[:split]))
            sch.fuse(*loops[split:])
        return sch.mod["main"]
