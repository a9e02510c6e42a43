"""Matched pairs and the code made of them, against plain arithmetic on the emitted instructions."""

from __future__ import annotations

import re
from itertools import pairwise
from math import ceil

import numpy as np
import pytest

from tvm_ffn.factorize.native import library
from tvm_ffn.kernels.code_program import code_bytes, program
from tvm_ffn.kernels.pairing import match_pairs, match_pairs_numpy
from tvm_ffn.kernels.straight_line import AVX2, AVX512, Piece, PieceCounts, VectorISA, emit_piece, piece_counts
from tvm_ffn.kernels.ternary_code import CodeStyle, TernaryCode
from tvm_ffn.sharing import product_adds


def random_ternary(rows: int, columns: int, zeros: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random((rows, columns)) < zeros, 0, rng.choice([-1, 1], (rows, columns))).astype(np.int8)


@pytest.mark.parametrize("zeros", [0.2, 0.5, 0.9])
def test_pairs_are_mutual_near_and_worth_it(zeros: float) -> None:
    ternary = random_ternary(12, 150, zeros)
    mate = match_pairs(ternary[None], window=20)
    for first in np.flatnonzero(mate >= 0):
        second = mate[first]
        assert mate[second] == first != second
        assert abs(second - first) <= 20
        product = ternary[:, first].astype(int) * ternary[:, second]
        assert max((product > 0).sum() - 1, 0) + max((product < 0).sum() - 1, 0) > 0


