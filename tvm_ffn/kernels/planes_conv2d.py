"""A convolution with weights in signed binary digits, one ternary plane a digit, as machine code.

    total[m, p] = sum_d 2^(planes - 1 - d) (plane_d x)[m, p]

One stage: no middle, no second ternary product, one scale an output. Neighbouring planes are joined in registers,
modulo 2^16, where their joint sum is sure to fit int16; the rest is joined in int32 where the sums are read. Planes
whose digits are rare need fewer segments than dense ones: those that need as many are one product. An int8 convolution
with the weights ``sum_d 2^(planes-1-d) plane_d`` gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from tvm_ffn.kernels.split import output_parts
from tvm_ffn.kernels.straight_line import VectorISA
from tvm_ffn.kernels.ternary_code import INT16_BYTES, CodeStyle, TernaryCode, segment_total
from tvm_ffn.kernels.tiled_conv2d import Sums, Tile
from tvm_ffn.kernels.work import Cost


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

    @cached_property
    def stacks(self) -> tuple[_Stack, ...]:
        """All planes, those that need the same segments together."""
        whole = block_diagonal(self.digits)
        alike: dict[tuple[int, ...], list[int]] = {}
        for plane, ternary in enumerate(whole):
            alike.setdefault(column_bounds(ternary, self.limit), []).append(plane)
        return tuple(self._stack(whole, planes, bounds) for bounds, planes in alike.items())

    def _stack(self, whole: np.ndarray, planes: list[int], bounds: tuple[int, ...]) -> _Stack:
        inputs, runs = whole.shape[2], self._runs(planes, bounds)
        depth = max(map(len, runs))
        digits = np.zeros((depth, len(runs), *whole.shape[1:]), np.int8)
        for place, run in enumerate(runs):
            digits[depth - len(run) :, place] = whole[run.start : run.stop]
        parts = digits.reshape(depth, len(runs), self.split, self.rows, inputs).swapaxes(1, 2)
        rows, row_bytes = parts.reshape(depth, -1, inputs), self.tile * INT16_BYTES
        return _Stack(runs, TernaryCode(rows, bounds, self.offsets, row_bytes, self.isa, self.style, self.split))

    def _runs(self, planes: list[int], bounds: tuple[int, ...]) -> list[range]:
        """As many neighbours of the ``planes`` to a run as fit int16 between the bounds."""
        runs: list[range] = []
        for plane in planes:
            if runs and plane == runs[-1].stop and self._fits(longer := range(runs[-1].start, plane + 1), bounds):
                runs[-1] = longer
            else:
                runs.append(range(plane, plane + 1))
        return runs

    def _fits(self, run: range, bounds: tuple[int, ...]) -> bool:
        weights = block_diagonal(integer_weights(self.digits[:, run.start : run.stop])).astype(np.int64)
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
    """The convolution with its tile, and parts that keep ``threads`` busy; a sparse digit's code is twice that of an
    entry of a dense factor."""
    tile = tile_for(geometry, isa, style)
    split = output_parts(geometry.batch * geometry.blocks(tile), threads, len(digits) * digits.shape[2])
    return PlanesConv2d(geometry, epilogue, isa, style, tile, split, digits, limit)
