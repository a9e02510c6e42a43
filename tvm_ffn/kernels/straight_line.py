"""Ternary weights as straight-line vector code (the ``code`` family): zeros emit nothing, no index is ever read.

A piece keeps the int16 sums of up to ``rows`` outputs in registers and runs through some inputs in matched pairs: load
a and b, form a + b where two rows want it, and a - b after it in the same register, and every row adds or subtracts one
of a, b, a + b, a - b. Weights of several digits are added up plane by plane, the highest first; before the next plane
the sums are doubled (Horner's rule), modulo 2^16.
`ternary_code` cuts a matrix into pieces, `code_program` strings them together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np

from tvm_ffn.kernels.pairing import match_pairs

_TEMPORARIES = 3
PAIR_OF_ZEROS = 4  # the state of two weights of zero, in base 3


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
        """Outputs of a piece: all registers but three."""
        return self.registers - _TEMPORARIES

    def register(self, index: int) -> str:
        return f"%{self.prefix}{index}"

    @property
    def sums(self) -> list[str]:
        """Registers of the rows' sums. The first are left for inputs: AVX2 encodes them shorter as operands."""
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
    into the output. In the first of the pieces that add to them they start at zero; in the others at what is there, or
    where the piece ``doubles`` them, that is added in the end. Counts are of vector additions and loads."""

    lines: Sequence[str]
    rows: int
    target: int
    is_first: bool
    doubles: bool
    adds: int
    loads: int


def emit_piece(
    digits: np.ndarray,
    offsets: np.ndarray,
    target: int,
    isa: VectorISA,
    window: int,
    *,
    is_first: bool,
    doubles_inputs: bool = False,
) -> Piece:
    """Code of ternary (P, R, K) planes, the highest first, R <= ``isa.rows``: input k lies at ``offsets[k]`` bytes,
    pairs lie within ``window``; the inputs are doubled between planes, or the sums."""
    rows = digits.shape[1]
    if rows > isa.rows:
        raise ValueError(f"a piece of {rows} rows does not fit the {isa.registers} registers of {isa.name}")
    emitter = _Emitter(isa)
    if doubles_inputs:
        _emit_planes(emitter, digits[::-1], offsets, window)
        return Piece(emitter.lines, rows, target, is_first, False, emitter.adds, emitter.loads)
    doubled = _doubled(digits)
    for ternary, held in zip(digits, doubled, strict=True):
        emitter.double(isa.sums[row] for row in np.flatnonzero(held))
        _emit_planes(emitter, ternary[None], offsets, window)
    return Piece(emitter.lines, rows, target, is_first, bool(doubled.any()), emitter.adds, emitter.loads)


def _doubled(digits: np.ndarray) -> np.ndarray:
    """Rows that hold something before each plane, (P, R)."""
    used = np.logical_or.accumulate((digits != 0).any(2))
    return np.concatenate([np.zeros_like(used[:1]), used[:-1]])


def _emit_planes(emitter: _Emitter, digits: np.ndarray, offsets: np.ndarray, window: int) -> None:
    """All of (P, R, K) ``digits``, the lowest first, on inputs that are loaded once."""
    mates = match_pairs(digits, window)
    seconds = digits[:, :, mates] * (mates >= 0)
    products = digits * seconds
    same, opposite = ((products > 0).sum(1) > 1).tolist(), ((products < 0).sum(1) > 1).tolist()
    states = np.where((mates < 0) | (mates > np.arange(len(mates))), 3 * digits + seconds, 0)
    inputs, planes, rows = np.nonzero(states.transpose(2, 0, 1))
    texts = (9 * rows + states[planes, rows, inputs] + PAIR_OF_ZEROS).tolist()
    used, starts = np.unique(inputs * len(digits) + planes, return_index=True)
    places, partners, tops = offsets.tolist(), mates.tolist(), _tops(digits).tolist()
    loaded, done = -1, 0
    for index, (start, end) in zip(used.tolist(), pairwise([*starts.tolist(), len(texts)]), strict=True):
        first, plane = divmod(index, len(digits))
        second = partners[first]
        inputs_of_pair = (first,) if second < 0 else (first, second)
        if first != loaded:
            if second < 0 and tops[first] == 0 and end - start == 1:
                emitter.add_from_memory(texts[start], places[first])
                continue
            emitter.load(places[k] for k in inputs_of_pair)
            loaded, done = first, 0
        for level in range(done + 1, plane + 1):
            emitter.double(r for r, k in zip(emitter.inputs, inputs_of_pair, strict=False) if tops[k] >= level)
        done = plane
        emitter.add(texts[start:end], same=same[plane][first], opposite=opposite[plane][first])


def _tops(digits: np.ndarray) -> np.ndarray:
    """The highest plane that uses each input, of (P, R, K) with the lowest first; 0 where none does."""
    return np.max((digits != 0).any(1) * np.arange(len(digits))[:, None], axis=0)


@dataclass(frozen=True)
class PieceCounts:
    """Rows of a piece of code, whether it doubles them, and its additions and loads for one vector."""

    rows: int
    doubles: bool
    adds: int
    loads: int


def piece_counts(digits: np.ndarray, window: int, *, doubles_inputs: bool = False) -> PieceCounts:
    """What `emit_piece` would make, without making it."""
    rows = digits.shape[1]
    if doubles_inputs:
        adds, loads = _counts_of_planes(digits[::-1], window)
        return PieceCounts(rows, False, adds, loads)
    doubled = int(_doubled(digits).sum())
    counts = [_counts_of_planes(ternary[None], window) for ternary in digits]
    return PieceCounts(rows, doubled > 0, doubled + sum(adds for adds, _ in counts), sum(loads for _, loads in counts))


def _counts_of_planes(digits: np.ndarray, window: int) -> tuple[int, int]:
    """Additions and loads of `_emit_planes`."""
    mates = match_pairs(digits, window)
    users = np.count_nonzero(digits, axis=(0, 1))
    products = digits * digits[:, :, mates]
    saved = sum(np.maximum((products * sign > 0).sum(1) - 1, 0).sum(0) for sign in (1, -1))
    adds = users.sum() - saved[mates > np.arange(len(mates))].sum() + _tops(digits).sum()
    return int(adds), int(np.count_nonzero(users))


_BOTH, _DIFFERENCE, _ALONE = range(3)  # what of a pair an instruction of a row reads


_Texts = Sequence[tuple[int, Sequence[str]]]


@cache
def _texts(isa: VectorISA) -> Mapping[tuple[bool, bool], _Texts]:
    """Instructions that are the same in every piece of an ISA: ``[same, opposite][9 * row + 3 * first + second +
    PAIR_OF_ZEROS]`` adds two inputs, whose sum or difference may be there (or the first alone): what of them is read,
    and the instructions."""
    a, b, joined = (isa.register(index) for index in range(_TEMPORARIES))

    def update(register: str, weight: int, source: str) -> str:
        return f"{'vpaddw' if weight > 0 else 'vpsubw'} {source},{register},{register}"

    def updates(register: str, p: int, q: int, same: bool, opposite: bool) -> tuple[int, list[str]]:
        if p * q > 0 and same:
            return _BOTH, [update(register, p, joined)]
        if p * q < 0 and opposite:
            return _DIFFERENCE, [update(register, p, joined)]
        return _ALONE, [update(register, weight, source) for weight, source in ((p, a), (q, b)) if weight]

    weights, choices = (-1, 0, 1), (False, True)
    return {
        (same, opposite): [
            updates(register, p, q, same, opposite) for register in isa.sums for p in weights for q in weights
        ]
        for same in choices
        for opposite in choices
    }


class _Emitter:
    def __init__(self, isa: VectorISA) -> None:
        self.isa = isa
        self.texts = _texts(isa)
        self.inputs = [isa.register(index) for index in range(_TEMPORARIES - 1)]
        self.joined = isa.register(_TEMPORARIES - 1)
        self.lines: list[str] = []
        self.adds = self.loads = 0

    def double(self, registers: Iterable[str]) -> None:
        """What is in the registers."""
        lines = [f"vpaddw {register},{register},{register}" for register in registers]
        self.lines += lines
        self.adds += len(lines)

    def load(self, places: Iterable[int]) -> None:
        """One input or two."""
        lines = [f"{self.isa.move} {place}(%rdi),{r}" for place, r in zip(places, self.inputs, strict=False)]
        self.lines += lines
        self.loads += len(lines)

    def add_from_memory(self, text: int, place: int) -> None:
        """An input that a lone row uses."""
        (line,) = self.texts[False, False][text][1]
        self.lines.append(line.replace(self.inputs[0], f"{place}(%rdi)", 1))
        self.loads += 1
        self.adds += 1

    def add(self, texts: list[int], *, same: bool, opposite: bool) -> None:
        """The loaded inputs to all rows that use them, with their sum and difference where rows share them."""
        before = len(self.lines)
        a, b = self.inputs
        rows: tuple[list[str], list[str], list[str]] = ([], [], [])
        known = self.texts[same, opposite]
        for text in texts:
            reads, lines = known[text]
            rows[reads].extend(lines)
        if same:
            self.lines.append(f"vpaddw {b},{a},{self.joined}")
            self.lines += rows[_BOTH]
        if opposite:
            self.lines.append(f"vpsubw {b},{a},{self.joined}")
            self.lines += rows[_DIFFERENCE]
        self.lines += rows[_ALONE]
        self.adds += len(self.lines) - before
