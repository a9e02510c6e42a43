"""A convolution with weights in signed binary digits, one ternary plane a digit, as machine code.

    total[m, p] = sum_d 2^(planes - 1 - d) (plane_d x)[m, p]

One stage: no middle, no second ternary product, one scale an output. Runs of neighbouring planes are joined in
registers, modulo 2^16, within segments of the inputs whose joint sums are sure to fit int16; the rest is joined in
int32 where the sums are read. Either each plane has its own segments, and as many planes are joined as fit them; or a
few planes are joined in any case, their inputs loaded once, in segments as short as that takes. Runs that need as many
segments are one product. An int8 convolution with the weights ``sum_d 2^(planes-1-d) plane_d`` gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_ffn.kernels import codes as ternary_codes
from tvm_ffn.kernels.builder import KernelBuilder
from tvm_ffn.kernels.code_tile import CodeTiledConv2d, block_diagonal, tile_for
from tvm_ffn.kernels.codes import column_bounds
from tvm_ffn.kernels.digit_lists import integer_weights
from tvm_ffn.kernels.epilogue import CONSTANT_BYTES, Epilogue
from tvm_ffn.kernels.geometry import ConvGeometry
from tvm_ffn.kernels.straight_line import VectorISA
from tvm_ffn.kernels.ternary_code import INT16_BYTES, CodeStyle, TernaryCode, expected_reads, segment_total
from tvm_ffn.kernels.tiled_conv2d import Sums, Tile
from tvm_ffn.kernels.work import Cost

# Additions that take as long as loading a vector, half of those across two lines, and as reading, writing and joining a
# vector of sums: between what was measured of 56x56 and 7x7 pixels on a Zen 3.
_LOAD, _SUM = 2.6, 24.0


@dataclass(frozen=True)
class _Runs:
    """Runs of neighbouring planes that are joined in registers, with their segments: as their sums, or as inputs that
    are loaded once."""

    runs: Mapping[range, tuple[int, ...]]
    shares_loads: bool

    def cost(self, whole: np.ndarray, rows: int) -> float:
        """What its (P, R, K) planes take in blocks of ``rows`` beside their digits, in additions a vector, estimated
        from the planes' densities."""
        cost, blocks = 0.0, -(-whole.shape[1] // rows)
        for run, bounds in self.runs.items():
            density = (whole[run.start : run.stop] != 0).mean((1, 2))
            loads, doublings = expected_reads(density, rows, shared=self.shares_loads)
            cost += blocks * whole.shape[2] * (_LOAD * loads + doublings) + _SUM * whole.shape[1] * (len(bounds) - 1)
        return cost


@dataclass(frozen=True, eq=False)
class _Stack:
    """Runs of neighbouring planes, each of which has a row of sums for every output, as one product: all runs of a part
    of the outputs below each other, then the next part's."""

    runs: Sequence[range]
    code: TernaryCode


@dataclass(frozen=True, eq=False)
class PlanesConv2d(CodeTiledConv2d):
    """Static description with the digits int8 (groups, planes, m, n), the highest first; ``limit`` bounds the input."""

    digits: np.ndarray
    limit: int

    @property
    def planes(self) -> int:
        return self.digits.shape[1]

    @property
    def outputs(self) -> int:
        return self.digits.shape[2]

    @property
    def sum_bytes(self) -> int:
        return sum(stack.code.sum_bytes for stack in self.stacks)

    @cached_property
    def stacks(self) -> tuple[_Stack, ...]:
        """All planes, the runs that need the same segments together, with as many planes a load as take least time."""
        whole = block_diagonal(self.digits)
        choices = [self._joined_sums(whole)]
        choices += [self._shared_loads(whole, planes) for planes in range(2, self.style.load_planes + 1)]
        best = min(choices, key=lambda choice: choice.cost(whole, self.isa.rows))
        alike: dict[tuple[int, ...], list[range]] = {}
        for run, bounds in best.runs.items():
            alike.setdefault(bounds, []).append(run)
        return tuple(self._stack(whole, runs, bounds, best.shares_loads) for bounds, runs in alike.items())

    def _stack(self, whole: np.ndarray, runs: list[range], bounds: tuple[int, ...], shares_loads: bool) -> _Stack:
        inputs, depth = whole.shape[2], max(map(len, runs))
        digits = np.zeros((depth, len(runs), *whole.shape[1:]), np.int8)
        for place, run in enumerate(runs):
            digits[depth - len(run) :, place] = whole[run.start : run.stop]
        parts = digits.reshape(depth, len(runs), self.split, self.rows, inputs).swapaxes(1, 2)
        rows, row_bytes = parts.reshape(depth, -1, inputs), self.tile * INT16_BYTES
        how = (self.isa, self.style, self.split, shares_loads)
        return _Stack(runs, TernaryCode(rows, bounds, self.offsets, row_bytes, *how))

    def _shared_loads(self, whole: np.ndarray, planes: int) -> _Runs:
        """Runs of about ``planes``, in the segments that they need."""
        parts = np.array_split(np.arange(self.planes), -(-self.planes // planes))
        runs = [range(part[0], part[-1] + 1) for part in parts]
        return _Runs(
            {run: column_bounds(integer_weights(whole[run.start : run.stop]), self.limit) for run in runs}, True
        )

    def _joined_sums(self, whole: np.ndarray) -> _Runs:
        """Runs of planes that fit int16 in the segments that each of them needs alone."""
        runs: list[range] = []
        own = [column_bounds(ternary, self.limit) for ternary in whole]
        for bounds in dict.fromkeys(own):
            start = len(runs)
            for plane in (plane for plane, needed in enumerate(own) if needed == bounds):
                if runs[start:] and plane == runs[-1].stop and self._fits(whole[runs[-1].start : plane + 1], bounds):
                    runs[-1] = range(runs[-1].start, plane + 1)
                else:
                    runs.append(range(plane, plane + 1))
        return _Runs({run: own[run.start] for run in runs}, False)

    def _fits(self, digits: np.ndarray, bounds: tuple[int, ...]) -> bool:
        weights = integer_weights(digits).astype(np.int64)
        sums = np.add.reduceat(np.abs(weights), bounds[:-1], axis=1)
        return int(sums.max(initial=0)) * self.limit <= ternary_codes.INT16_MAX

    def cost_of(self, pixels: int) -> Cost:
        """Counts of ``pixels`` pixels: the code's additions, and those that join the planes."""
        outputs = self.geometry.groups * self.outputs
        adds = self._sum("adds") + (sum(len(stack.runs) for stack in self.stacks) - 1) * outputs
        constants = CONSTANT_BYTES * outputs
        multiplies = outputs * self.epilogue.multiplies
        return Cost(pixels * adds, pixels * multiplies, 0, self._sum("code_bytes") + constants)

    def further_work(self, pixels: int) -> dict[str, int]:
        """Loads of all planes."""
        return {name: pixels * self._sum(name) for name in ("loads", "misses")}

    def _sum(self, count: str) -> int:
        return sum(getattr(stack.code, count) for stack in self.stacks)

    def arguments(self, b: KernelBuilder) -> list[Buffer]:
        """None."""
        return []

    def sums(self, b: KernelBuilder, arguments: list[Buffer], tile: Tile) -> Sums:
        """Blocks "code0", ..., one a stack; their runs are joined where the sum is read."""
        inputs = self.inputs_of(b, tile)
        products = [
            stack.code.product(b, f"code{index}", *inputs, self.tile, tile.part)
            for index, stack in enumerate(self.stacks)
        ]
        runs = [
            (run, stack.code.segments, product, place * self.rows)
            for stack, product in zip(self.stacks, products, strict=True)
            for place, run in enumerate(stack.runs)
        ]

        def total(m: Any, p: Any) -> Any:
            result = None
            for run, segments, product, row in sorted(runs, key=lambda item: item[0].start):
                own = segment_total(segments, lambda s, rows=product, first=row: rows[s, first + m, p])  # type: ignore[misc]
                result = own if result is None else T.shift_left(result, T.int32(len(run))) + own
            return result

        return total

    def sums_numpy(self, columns: np.ndarray, arguments: tuple[np.ndarray, ...]) -> np.ndarray:
        """NumPy reference of `sums`."""
        return integer_weights(self.digits).astype(np.int64) @ columns


def planes_conv2d(
    geometry: ConvGeometry,
    digits: np.ndarray,
    limit: int,
    epilogue: Epilogue,
    isa: VectorISA,
    style: CodeStyle,
    threads: int,
) -> PlanesConv2d:
    """The convolution with its tile, in parts for ``threads``; the code of a sparse digit is twice that of an entry of
    a dense factor."""
    whole = PlanesConv2d(geometry, epilogue, isa, style, tile_for(geometry, isa, style), digits, limit)
    return whole.in_parts(threads, len(digits) * digits.shape[2])
