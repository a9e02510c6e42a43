"""Run an integer graph with the operators' NumPy references: what every compiled module must reproduce bit by bit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvm_ffn.interpreter import Interpreter


class Oracle(Interpreter):
    """An interpreter that knows the integer operators of `passes.integer_graph` by function name."""

    def __init__(self, mod: tvm.IRModule, operators: Mapping[str, Any]) -> None:
        super().__init__(mod)
        self._operators = operators

    def _value(self, expr: relax.Expr, environment: dict[relax.Var, Any]) -> Any:
        name = called(expr)
        if name not in self._operators:
            return super()._value(expr, environment)
        operator = self._operators[name]
        arguments = [np.asarray(super(Oracle, self)._value(arg, environment)) for arg in expr.args[1].fields]
        return operator.reference(*arguments)


def called(expr: relax.Expr) -> str:
    """Name of the TensorIR function that a call_tir calls, "" for anything else."""
    if isinstance(expr, relax.Call) and isinstance(expr.op, tvm.ir.Op) and expr.op.name == "relax.call_tir":
        return str(expr.args[0].name_hint)
    return ""
