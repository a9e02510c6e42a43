"""Schedule of elementwise integer operators: parallel over image and channel, one flat inner loop."""

from __future__ import annotations

from tvm import s_tir
from tvm.tirx import PrimFunc

from tvm_ffn.schedules.rule import Machine

POINTWISE_OPS = ("add", "affine", "rescale")


class Pointwise:
    """Schedules `add`, `affine` and `rescale`."""

    def apply(self, function: PrimFunc, machine: Machine) -> PrimFunc | None:
        if function.attrs.get("ffn.op") not in POINTWISE_OPS:
            return None
        sch = s_tir.Schedule(function)
        loops = sch.get_loops(sch.get_sblock("store"))
        split = min(2, len(loops) - 1)
        if split:
            sch.parallel(sch.fuse(*loops[:split]))
        sch.fuse(*loops[split:])
        return sch.mod["main"]
