"""Ternary weights as straight-line vector code (the ``code`` family): zeros emit nothing, no index is ever read.

A block keeps the int16 sums of up to ``rows`` outputs in registers and runs through its inputs in matched pairs: load
a and b, form a + b and a - b where two rows want them, then every row adds or subtracts one of a, b, a + b, a - b.
It comes in pieces of a length that suits instruction caches; `code_program` strings them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tvm_ffn.kernels.pairing import match_pairs

PIECE = 1400  # instructions: long enough to pay for reading and writing 28 sums, short enough for any instruction cache
_TEMPORARIES = 4


@dataclass(frozen=True)
class VectorISA:
    """Instructions for int16 lanes, AT&T syntax; %rdi points to the input, %rsi to the output."""

    name: str
    vector_bytes: int
    registers: int
    prefix: str
    move: str
    zero: str

    @property
    def lanes(self) -> int:
        return self.vector_bytes // 2

    @property
    def rows(self) -> int:
        """Outputs of a block: all registers but four."""
        return self.registers - _TEMPORARIES

    def register(self, index: int) -> str:
        return f"%{self.prefix}{index}"

    @property
    def sums(self) -> list[str]:
        """Registers of the rows' sums. The first four are left for inputs: AVX2 encodes them shorter as operands."""
        return [self.register(index) for index in range(_TEMPORARIES, self.registers)]

    @property
    def clobbers(self) -> str:
        registers = ",".join(f"~{{xmm{i}}}" for i in range(self.registers))
        return f"{registers},~{{memory}},~{{dirflag}},~{{fpsr}},~{{flags}}"


AVX512 = VectorISA("avx512", 64, 32, "zmm", "vmovdqu64", "vpxord")
AVX2 = VectorISA("avx2", 32, 16, "ymm", "vmovdqu", "vpxor")
ISAS = {isa.name: isa for isa in (AVX512, AVX2)}


@dataclass(frozen=True)
class Piece:
    """Instructions that add some inputs to the sums of ``rows`` outputs, for one vector; the sums lie ``target`` bytes
    into the output and start at zero in the first piece of a block. Counts are of vector additions and loads."""

    lines: Sequence[str]
    rows: int
    target: int
    is_first: bool
    adds: int
    loads: int


def emit_block(ternary: np.ndarray, offsets: np.ndarray, target: int, isa: VectorISA, window: int) -> list[Piece]:
    """Code of a (R, K) ternary block, R <= ``isa.rows``: input k lies at ``offsets[k]`` bytes, pairs lie within
    ``window``."""
    rows, columns = ternary.shape
    if rows > isa.rows:
        raise ValueError(f"a block of {rows} rows does not fit the {isa.registers} registers of {isa.name}")
    mates = match_pairs(ternary, window).tolist()
    weights = ternary.T.tolist()
    places = offsets.tolist()
    pieces: list[Piece] = []
    emitter = _Emitter(isa)
    for first in range(columns):
        second = mates[first]
        if second < 0:
            emitter.single(weights[first], places[first])
        elif second > first:
            emitter.pair(weights[first], weights[second], places[first], places[second])
        if len(emitter.lines) >= PIECE or first == columns - 1:
            pieces.append(Piece(emitter.lines, rows, target, not pieces, emitter.adds, emitter.loads))
            emitter = _Emitter(isa)
    return pieces


class _Emitter:
    def __init__(self, isa: VectorISA) -> None:
        self.isa = isa
        self.names = isa.sums
        self.a, self.b, self.sum, self.difference = (isa.register(index) for index in range(_TEMPORARIES))
        self.lines: list[str] = []
        self.adds = self.loads = 0

    def single(self, weights: list[int], place: int) -> None:
        """One input on its own; a lone row adds it from memory."""
        users = [row for row, weight in enumerate(weights) if weight]
        if not users:
            return
        self.loads += 1
        if len(users) == 1:
            self._update(users[0], weights[users[0]], f"{place}(%rdi)")
            return
        self._load(self.a, place)
        for row in users:
            self._update(row, weights[row], self.a)

    def pair(self, first: list[int], second: list[int], place_a: int, place_b: int) -> None:
        """Two inputs with their shared sum and difference."""
        same = sum(1 for p, q in zip(first, second, strict=True) if p * q > 0)
        opposite = sum(1 for p, q in zip(first, second, strict=True) if p * q < 0)
        self.loads += 2
        self._load(self.a, place_a)
        self._load(self.b, place_b)
        if same > 1:
            self._operation("vpaddw", self.b, self.a, self.sum)
        if opposite > 1:
            self._operation("vpsubw", self.b, self.a, self.difference)
        for row, (p, q) in enumerate(zip(first, second, strict=True)):
            if p * q > 0 and same > 1:
                self._update(row, p, self.sum)
            elif p * q < 0 and opposite > 1:
                self._update(row, p, self.difference)
            else:
                if p:
                    self._update(row, p, self.a)
                if q:
                    self._update(row, q, self.b)

    def _load(self, register: str, place: int) -> None:
        self.lines.append(f"{self.isa.move} {place}(%rdi),{register}")

    def _update(self, row: int, weight: int, source: str) -> None:
        register = self.names[row]
        self._operation("vpaddw" if weight > 0 else "vpsubw", source, register, register)

    def _operation(self, name: str, source: str, left: str, target: str) -> None:
        self.adds += 1
        self.lines.append(f"{name} {source},{left},{target}")
