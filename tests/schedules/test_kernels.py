"""Scheduled kernels equal their NumPy oracles, bit for bit: every record of the shape table on every vector width."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import tvm

from benchmarks import shapes
from benchmarks.kernel_build import BuiltKernel, build, machine, plan
from benchmarks.kernel_case import KernelCase, kernel_case
from tvm_ffn import host, targets
from tvm_ffn.kernel_plan import KernelPlan
from tvm_ffn.kernels.codes import Segments, segments
from tvm_ffn.schedules.generic.fallback import Fallback
from tvm_ffn.schedules.rules import rules_for

X86 = {"avx512": "llvm -mcpu=znver4", "avx2": "llvm -mcpu=x86-64-v3", "sse": "llvm -mcpu=x86-64"}
ISAS = X86 if host.machine() == "x86_64" else {"native": "llvm"}
TESTED = tuple(shapes.tested())
BENCHMARKED = tuple(shapes.benchmarked())


@cache
def parsed(isa: str) -> tvm.target.Target:
    return targets.parse_target(ISAS[isa])


def isa_param(isa: str) -> object:
    missing = not targets.runs_here(parsed(isa))
    return pytest.param(isa, marks=pytest.mark.skipif(missing, reason=f"this processor does not run {isa} code"))


on_every_isa = pytest.mark.parametrize("isa", [isa_param(isa) for isa in ISAS])


@cache
def case_of(shape: shapes.Shape, decisions: KernelPlan) -> KernelCase:
    return kernel_case(shape, decisions)


def compare(built: BuiltKernel, case: KernelCase) -> dict[str, np.ndarray]:
    """Run all sets of arguments; returns the oracle's outputs by name."""
    outputs = {}
    for name, arguments in case.runs.items():
        outputs[name] = case.operator.reference(*arguments)
        actual = built.run(*arguments)
        assert actual.dtype == outputs[name].dtype
        np.testing.assert_array_equal(actual, outputs[name], err_msg=f"arguments '{name}'")
    return outputs


@on_every_isa
@pytest.mark.parametrize("shape", TESTED, ids=lambda shape: shape.name)
def test_equals_the_oracle(shape: shapes.Shape, isa: str) -> None:
    case = case_of(shape, plan(parsed(isa)))
    outputs = compare(build(case.operator.prim_func("kernel"), parsed(isa)), case)
    typical = outputs["typical"]
    assert len(np.unique(typical)) > min(16, typical.size // 4), "these arguments would hide errors"


@pytest.mark.slow
@on_every_isa
@pytest.mark.parametrize("shape", BENCHMARKED, ids=lambda shape: shape.name)
def test_benchmarked_layers_equal_the_oracle(shape: shapes.Shape, isa: str) -> None:
    case = kernel_case(shape, plan(parsed(isa)))
    compare(build(case.operator.prim_func("kernel"), parsed(isa)), case)


@pytest.mark.parametrize("shape", TESTED, ids=lambda shape: shape.name)
def test_a_rule_of_its_own_schedules_it(shape: shapes.Shape) -> None:
    target = parsed(next(iter(ISAS)))
    function = case_of(shape, plan(target)).operator.prim_func("kernel").with_attr("global_symbol", "main")
    rule = next(rule for rule in rules_for("llvm") if rule.apply(function, machine(target)) is not None)
    assert not isinstance(rule, Fallback)


@pytest.mark.parametrize("name", ["conv3x3-segments", "dense-rows-segments-float", "gemv-segments"])
@pytest.mark.parametrize("limited", ["y", "x"])
def test_the_arguments_show_an_overflow(name: str, limited: str) -> None:
    """Segments twice too long for one of the two products: the kernel must differ from the oracle."""
    shape = next(shape for shape in TESTED if shape.name == name)

    def too_long(ternary: np.ndarray, limit: int, *, step: int, chunk: int) -> Segments:
        wrong = (limit == 127) == (limited == "y")
        return segments(ternary, limit // 2 if wrong else limit, step=step, chunk=chunk)

    target = next(parsed(isa) for isa in ISAS if targets.runs_here(parsed(isa)))
    case = kernel_case(shape, plan(target), too_long)
    built = build(case.operator.prim_func("kernel"), target)
    assert any((built.run(*run) != case.operator.reference(*run)).any() for run in case.runs.values())
