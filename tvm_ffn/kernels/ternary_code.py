"""A product with ternary planes as pieces of straight-line code, and where its inputs lie.

Pieces are blocks of rows by runs of inputs. In a 1x1 kernel, whose inputs lie on lines of their own, all blocks of a
run come in turn: a run's inputs and all sums of a tile are less than all inputs, and what is read again comes from a
nearer cache (1024 inputs .82, 512 .90 of the time that blocks outermost take, on a Zen 3). Where taps share lines, all
runs of a block do: sums are most of what is read, and stay in L1 (1.0 on a Zen 3).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise
from typing import Any

import numpy as np
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_ffn.kernels.builder import KernelBuilder
from tvm_ffn.kernels.code_program import counted_bytes, llvm_function, program
from tvm_ffn.kernels.geometry import ConvGeometry
from tvm_ffn.kernels.straight_line import Piece, PieceCounts, VectorISA, emit_piece, piece_counts

INT16_BYTES = 2
LINE_BYTES = 64
L1_BYTES = 32 << 10  # what all x86-64 processors of the last ten years have at least
RUN_BYTES = 24 << 10  # of inputs that stay in L1
LOAD_CYCLES, SUM_CYCLES = 0.6, 1.6  # of a vector from L2 instead of L1, of one read from and written to L2
ADD_CYCLES = 0.5


@dataclass(frozen=True)
class CodeStyle:
    """How code is cut: a piece runs over about ``vectors`` of pixels (long enough to pay for fetching it, short enough
    for the sums to stay in the caches), has at most ``rows`` outputs (0: as many as the registers hold) and about
    ``length`` instructions for each row that the registers hold (long enough to pay for reading and writing the sums,
    short enough for instruction caches); inputs are paired within a ``window``; so many planes of digits share what is
    loaded, at most (``load_planes``, 1: every plane loads its own inputs). Outputs of a tile that is the whole image
    are cut into parts of at most ``sums_kb`` of sums (0: they are not)."""

    vectors: int = 24
    rows: int = 0
    window: int = 256
    length: int = 100
    load_planes: int = 1
    sums_kb: int = 0


@dataclass(frozen=True, eq=False)
class _Rectangle:
    """Rows of a block by a run of ``inputs``; the sums start ``target`` bytes into the output."""

    digits: np.ndarray
    inputs: slice
    target: int
    is_first: bool


@dataclass(frozen=True, eq=False)
class TernaryCode:
    """The product with ternary ``digits`` (P, R, K), planes of weights with the highest first, as pieces of code;
    ``bounds`` cuts the inputs into segments whose int16 sums cannot overflow, input k lies at ``offsets[k]`` bytes, a
    row of sums is ``row_bytes`` long. Each of the ``parts`` has as many rows and is a program of its own.
    ``doubles_inputs``: between planes, instead of the sums."""

    digits: np.ndarray
    bounds: tuple[int, ...]
    offsets: np.ndarray
    row_bytes: int
    isa: VectorISA
    style: CodeStyle
    parts: int = 1
    doubles_inputs: bool = False

    @property
    def segments(self) -> int:
        return len(self.bounds) - 1

    @property
    def rows(self) -> int:
        """Rows of a part."""
        return self.digits.shape[1] // self.parts

    @property
    def sum_bytes(self) -> int:
        """Of a part's sums."""
        return self.segments * self.rows * self.row_bytes

    @cached_property
    def programs(self) -> list[list[Piece]]:
        """The code of each part in order."""

        def piece(r: _Rectangle) -> Piece:
            how = {"is_first": r.is_first, "doubles_inputs": self.doubles_inputs}
            return emit_piece(r.digits, self.offsets[r.inputs], r.target, self.isa, self.style.window, **how)

        return [list(map(piece, pieces)) for pieces in self._pieces]

    @cached_property
    def _pieces(self) -> list[list[_Rectangle]]:
        """Pieces of each part: segments outermost."""
        order = [
            (segment, run, row)
            for segment, (start, end) in enumerate(pairwise(self.bounds))
            for run, row in self._order(self._runs(start, end))
        ]

        def cut(first: int) -> list[_Rectangle]:
            return [
                _Rectangle(
                    self.digits[:, first + row : first + min(row + self.rows_a_block, self.rows), run.start : run.stop],
                    slice(run.start, run.stop),
                    (segment * self.rows + row) * self.row_bytes,
                    run.start == self.bounds[segment],
                )
                for segment, run, row in order
            ]

        return [cut(part * self.rows) for part in range(self.parts)]

    def _order(self, runs: list[range]) -> list[tuple[range, int]]:
        """Every run with the first row of every block."""
        rows = range(0, self.rows, self.rows_a_block)
        if self._shares_lines:
            return [(run, row) for row in rows for run in runs]
        return [(run, row) for run in runs for row in rows]

    def _runs(self, start: int, end: int) -> list[range]:
        """Equal runs of inputs whose pieces have the style's length: an input's load, and additions of which pairs
        save some; or as many inputs as stay in L1 for one vector; or shorter ones whose inputs stay there for all
        blocks, where those loads outweigh the sums that each run reads and writes (1x1 convolutions, signed digits most
        of all: 1024->256@14 .57 of the time)."""
        inputs, rows = end - start, self.rows_a_block
        density = np.count_nonzero(self.digits[:, :, start:end], axis=(1, 2)) / (self.digits.shape[1] * inputs)
        loads, doublings = (inputs * count for count in expected_reads(density, rows, shared=self.doubles_inputs))
        users = inputs * rows * density.sum() + doublings
        runs = max(1, round((loads + 0.9 * users) / (self.style.length * self.isa.rows)))
        runs = max(runs, round(inputs * self.isa.vector_bytes / RUN_BYTES))
        if not self._shares_lines and inputs * self.row_bytes > L1_BYTES:
            small = -(-inputs * self.row_bytes // RUN_BYTES)
            doubled = 0.0 if self.doubles_inputs else ADD_CYCLES * (len(self.digits) - 1)
            if loads * LOAD_CYCLES > (small - runs) * rows * (SUM_CYCLES + doubled):
                runs = max(runs, small)
        size = -(-inputs // runs)
        return [range(first, min(first + size, end)) for first in range(start, end, size)]

    @cached_property
    def _lines(self) -> int:
        """Lines that one pixel's inputs lie on."""
        return len(np.unique(self.offsets // LINE_BYTES))

    @property
    def _shares_lines(self) -> bool:
        """Whether inputs do, as the taps of a 3x3 kernel and not the channels of a 1x1."""
        return self._lines < len(self.offsets)

    @property
    def rows_a_block(self) -> int:
        """Rows of a block: as even as the registers allow."""
        most = min(self.style.rows, self.isa.rows) or self.isa.rows
        return -(-self.rows // -(-self.rows // most))

    @cached_property
    def _counts(self) -> list[PieceCounts]:
        window, doubles = self.style.window, self.doubles_inputs
        pieces = chain.from_iterable(self._pieces)
        return [piece_counts(piece.digits, window, doubles_inputs=doubles) for piece in pieces]

    @property
    def adds(self) -> int:
        """Additions executed a pixel: those of the pieces, and of the sums before to a piece that doubles its own."""
        pieces = chain.from_iterable(self._pieces)
        return sum(
            counts.adds + counts.rows * (counts.doubles and not piece.is_first)
            for piece, counts in zip(pieces, self._counts, strict=True)
        )

    @property
    def loads(self) -> int:
        """Inputs loaded a pixel: each once in every block of rows that uses it."""
        return sum(piece.loads for piece in self._counts)

    @property
    def misses(self) -> int:
        """Inputs that come from L2 a pixel, if L1 does not hold their lines: one a line and run of inputs, whose other
        blocks find them in L1."""
        return self._lines if self._lines * LINE_BYTES > L1_BYTES else 0

    @property
    def code_bytes(self) -> int:
        """Estimate of the machine code."""
        return sum(counted_bytes(piece, self.isa) for piece in self._counts)

    @cached_property
    def name(self) -> str:
        """Function name; the digest of what it computes keeps the kernels of a module apart."""
        digest = hashlib.sha256(
            repr(
                (
                    self.digits.shape,
                    self.offsets.tolist(),
                    self.bounds,
                    self.row_bytes,
                    self.isa.name,
                    self.style,
                    self.parts,
                    self.doubles_inputs,
                )
            ).encode()
        )
        digest.update(self.digits.tobytes())
        return f"ffn_code_{digest.hexdigest()[:16]}"

    def llvm(self) -> str:
        """The code as an LLVM module."""
        return llvm_function(self.name, [program(part, self.row_bytes, self.isa) for part in self.programs], self.isa)

    def product(self, b: KernelBuilder, name: str, reads: Any, source: Any, tile: int, part: Any) -> Buffer:
        """Add a block: int16 sums (segments, rows, ``tile``) of one ``part``, of the pixels whose first input is
        ``source``; ``reads`` is the region of all inputs."""

        def calls(total: Buffer) -> None:
            places = T.address_of(source), T.address_of(total[0, 0, 0])
            T.evaluate(T.call_extern("int32", self.name, *places, T.Cast("int32", part)))

        shape = (self.segments, self.rows, tile)
        return b.call_assembly(name, shape, "int16", self.llvm(), reads=reads, calls=calls)


def expected_reads(density: np.ndarray, rows: int, *, shared: bool) -> tuple[float, float]:
    """Loads and doublings of an input for ``rows``, whose planes (P,), the highest first, use it as often as their
    ``density`` says: ``shared`` loads and the input doubled, or a load for each plane and no doubling."""
    unused = (1 - density) ** rows
    if shared:
        return float(1 - unused.prod()), float((1 - unused.cumprod()[:-1]).sum())
    return float((1 - unused).sum()), 0.0


def plane_offsets(geometry: ConvGeometry, pixels: int, span: int) -> np.ndarray:
    """Byte offset of each input of a convolution, all groups' in turn, from the first pixel of a tile, in int16 planes
    for ``pixels``, ``span`` elements a channel."""
    k = np.arange(geometry.groups * geometry.inputs)
    rows, columns = np.divmod(k % geometry.taps, geometry.kernel[1])
    places = [geometry.tap_offset(int(dy), int(dx), pixels) for dy, dx in zip(rows, columns, strict=True)]
    return (k // geometry.taps * span + np.array(places)) * INT16_BYTES


def segment_total(segments: int, item: Callable[[int], Any]) -> Any:
    """int32 sum of an int16 ``item`` over the segments."""
    total = T.Cast("int32", item(0))
    for segment in range(1, segments):
        total = total + T.Cast("int32", item(segment))
    return total
