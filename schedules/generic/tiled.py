"""Schedule of layers that bring their own inner loops: one tile after the other, tiles in parallel."""

from __future__ import annotations

from typing import ClassVar

from tvm import s_tir
from tvm.tirx import PrimFunc

from tvm_ffn.schedules.generic.elementwise import schedule_copy, vectorize, vectorize_end
from tvm_ffn.schedules.rule import Machine


class Tiled:
    """Schedules layers with weights as lists of digits or as int8."""

    OPS: ClassVar[tuple[str, ...]] = ("ternary_digits_conv2d", "ternary_digits_dense", "int8_conv2d", "int8_dense")

    def apply(self, function: PrimFunc, machine: Machine) -> PrimFunc | None:
        """The scheduled function, or None if this rule is not meant for it."""
        if function.attrs.get("ffn.op") not in self.OPS:
            return None
        sch = s_tir.Schedule(function)
        lanes = machine.lanes("int16")
        names = {sch.get(b).name_hint for b in sch.get_child_blocks(sch.get_sblock("root"))}
        for name in ("planes", "residual_flat", "wide", "store", "borders"):
            if name in names:
                schedule_copy(sch, sch.get_sblock(name))
        for tile in sorted({"first", "tile"} & names):
            block = sch.get_sblock(tile)
            sch.parallel(sch.fuse(*sch.get_loops(block)))
            inner = {sch.get(b).name_hint for b in sch.get_child_blocks(block)}
            if "inputs" in inner:
                vectorize(sch, sch.get_loops(sch.get_sblock("inputs"))[-1], lanes)
            for name in sorted({"middle", "epilogue"} & inner):
                vectorize_end(sch, sch.get_loops(sch.get_sblock(name))[-1], lanes)
        return sch.mod["main"]
