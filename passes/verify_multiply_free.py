"""Refuse a multiply inside a ternary product.

Checked on the unscheduled TensorIR: in functions whose ``ffn.op`` starts with "ternary", only the blocks that
requantise ("middle", "epilogue", "store") may multiply values. Index arithmetic and the conditions of selections are no
values. What an external call does is not seen here: the tests disassemble the built kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tvm
from tvm import tirx
from tvm.s_tir import SBlock
from tvm.tirx import PrimFunc

REQUANTIZING = ("middle", "epilogue", "store")
_STATEMENTS = ("block", "init", "body", "then_case", "else_case")
_CHILDREN = ("a", "b", "value", "body", "true_value", "false_value")
_MULTIPLYING_CALLS = ("tirx.fma", "tirx.pow", "tirx.dp4a", "tirx.q_multiply_shift", "tirx.q_multiply_shift_per_axis")


@tvm.transform.module_pass(opt_level=0, name="VerifyMultiplyFree")
class VerifyMultiplyFree:
    """Raises ValueError naming function and block; changes nothing."""

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        """Check every function."""
        for variable, function in mod.functions_items():
            if isinstance(function, PrimFunc) and str(function.attrs.get("ffn.op", "")).startswith("ternary"):
                for block in multiplying_blocks(function):
                    if block not in REQUANTIZING:
                        raise ValueError(f"{variable.name_hint}: the ternary block '{block}' multiplies")
        return mod


def multiplying_blocks(function: PrimFunc) -> list[str]:
    """Names of the blocks that compute a value with a multiply, a division or a fused multiply-add."""
    return list(dict.fromkeys(block for block, value in _values(function.body, "root") if _multiplies(value)))


def _values(statement: Any, block: str) -> Iterator[tuple[str, Any]]:
    """Every stored or named value with the name of the innermost block around it."""
    if isinstance(statement, tirx.BufferStore | tirx.Bind):
        yield block, statement.value
    if isinstance(statement, SBlock):
        block = statement.name_hint
    for name in _STATEMENTS:
        inner = getattr(statement, name, None)
        if inner is not None:
            yield from _values(inner, block)
    for inner in getattr(statement, "seq", ()):
        yield from _values(inner, block)


def _multiplies(expr: Any) -> bool:
    if isinstance(expr, tirx.Mul | tirx.Div):
        return True
    if isinstance(expr, tvm.ir.TensorLoad):
        return False
    if isinstance(expr, tvm.ir.Call):
        name = getattr(expr.op, "name", "")
        values = expr.args[1:] if name.endswith(".if_then_else") else expr.args
        return name in _MULTIPLYING_CALLS or any(_multiplies(arg) for arg in values)
    return any(_multiplies(getattr(expr, child)) for child in _CHILDREN if hasattr(expr, child))