@pytest.mark.parametrize(
    ("rows", "columns", "window"), [(28, 300, 64), (12, 90, 200), (1, 40, 8), (70, 120, 30), (3, 1, 64)]
)
@pytest.mark.parametrize("zeros", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("planes", [1, 3])
def test_native_and_numpy_match_the_same(rows: int, columns: int, window: int, zeros: float, planes: int) -> None:
    assert library() is not None
    ternary = random_ternary(planes * rows, columns, zeros).reshape(planes, rows, columns)
    assert match_pairs(ternary, window).tolist() == match_pairs_numpy(ternary, window).tolist()


def test_no_pair_where_nothing_is_shared() -> None:
    assert (match_pairs(np.eye(8, dtype=np.int8)[None], 64) == -1).all()
    assert match_pairs(np.ones((1, 3, 1), np.int8), 64).tolist() == [-1]


def test_rows_of_different_planes_share_no_sum() -> None:
    both = np.ones((2, 1, 2), np.int8)
    assert match_pairs(both, 64).tolist() == [-1, -1]
    assert match_pairs(both.reshape(1, 2, 2), 64).tolist() == [1, 0]


def run(lines: list[str], isa: VectorISA, inputs: dict[int, int]) -> list[int]:
    """Interpret additions and loads on scalars, one lane of every register; returns the sums."""
    registers = dict.fromkeys(isa.sums, 0)

    def value(operand: str) -> int:
        memory = re.fullmatch(r"(\d+)\(%rdi\)", operand)
        return inputs[int(memory[1])] if memory else registers[operand]

    for line in lines:
        name, _, rest = line.partition(" ")
        operands = rest.split(",")
        if name == isa.move:
            registers[operands[1]] = value(operands[0])
        else:
            sign = {"vpaddw": 1, "vpsubw": -1}[name]
            registers[operands[2]] = registers[operands[1]] + sign * value(operands[0])
    return [registers[register] for register in isa.sums]


@pytest.mark.parametrize("isa", [AVX512, AVX2], ids=lambda isa: isa.name)
@pytest.mark.parametrize("zeros", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("doubles_inputs", [False, True])
def test_a_piece_computes_its_product_with_shared_sums(
    isa: VectorISA, zeros: float, depth: int, doubles_inputs: bool
) -> None:
    planes = np.stack([random_ternary(isa.rows, 390, zeros, seed=3 + plane) for plane in range(depth)])
    planes[: depth - 1, ::2] = 0  # rows that start with the last plane are not doubled
    offsets = np.arange(390) * 6 + 2
    piece = emit_piece(planes, offsets, 64, isa, 64, is_first=True, doubles_inputs=doubles_inputs)
    x = np.random.default_rng(4).integers(-127, 128, 390)
    sums = run(piece.lines, isa, dict(zip(offsets.tolist(), x.tolist(), strict=True)))
    weight = sum(plane.astype(int) << (depth - 1 - place) for place, plane in enumerate(planes))
    assert sums == (weight @ x).tolist()
    assert piece.doubles == (depth > 1 and not doubles_inputs)
    assert piece.adds == sum(line.startswith(("vpaddw", "vpsubw")) for line in piece.lines)
    assert piece.adds + piece.loads >= len(piece.lines)  # a lone load is part of its addition
    if doubles_inputs:
        assert piece.loads <= planes.shape[2]
    counted = piece_counts(planes, 64, doubles_inputs=doubles_inputs)
    assert counted == PieceCounts(piece.rows, piece.doubles, piece.adds, piece.loads)
    if zeros == 0.5 and depth == 1:
        assert piece.adds < 0.8 * np.count_nonzero(planes)


@pytest.mark.parametrize(("isa", "bounds"), [(AVX512, (0, 900)), (AVX2, (0, 500, 900))], ids=["avx512", "avx2"])
def test_a_product_comes_in_pieces_that_start_each_sum_once(isa: VectorISA, bounds: tuple[int, ...]) -> None:
    ternary, x = random_ternary(64, 900, 0.5), np.random.default_rng(4).integers(-127, 128, 900)
    offsets, row_bytes = np.arange(900) * 64, 96
    code = TernaryCode(ternary[None], bounds, offsets, row_bytes, isa, CodeStyle())
    (pieces,) = code.programs
    inputs = dict(zip(offsets.tolist(), x.tolist(), strict=True))
    totals: dict[int, list[int]] = {}
    for piece in pieces:
        assert piece.is_first == (piece.target not in totals)
        sums = np.array(run(piece.lines, isa, inputs)[: piece.rows])
        totals[piece.target] = (sums + totals.get(piece.target, 0)).tolist()
    assert 600 < np.mean([len(piece.lines) for piece in pieces]) < 1.1 * CodeStyle().length * isa.rows
    found = np.concatenate([totals[target] for target in sorted(totals)]).reshape(len(bounds) - 1, 64)
    edges = list(pairwise(bounds))
    assert (found == [ternary[:, a:b].astype(int) @ x[a:b] for a, b in edges]).all()
    starts = {target // row_bytes % 64 for target in totals}
    assert len(totals) == len(starts) * len(edges)
    assert code.adds == sum(piece.adds for piece in pieces)
    assert code.code_bytes == sum(code_bytes(piece, isa) for piece in pieces)


def test_a_piece_of_zeros_is_empty() -> None:
    assert emit_piece(np.zeros((2, 3, 5), np.int8), np.arange(5), 0, AVX2, 64, is_first=True).lines == []


@pytest.mark.parametrize("count", [1, 3, 9])
def test_a_program_runs_each_piece_and_asks_for_the_second_after_it(count: int) -> None:
    pieces = [Piece([f"piece {i}"] * 200, 2, 256 * i, i % 2 == 0, i % 3 == 0, 180 + i, 20) for i in range(count)]
    lines = program(pieces, 3 * 64, AVX512)
    assert [line for line in lines if line.startswith("piece")] == [line for piece in pieces for line in piece.lines]
    starts = [index for index, line in enumerate(lines) if line == "movq %r8,%rdi"]
    assert len(starts) == count
    for number, (start, end) in enumerate(pairwise([*starts, len(lines)])):
        asked = [int(line.split()[1].split("(")[0]) for line in lines[start:end] if line.startswith("prefetcht1 ")]
        wanted = ceil(ceil(code_bytes(pieces[number + 2], AVX512) / 64) / 3) if number + 2 < count else 0
        assert sorted(asked) == sorted(64 * line + far for line in range(wanted) for far in (0, 4096))


@pytest.mark.parametrize(("rows", "zeros"), [(9, 0.5), (60, 0.4), (60, 0.85)])
def test_additions_of_a_product_are_those_of_its_code(rows: int, zeros: float) -> None:
    ternary = random_ternary(rows, 150, zeros)
    code = TernaryCode(ternary[None], (0, 150), 64 * np.arange(150), 64, AVX512, CodeStyle())
    assert product_adds(ternary, AVX512) == pytest.approx(code.adds)


def test_some_blocks_stand_for_many() -> None:
    ternary = random_ternary(28 * 20, 100, 0.6)
    code = TernaryCode(ternary[None], (0, 100), 64 * np.arange(100), 64, AVX512, CodeStyle())
    assert product_adds(ternary, AVX512) == pytest.approx(code.adds, rel=0.03)


def test_a_piece_needs_its_registers() -> None:
    with pytest.raises(ValueError, match="14 rows does not fit the 16 registers of avx2"):
        emit_piece(np.ones((1, 14, 2), np.int8), np.array([0, 2]), 0, AVX2, 64, is_first=True)
