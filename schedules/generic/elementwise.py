"""Copies and elementwise blocks: outer loops in parallel, the contiguous loop in vectors."""

from __future__ import annotations

from tvm import s_tir
from tvm.s_tir.schedule import SBlockRV

from tvm_ffn.schedules.rule import Machine

PARALLEL_LOOPS = 2


def schedule_copy(sch: s_tir.Schedule, block: SBlockRV, machine: Machine) -> None:
    """Parallel over the first two axes (image and channel); the innermost loop is left to LLVM's loop vectoriser, which
    copes with strides, borders and any length."""
    loops = sch.get_loops(block)
    sch.parallel(sch.fuse(*loops[:PARALLEL_LOOPS]))
