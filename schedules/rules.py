"""The rules of each target, in the order they are tried; the last one takes everything."""

from __future__ import annotations

from collections.abc import Sequence

import tvm
from tvm.tirx import PrimFunc

from tvm_ffn import targets
from tvm_ffn.schedules.generic.fallback import Fallback
from tvm_ffn.schedules.generic.lut import Lut
from tvm_ffn.schedules.generic.pointwise import Pointwise
from tvm_ffn.schedules.generic.pool2d import Pool2d
from tvm_ffn.schedules.generic.row_table import RowTable
from tvm_ffn.schedules.generic.ternary_gemv import TernaryGemv
from tvm_ffn.schedules.generic.tiled import Tiled
from tvm_ffn.schedules.rule import ApplySchedules, Machine, ScheduleRule
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


def apply_schedules(target: tvm.target.Target) -> tvm.transform.Pass:
    """The pass that schedules what is left unscheduled in a module for ``target``; to be run in its scope."""
    rules = rules_for(targets.architecture(target))
    return tvm.transform.Sequential([ApplySchedules(rules, Machine.of(target))])


def build_function(function: PrimFunc, target: tvm.target.Target) -> tvm.runtime.Executable:
    """Schedule and compile one function alone, as ``main``."""
    with target:
        mod = apply_schedules(target)(tvm.IRModule({"main": function.with_attr("global_symbol", "main")}))
        return tvm.compile(mod, target=target)
