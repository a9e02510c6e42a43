"""Scheduled kernels equal their NumPy oracles, bit for bit: every record of the shape table on every vector width."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import tvm
from emulator import bochs

from benchmarks import shapes
from benchmarks.kernel_build import BuiltKernel, build, machine, plan
from benchmarks.kernel_case import KernelCase, fits, kernel_case
from tvm_ffn import host, targets
from tvm_ffn.kernel_plan import KernelPlan
from tvm_ffn.kernels import codes, winograd_conv2d
from tvm_ffn.kernels.geometry import ConvGeometry
from tvm_ffn.kernels.plane_layout import Layouts, PlaneLayout
from tvm_ffn.schedules.generic.fallback import Fallback
from tvm_ffn.schedules.rules import rules_for

X86 = {"avx512": "llvm -mcpu=cascadelake", "avx2": "llvm -mcpu=x86-64-v3", "sse": "llvm -mcpu=x86-64"}
ISAS = X86 if host.machine() == "x86_64" else {"native": "llvm"}
TESTED = tuple(shapes.tested())
BENCHMARKED = tuple(shapes.benchmarked())
SEGMENTED = (
    "conv3x3-segments",
    "code-conv3x3-segments",
    "planes-conv3x3-segments-float",
    "digits-conv3x3-largest",
    "digits-conv1x1-largest-four-planes",
    "digits-conv3x3-segments-float",
    "dense-rows-segments-float",
    "gemv-segments",
    "lut-segments",
    "gemv-wide-middle-float",  # of X only
)


@cache
def parsed(isa: str) -> tvm.target.Target:
    return targets.parse_target(ISAS[isa])


def best_here() -> tvm.target.Target:
    """The first instruction set that this processor, or the emulator, runs."""
    return next(target for target in map(parsed, ISAS) if runs(target))


def runs(target: tvm.target.Target) -> bool:
    return targets.runs_here(target) or bochs.runs(target)


@cache
def skipped(isa: str) -> pytest.MarkDecorator:
    missing = not runs(parsed(isa))
    return pytest.mark.skipif(missing, reason=f"this processor does not run {isa} code")


def on_every_isa(records: tuple[shapes.Shape, ...]) -> pytest.MarkDecorator:
    """Every record on every instruction set that has its kernel."""
    places = [(shape, isa) for isa in ISAS for shape in records if fits(shape, plan(parsed(isa)))]
    return pytest.mark.parametrize(
        ("shape", "isa"),
        [pytest.param(shape, isa, id=f"{shape.name}-{isa}", marks=skipped(isa)) for shape, isa in places],
    )


@cache
def case_of(shape: shapes.Shape, decisions: KernelPlan) -> KernelCase:
    return kernel_case(shape, decisions)


def compare(built: BuiltKernel, case: KernelCase) -> dict[str, np.ndarray]:
    """Run all sets of arguments, in the emulator where this processor cannot; returns the oracle's outputs by name."""
    if targets.runs_here(built.target):
        actual = {name: built.run(*arguments) for name, arguments in case.runs.items()}
    else:
        actual = bochs.call(built.library, case.runs, np.zeros(built.out_shape, built.out_dtype))
    outputs = {name: case.operator.reference(*arguments) for name, arguments in case.runs.items()}
    for name, expected in outputs.items():
        assert actual[name].dtype == expected.dtype
        np.testing.assert_array_equal(actual[name], expected, err_msg=f"arguments '{name}'")
    return outputs


