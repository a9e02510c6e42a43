"""The rules of each target, in the order they are tried; the last one takes everything."""

from __future__ import annotations

from collections.abc import Sequence

from tvm_ffn.schedules.generic.fallback import Fallback
from tvm_ffn.schedules.generic.lut import Lut
from tvm_ffn.schedules.generic.pointwise import Pointwise
from tvm_ffn.schedules.generic.pool2d import Pool2d
from tvm_ffn.schedules.generic.row_table import RowTable
from tvm_ffn.schedules.generic.ternary_gemv import TernaryGemv
from tvm_ffn.schedules.generic.tiled import Tiled
from tvm_ffn.schedules.rule import ScheduleRule
from tvm_ffn.schedules.x86.code import Code

GENERIC: Sequence[ScheduleRule] = (
    RowTable(),
    Tiled(),
    TernaryGemv(),
    Lut(),
    Pool2d(),
    Pointwise(),
    Fallback(),
)


X86: Sequence[ScheduleRule] = (Code(), *GENERIC)


def rules_for(architecture: str) -> Sequence[ScheduleRule]:
    """Rules for an architecture ("x86_64", "aarch64", ...): a family's own come before the generic ones."""
    return X86 if architecture == "x86_64" else GENERIC
