"""Schedule of products by tables over outputs: tables first, then blocks of outputs in parallel."""

from __future__ import annotations

from tvm import s_tir
from tvm.tirx import PrimFunc

from tvm_ffn.schedules.rule import Machine


class Lut:
    """Schedules `ternary_lut`."""

    def apply(self, function: PrimFunc, machine: Machine) -> PrimFunc | None:
        """The scheduled function, or None if this rule is not meant for it."""
        if function.attrs.get("ffn.op") != "ternary_lut":
            return None
        sch = s_tir.Schedule(function)
        for stage in ("y", "x"):
            *_, lane = sch.get_loops(sch.get_sblock(f"{stage}_table"))
            sch.vectorize(lane)
            sch.parallel(sch.fuse(*sch.get_loops(sch.get_sblock(f"{stage}_tile"))))
        return sch.mod["main"]
