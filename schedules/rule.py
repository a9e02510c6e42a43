"""What a schedule rule is, and how the first one that applies is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import tvm
from tvm.tirx import PrimFunc

from tvm_ffn import targets


@dataclass(frozen=True)
class Machine:
    """What the rules know of a target: width of its vector registers in bytes, and their number."""

    vector_bytes: int
    registers: int

    @staticmethod
    def of(target: tvm.target.Target) -> Machine:
        """What a target says."""
        return Machine(targets.vector_bytes(target), targets.vector_registers(target))

    def lanes(self, dtype: str) -> int:
        """Elements of ``dtype`` in one register."""
        return self.vector_bytes * 8 // tvm.DataType(dtype).bits


class ScheduleRule(Protocol):
    """Schedules one kind of function."""

    def apply(self, function: PrimFunc, machine: Machine) -> PrimFunc | None:
        """The scheduled function, or None if this rule is not meant for it."""


@tvm.transform.module_pass(opt_level=0, name="ApplySchedules")
class ApplySchedules:
    """Schedule every TensorIR function of a module with the first rule that takes it; the last rule takes all."""

    def __init__(self, rules: Sequence[ScheduleRule], machine: Machine) -> None:
        self.rules = rules
        self.machine = machine

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        updated = {}
        for variable, function in mod.functions_items():
            if isinstance(function, PrimFunc) and "tirx.is_scheduled" not in function.attrs:
                updated[variable] = self._schedule(variable.name_hint, function)
        for variable, function in updated.items():
            mod[variable] = function
        return mod

    def _schedule(self, name: str, function: PrimFunc) -> PrimFunc:
        for rule in self.rules:
            scheduled = rule.apply(function, self.machine)
            if scheduled is not None:
                return scheduled.with_attr("tirx.is_scheduled", True)
        raise ValueError(f"no schedule rule takes the function '{name}'")
