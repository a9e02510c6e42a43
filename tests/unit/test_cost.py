"""What operators cost: counts against the arguments, the emitted code and the loops themselves; cycles that follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from benchmarks import shapes
from benchmarks.cost_model import cases, spearman
from benchmarks.kernel_arguments import TYPICAL
from benchmarks.kernel_case import KernelCase, kernel_case
from benchmarks.rate_fit import fitted
from tvm_ffn.cost import predicted_cycles, vector_counts
from tvm_ffn.kernel_plan import plan_for
from tvm_ffn.kernels.code_program import code_bytes
from tvm_ffn.kernels.codes import Segments
from tvm_ffn.kernels.digit_lists import plane_runs
from tvm_ffn.kernels.straight_line import Piece
from tvm_ffn.kernels.ternary_code import TernaryCode

PLANS = {lanes: plan_for("x86_64", 2 * lanes) for lanes in (16, 32)}
LINEAR = tuple(shape for shape in shapes.tested() if isinstance(shape, shapes.Linear))
SMALL = shapes.ConvGeometry(1, 12, 10, 9, (3, 3), (1, 1), (1, 1, 1, 1))
FAMILIES: dict[str, Callable[..., shapes.Shape]] = {
    "rows": lambda g, zeros: shapes.TernaryConv("rows", g, 17, 21, zeros=zeros),
    "code": lambda g, zeros: shapes.TernaryConv("code", g, 17, 21, zeros=zeros, kernel="code"),
    "planes": lambda g, zeros: shapes.PlanesConv("planes", g, 5, 21, zeros=zeros),
    "digits": lambda g, zeros: shapes.DigitsConv("digits", g, 5, 21, zeros=zeros),
    "int8": lambda g, zeros: shapes.Int8Conv("int8", g, 21),
}


@cache
def case_of(shape: shapes.Shape, lanes: int = 32) -> KernelCase:
    return kernel_case(shape, PLANS[lanes])


def codes_of(operator: Any) -> list[TernaryCode]:
    factors = [getattr(operator, name) for name in ("code_y", "code_x") if hasattr(operator, name)]
    return factors + [stack.code for stack in getattr(operator, "stacks", ())]


def pieces_of(code: TernaryCode) -> list[Piece]:
    return [piece for pieces in code.programs for piece in pieces]


def weights_of(case: KernelCase) -> tuple[np.ndarray, ...]:
    """The constant arguments: all but the activation, the residual and its multiplier."""
    arguments = case.runs[TYPICAL][1:]
    epilogue = getattr(case.operator, "epilogue", None) or case.operator.product.epilogue
    return arguments[:-2] if epilogue.residual else arguments


@pytest.mark.parametrize("shape", LINEAR, ids=lambda shape: shape.name)
def test_bytes_are_those_of_the_arguments_and_the_code(shape: shapes.Shape) -> None:
    case = case_of(shape)
    code = sum(code_bytes(piece, part.isa) for part in codes_of(case.operator) for piece in pieces_of(part))
    assert case.operator.cost.bytes == sum(array.nbytes for array in weights_of(case)) + code
    assert case.operator.executed.bytes == case.operator.cost.bytes


@pytest.mark.parametrize("lanes", PLANS)
@pytest.mark.parametrize("shape", LINEAR, ids=lambda shape: shape.name)
def test_padding_only_adds(shape: shapes.Shape, lanes: int) -> None:
    operator = case_of(shape, lanes).operator
    cost, executed = astuple(operator.cost), astuple(operator.executed)
    assert all(isinstance(count, int) and count >= 0 for count in executed)
    assert all(more >= count for more, count in zip(executed, cost, strict=False))
    assert executed[4] >= case_of(shape, lanes).runs[TYPICAL][0].size // 4  # a stride may skip three pixels of four


@pytest.mark.parametrize("shape", [*shapes.CODE_CONVS, *shapes.PLANES_CONVS], ids=lambda shape: shape.name)
def test_code_executes_its_instructions(shape: Any) -> None:
    operator = case_of(shape).operator
    pixels = int(np.prod(operator.out_shape)) // operator.out_shape[1]
    pieces = [piece for code in codes_of(operator) for piece in pieces_of(code)]
    lines = [line for piece in pieces for line in piece.lines]
    outputs = shape.geometry.groups * shape.outputs
    runs = sum(len(stack.runs) for stack in operator.stacks) if isinstance(shape, shapes.PlanesConv) else 1
    adds = sum(line.startswith(("vpaddw", "vpsubw")) for line in lines)
    adds += sum(piece.rows for piece in pieces if piece.doubles and not piece.is_first)
    assert operator.cost.adds == pixels * (adds + (runs - 1) * outputs)
    assert operator.cost.lookups == 0
    padded = operator.geometry.batch * operator.pixels
    assert operator.executed.loads == padded * sum("(%rdi)" in line for line in lines)
    assert operator.executed.adds * pixels == operator.cost.adds * padded


@pytest.mark.parametrize("shape", shapes.DIGITS, ids=lambda shape: shape.name)
def test_digits_execute_the_loops_of_their_docstring(shape: Any) -> None:
    case = case_of(shape)
    counts, codes = weights_of(case)[:2]
    groups, _, outputs, lists = counts.shape
    digits = adds = 0
    for lengths in counts.reshape(-1, lists).tolist():  # an output of a chunk
        for index, run in enumerate(plane_runs(lists // 2)):
            adds += index > 0  # joined to the runs before
            for plane in run:
                adds += plane != run.start  # a = a + a
                digits += lengths[2 * plane] + lengths[2 * plane + 1]
        adds += 1  # to the total
    pixels = int(np.prod(case.operator.out_shape)) // (groups * outputs)
    assert case.operator.cost.adds == pixels * (digits + adds)
    assert case.operator.cost.lookups == pixels * digits
    assert groups * codes.shape[1] >= digits
    assert case.operator.executed.starts == counts.size


@pytest.mark.parametrize("shape", [*shapes.TERNARY_CONVS, *shapes.TERNARY_MATMULS], ids=lambda shape: shape.name)
def test_rows_look_up_every_code_and_masks_none(shape: Any) -> None:
    operator, cost = case_of(shape).operator, case_of(shape).operator.cost
    if shape.kernel == "lut":
        words_y, _, words_x = weights_of(case_of(shape))[:3]
        read = 3 * (words_y.shape[1] * shape.terms + words_x.shape[1] * shape.outputs)
        tables = 3 * (words_y.shape[1] + words_x.shape[1])
        assert cost.lookups == shape.rows * read
        assert cost.adds == shape.rows * (read + 27 * 2 * tables)
    elif shape.kernel == "masks":
        entries = shape.rows * shape.terms * (shape.inputs + shape.outputs)
        assert (cost.adds, cost.lookups) == (2 * entries, 0)
    else:
        codes_y, _, codes_x = weights_of(case_of(shape))[:3]
        cuts: tuple[Segments, ...] = (operator.product.cut_y, operator.product.cut_x)
        read = sum(codes[..., 0].size * cut.length for codes, cut in zip((codes_y, codes_x), cuts, strict=True))
        adds_of_table = {2: 2 + 4, 3: 10 + 13, 4: 36 + 40}  # sums of two inputs or more, and negations
        tables = operator.product.groups * sum(cut.steps * adds_of_table[cut.step] for cut in cuts)
        pixels = int(np.prod(operator.out_shape)) // (operator.product.groups * shape.outputs)
        assert cost.lookups == pixels * read
        assert cost.adds == pixels * (read + tables)


def test_int8_adds_once_a_product() -> None:
    operator = case_of(shapes.Int8Matmul("dense", 3, 70, 65)).operator
    assert (operator.cost.adds, operator.cost.multiplies) == (3 * 70 * 65, 3 * 65 * 71)
    assert operator.executed.adds == 3 * 70 * 80  # blocks of 16 outputs


def predicted(family: str, zeros: float = 0.5, lanes: int = 32, **changes: Any) -> float:
    shape = FAMILIES[family](replace(SMALL, **changes), zeros)
    return predicted_cycles(case_of(shape, lanes).operator, lanes)


@pytest.mark.parametrize("lanes", PLANS)
@pytest.mark.parametrize("family", FAMILIES)
def test_more_pixels_take_longer(family: str, lanes: int) -> None:
    times = [predicted(family, lanes=lanes, height=height) for height in (4, 10, 30, 90)]
    assert times == sorted(times) and times[0] > 0
    assert times[3] > 2 * times[2]


@pytest.mark.parametrize("lanes", PLANS)
@pytest.mark.parametrize("family", ["code", "planes", "digits"])  # rows and masks read zeros like other entries
def test_denser_weights_take_longer(family: str, lanes: int) -> None:
    times = [predicted(family, zeros, lanes) for zeros in (0.9, 0.7, 0.5, 0.3)]
    assert times == sorted(times) and times[3] > times[0]


@pytest.mark.parametrize("shape", LINEAR, ids=lambda shape: shape.name)
def test_every_operator_has_rates_at_every_width(shape: shapes.Shape) -> None:
    operator = case_of(shape).operator
    times = [predicted_cycles(operator, lanes) for lanes in (32, 16, 8)]
    assert times[0] > 0 and times[2] > times[1]
    assert vector_counts(operator, 16)[0] == 2 * vector_counts(operator, 32)[0]


def test_the_benchmark_covers_every_family_with_names_of_its_own() -> None:
    found = list(cases("1.0"))
    assert len(found) >= 36
    assert len({shape.name for _, shape in found}) == len(found)
    assert {family for family, _ in found} == {*FAMILIES, "lut", "masks", "int8-dense"}


def test_rank_correlation() -> None:
    values = np.array([3.0, 1.0, 2.0, 10.0])
    assert spearman(values, values**3) == pytest.approx(1.0)
    assert spearman(values, -values) == pytest.approx(-1.0)
    assert spearman(np.array([1.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0])) == pytest.approx(np.sqrt(3) / 2)


def test_rates_come_back() -> None:
    rates = np.array([0.7, 0.0, 4.0])
    counts = np.random.default_rng(0).uniform(1, 9, (12, 3))
    np.testing.assert_allclose(fitted(counts / (counts @ rates)[:, None], 0.5), rates, atol=1e-9)
    assert fitted(counts / (counts @ rates)[:, None], 0.9)[0] >= 0.9
