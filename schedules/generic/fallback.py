"""The last rule: whatever the graph still holds runs in parallel over its outer spatial loops.

Takes every function, those of TVM's own legalisation included; the innermost spatial loop is left to LLVM's vectoriser.
It is the last two axes together where those before them are enough for all threads: rows of images are short. An
elementwise block that one elementwise block reads is computed there, unless its value is conditional, as that of a
padding or a concatenation: LLVM makes no vectors of what reads such a block in several places (LRN of 192 channels at
56x56 took eight times as long).
"""

from __future__ import annotations

from math import prod

from tvm import s_tir
from tvm.ir import Call, Op
from tvm.s_tir.schedule import SBlockRV
from tvm.tirx import PrimFunc

from tvm_ffn.schedules.rule import Machine

ENOUGH = 16  # iterations of parallel loops


class Fallback:
    """Schedules any function made of loop nests over blocks."""

    def apply(self, function: PrimFunc, machine: Machine) -> PrimFunc | None:
        sch = s_tir.Schedule(function)
        root = sch.get_sblock("root")
        for block in reversed(sch.get_child_blocks(root)):
            consumers = sch.get_consumers(block)
            if len(consumers) != 1 or _is_conditional(sch, block):
                continue
            if _is_elementwise(sch, block) and _is_elementwise(sch, consumers[0]):
                sch.compute_inline(block)
        for block in sch.get_child_blocks(root):
            _parallel_outer(sch, block)
        return sch.mod["main"]


def _is_elementwise(sch: s_tir.Schedule, block: SBlockRV) -> bool:
    """Whether every axis is spatial: no reduction, and one value an instance."""
    return all(axis.iter_type == 0 for axis in sch.get(block).iter_vars)


def _is_conditional(sch: s_tir.Schedule, block: SBlockRV) -> bool:
    """Whether what the value reads depends on a condition."""
    value = getattr(sch.get(block).body, "value", None)
    return isinstance(value, Call) and value.op == Op.get("prim.if_then_else")


def _parallel_outer(sch: s_tir.Schedule, block: SBlockRV) -> None:
    spatial = []
    for loop, axis in zip(sch.get_loops(block), sch.get(block).iter_vars, strict=False):
        if axis.iter_type != 0:  # IterVar.DataPar: a reduction axis ends the spatial prefix
            break
        spatial.append(loop)
    everything_is_spatial = len(spatial) == len(sch.get_loops(block))
    outer = spatial[:-1] if everything_is_spatial and len(spatial) > 1 else spatial
    if everything_is_spatial and prod(int(sch.get(loop).extent) for loop in spatial[:-2]) >= ENOUGH:
        sch.fuse(*spatial[-2:])
        outer = spatial[:-2]
    if outer:
        sch.parallel(sch.fuse(*outer))
