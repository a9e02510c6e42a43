"""Operators get the schedules that tuning found; what is left unscheduled is for the rules."""

from __future__ import annotations

import json

import tvm
from tvm import s_tir
from tvm.s_tir.schedule import Trace

from tvm_ffn.errors import ConfigError
from tvm_ffn.tuning.operator import Operator, operator_of
from tvm_ffn.tuning.quick_import import import_intrinsics
from tvm_ffn.tuning.table import TunedOperator, TunedTable


@tvm.transform.module_pass(opt_level=0, name="ApplyTuned")
class ApplyTuned:
    """Apply a table's traces; ``found`` says by function whether the table had it: "hit" or "miss"."""

    def __init__(self, table: TunedTable) -> None:
        self.table = table
        self.found: dict[str, str] = {}

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        for variable, function in mod.functions_items():
            operator = operator_of(variable.name_hint, function)
            if operator is None:
                continue
            entry = self.table.operators.get(operator.key)
            self.found[variable.name_hint] = "miss" if entry is None else "hit"
            if entry is not None and entry.trace is not None:
                mod[variable] = _scheduled(operator, entry)
        return mod


def _scheduled(operator: Operator, entry: TunedOperator) -> tvm.tirx.PrimFunc:
    if "Tensorize" in json.dumps(entry.trace):
        import_intrinsics()
    sch = s_tir.Schedule(tvm.IRModule({"main": operator.function}))
    try:
        Trace.apply_json_to_schedule(entry.trace, sch)
    except (ValueError, TypeError, RuntimeError, tvm.error.InternalError, s_tir.ScheduleError) as error:
        raise ConfigError(f"the tuned schedule of {entry.name} does not apply: {error}; tune again") from error
    return sch.mod["main"].without_attr("global_symbol").with_attr("tirx.is_scheduled", True)