@on_every_isa(TESTED)
def test_equals_the_oracle(shape: shapes.Shape, isa: str) -> None:
    case = case_of(shape, plan(parsed(isa)))
    outputs = compare(build(case.operator.prim_func("kernel"), parsed(isa)), case)
    typical = outputs["typical"]
    assert len(np.unique(typical)) > min(16, typical.size // 4), "these arguments would hide errors"


@pytest.mark.parametrize(
    ("dot", "cpu"),
    [("plain", ""), ("neon", ""), ("avx512", "cascadelake"), ("avx512vnni", "cascadelake"), ("avxvnni", "alderlake")],
)
@pytest.mark.parametrize("shape", shapes.INT8_LAYERS, ids=lambda shape: shape.name)
def test_int8_with_other_instructions(shape: shapes.Shape, dot: str, cpu: str) -> None:
    """What processors with VNNI, without, or with half its width get, and plain arithmetic, which runs here too; code
    that this processor does not run is compiled all the same."""
    if cpu and host.machine() != "x86_64":
        pytest.skip("instructions of x86")
    target = targets.parse_target(f"llvm -mcpu={cpu}" if cpu else "llvm")
    case = kernel_case(shape, replace(plan(target), dot=dot))
    built = build(case.operator.prim_func("kernel"), target)
    if not runs(target):
        pytest.skip(f"this processor does not run code for {cpu}")
    compare(built, case)


OTHER_DECISIONS = [  # that the default is not for these
    *(("conv3x3-stride2-groups-batch2-residual", {"table_group": group}) for group in (3, 4)),
    *(("conv3x3-wide-middle", {"table_group": group, "chunk": 4}) for group in (3, 4)),
    ("conv3x3-segments", {"table_group": 4}),
    ("dense-rows", {"table_group": 4}),
    ("digits-conv3x3-one-row", {"lanes": 8}),
    ("code-conv3x3-dense-entries-batch2", {"code_rows": 5}),
    ("code-conv3x3-dense-entries-batch2", {"code_length": 5, "pair_window": 3}),
    ("planes-conv3x3", {"code_length": 5}),
    *(("planes-conv3x3-segments-float", {"load_planes": planes}) for planes in (1, 2, 3, 6)),
    *(("planes-conv3x3-batch2-residual", {"load_planes": planes, "pair_window": 3}) for planes in (1, 3)),
]


@pytest.mark.parametrize(("name", "decisions"), OTHER_DECISIONS, ids=str)
def test_decisions_for_the_tuner(name: str, decisions: dict[str, Any]) -> None:
    target = best_here()
    shape = next(shape for shape in TESTED if shape.name == name)
    if not fits(shape, plan(target)):
        pytest.skip("the processor has no kernel of that kind")
    case = kernel_case(shape, replace(plan(target), **decisions))
    compare(build(case.operator.prim_func("kernel"), target), case)


SPLIT = [  # layers of one or two tiles, and the threads that share them
    ("conv3x3-segments", 3),
    ("conv7x7-stride2", 4),
    ("conv3x3-stride2-groups-batch2-residual", 1),
    ("code-conv3x3-zero", 6),
    ("code-conv3x3-segments", 2),
    ("code-conv3x3-groups", 4),
    ("dense-rows-residual", 3),
    ("dense-rows-segments-float", 3),
    ("planes-conv3x3", 6),
    ("planes-conv3x3-groups", 5),
    ("planes-conv3x3-segments-float", 3),
    ("digits-conv3x3", 2),
    ("digits-conv3x3-stride2-groups-batch2-residual", 8),
    ("digits-conv3x3-segments-float", 3),
    ("digits-dense-residual", 6),
    ("int8-conv3x3", 4),
    ("int8-conv3x3-groups-batch2-residual", 9),
    ("int8-conv-uneven-leaky", 5),
]


@pytest.mark.parametrize(("name", "threads"), SPLIT, ids=str)
def test_outputs_shared_by_threads(name: str, threads: int) -> None:
    target = best_here()
    shape = next(shape for shape in TESTED if shape.name == name)
    if not fits(shape, plan(target)):
        pytest.skip("the processor has no kernel of that kind")
    case = kernel_case(shape, replace(plan(target), threads=threads))
    split = getattr(case.operator, "product", case.operator).split
    assert (split > 1) == (threads > 1)
    compare(build(case.operator.prim_func("kernel"), target), case)


@pytest.mark.parametrize("shape", [s for s in TESTED if "whole-tiles" in s.name], ids=lambda shape: shape.name)
def test_whole_tiles_go_straight_to_the_output(shape: shapes.Shape) -> None:
    target = parsed(next(iter(ISAS)))
    if not fits(shape, plan(target)):
        pytest.skip("the processor has no kernel of that kind")
    function = case_of(shape, plan(target)).operator.prim_func("kernel")
    assert not {"flat", "store", "residual_flat"} & {buffer.name for buffer in function.body.block.alloc_buffers}


IN_PLANES = (
    "code-conv3x3-dense-entries-batch2",
    "code-conv3x3-one-output-residual",
    "code-conv3x3-zero",
    "planes-conv3x3-zero",
    "planes-conv3x3-batch2-residual",
    "digits-conv3x3-one-output-residual",
    "digits-conv3x3-zero",
)


@on_every_isa(tuple(shape for shape in TESTED if shape.name in IN_PLANES))
def test_equals_the_oracle_between_planes(shape: shapes.Shape, isa: str) -> None:
    case = case_of(shape, plan(parsed(isa)))
    rows, g = case.operator, case.operator.geometry
    assert rows.reads_planes
    x = replace(rows.input_planes, size=rows.input_planes.size + 9)
    out = PlaneLayout(rows.out_shape, g.pitch, 5, 5 + rows.pixels, pad_value=-3)
    residual = PlaneLayout(rows.out_shape, g.pitch, 2, 7 + rows.pixels, 0) if rows.epilogue.residual else None
    operator = rows.with_layouts(Layouts(x, residual, out))
    runs = {}
    for name, (activation, *rest) in case.runs.items():
        if residual is not None:
            rest[-2] = residual.planes_numpy(rest[-2])
        runs[name] = (x.planes_numpy(activation), *rest)
    outputs = compare(build(operator.prim_func("kernel"), parsed(isa)), KernelCase(operator, runs))
    for name, arguments in case.runs.items():
        expected = rows.reference(*arguments)
        np.testing.assert_array_equal(out.rows_numpy(outputs[name]), expected)
        assert (outputs[name] != -3).sum() <= expected.size


@pytest.mark.slow
@on_every_isa(BENCHMARKED)
def test_benchmarked_layers_equal_the_oracle(shape: shapes.Shape, isa: str) -> None:
    case = kernel_case(shape, plan(parsed(isa)))
    compare(build(case.operator.prim_func("kernel"), parsed(isa)), case)


@pytest.mark.parametrize("shape", TESTED, ids=lambda shape: shape.name)
def test_a_rule_of_its_own_schedules_it(shape: shapes.Shape) -> None:
    target = parsed(next(iter(ISAS)))
    if not fits(shape, plan(target)):
        pytest.skip("the processor has no kernel of that kind")
    function = case_of(shape, plan(target)).operator.prim_func("kernel").with_attr("global_symbol", "main")
    rule = next(rule for rule in rules_for(host.machine()) if rule.apply(function, machine(target)) is not None)
    assert not isinstance(rule, Fallback)


@pytest.mark.parametrize(("channels", "exact"), [(winograd_conv2d.MOST_CHANNELS // 16 * 16, True), (7168, False)])
def test_winograd_overflows_beyond_its_bound_only(channels: int, exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd_conv2d, "MOST_CHANNELS", 7168)
    geometry = ConvGeometry(1, channels, 5, 6, (3, 3), (1, 1), (1, 1, 1, 1))
    target = parsed("avx2") if "avx2" in ISAS else parsed("native")
    if not targets.runs_here(target) or plan(target).dot != "avx2":
        pytest.skip("needs AVX2")
    case = kernel_case(shapes.Int8Conv("many", geometry, 16, shapes.FLOAT), plan(target))
    assert isinstance(case.operator, winograd_conv2d.WinogradConv2d)
    built = build(case.operator.prim_func("kernel"), target)
    right = [np.array_equal(built.run(*run), case.operator.reference(*run)) for run in case.runs.values()]
    assert all(right) == exact


@pytest.mark.parametrize("name", SEGMENTED)
def test_the_arguments_show_an_overflow(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With segments made for sums five times int16's range, the kernel must differ from the oracle."""
    shape = next(shape for shape in TESTED if shape.name == name)
    target = next(parsed(isa) for isa in ISAS if targets.runs_here(parsed(isa)))
    if not fits(shape, plan(target)):
        pytest.skip("this processor has no kernel of that kind")
    monkeypatch.setattr(codes, "INT16_MAX", 5 * codes.INT16_MAX)
    case = kernel_case(shape, plan(target))
    built = build(case.operator.prim_func("kernel"), target)
    assert any((built.run(*run) != case.operator.reference(*run)).any() for run in case.runs.values())
