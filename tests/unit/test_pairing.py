"""Matched pairs and the code made of them, against plain arithmetic on the emitted instructions."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tvm_ffn.kernels.pairing import match_pairs
from tvm_ffn.kernels.straight_line import AVX2, AVX512, VectorISA, emit_block


def random_ternary(rows: int, columns: int, zeros: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random((rows, columns)) < zeros, 0, rng.choice([-1, 1], (rows, columns))).astype(np.int8)


@pytest.mark.parametrize("zeros", [0.2, 0.5, 0.9])
def test_pairs_are_mutual_near_and_worth_it(zeros: float) -> None:
    ternary = random_ternary(12, 150, zeros)
    mate = match_pairs(ternary, window=20)
    for first in np.flatnonzero(mate >= 0):
        second = mate[first]
        assert mate[second] == first != second
        assert abs(second - first) <= 20
        product = ternary[:, first].astype(int) * ternary[:, second]
        assert max((product > 0).sum() - 1, 0) + max((product < 0).sum() - 1, 0) > 0


def test_no_pair_where_nothing_is_shared() -> None:
    assert (match_pairs(np.eye(8, dtype=np.int8)) == -1).all()
    assert match_pairs(np.ones((3, 1), np.int8)).tolist() == [-1]


def run(lines: list[str], isa: VectorISA, inputs: dict[int, int]) -> dict[int, int]:
    """Interpret a block on scalars: one lane of every register."""
    registers: dict[str, int] = {}
    stored: dict[int, int] = {}

    def value(operand: str) -> int:
        memory = re.fullmatch(r"(\d+)\(%rdi\)", operand)
        return inputs[int(memory[1])] if memory else registers[operand]

    for line in lines:
        name, _, rest = line.partition(" ")
        operands = rest.split(",")
        if name == isa.zero:
            registers[operands[2]] = 0
        elif name == isa.move and operands[1].endswith("(%rsi)"):
            stored[int(operands[1].removesuffix("(%rsi)"))] = registers[operands[0]]
        elif name == isa.move:
            registers[operands[1]] = value(operands[0])
        elif name in ("vpaddw", "vpsubw"):
            sign = 1 if name == "vpaddw" else -1
            registers[operands[2]] = registers[operands[1]] + sign * value(operands[0])
    return stored


@pytest.mark.parametrize("isa", [AVX512, AVX2], ids=lambda isa: isa.name)
@pytest.mark.parametrize("zeros", [0.0, 0.5, 0.95])
def test_a_block_computes_its_product_with_shared_sums(isa: VectorISA, zeros: float) -> None:
    ternary = random_ternary(isa.rows, 90, zeros, seed=3)
    offsets = np.arange(90) * 6 + 2
    block = emit_block(ternary, offsets, 64, isa)
    x = np.random.default_rng(4).integers(-127, 128, 90)
    stored = run(list(block.lines), isa, dict(zip(offsets.tolist(), x.tolist(), strict=True)))
    assert [stored[64 * row] for row in range(isa.rows)] == (ternary.astype(int) @ x).tolist()
    assert block.adds == sum(line.startswith(("vpaddw", "vpsubw")) for line in block.lines)
    if zeros == 0.5:
        assert block.adds < 0.8 * np.count_nonzero(ternary)


def test_a_block_needs_its_registers() -> None:
    with pytest.raises(ValueError, match="13 rows does not fit the 16 registers of avx2"):
        emit_block(np.ones((13, 2), np.int8), np.array([0, 2]), 64, AVX2)
