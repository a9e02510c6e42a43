"""The rules of each target, in the order they are tried; the last one takes everything."""

from __future__ import annotations

from collections.abc import Sequence

from tvm_ffn.schedules.generic.fallback import Fallback
from tvm_ffn.schedules.generic.int8_conv2d import Int8Conv2d
from tvm_ffn.schedules.generic.int8_dense import Int8Dense
from tvm_ffn.schedules.generic.pointwise import Pointwise
from tvm_ffn.schedules.generic.pool2d import Pool2d
from tvm_ffn.schedules.generic.row_table import RowTable
from tvm_ffn.schedules.generic.ternary_gemv import TernaryGemv
from tvm_ffn.schedules.rule import ScheduleRule

GENERIC: Sequence[ScheduleRule] = (
    RowTable(),
    TernaryGemv(),
    Int8Conv2d(),
    Int8Dense(),
    Pool2d(),
    Pointwise(),
    Fallback(),
)


def rules_for(kind: str) -> Sequence[ScheduleRule]:
    """Rules for a target kind ("llvm"): a family with rules of its own puts them before the generic ones."""
    if kind != "llvm":
        raise ValueError(f"no schedule rules for targets of kind '{kind}'")
    return GENERIC
