"""A convolution with weights in signed binary digits, one ternary plane a digit, as machine code.

    total[m, p] = sum_d 2^(planes - 1 - d) (plane_d x)[m, p]

One stage: no middle, no second ternary product, one scale an output. The planes' sums are int16 rows of the same code
blocks. Runs of planes are joined in int16, modulo 2^16, where the run's sum is sure to fit, and the runs in int32. An
int8 convolution with the weights ``sum_d 2^(planes-1-d) plane_d`` gives the same numbers.
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
from tvm_ffn.kernels.digit_lists import PLANES_A_RUN, integer_weights, plane_runs
from tvm_ffn.kernels.epilogue import CONSTANT_BYTES, Epilogue
from tvm_ffn.kernels.geometry import ConvGeometry
from tvm_ffn.kernels.split import output_parts
from tvm_ffn.kernels.straight_line import VectorISA
from tvm_ffn.kernels.ternary_code import INT16_BYTES, CodeStyle, TernaryCode, segment_total
from tvm_ffn.kernels.tiled_conv2d import Sums, Tile
from tvm_ffn.kernels.work import Cost


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
    def code(self) -> TernaryCode:
        """All planes of a part below each other, then the next part's."""
        whole = block_diagonal(self.digits)
        inputs = whole.shape[2]
        flat = whole.reshape(self.planes, self.split, -1, inputs).transpose(1, 0, 2, 3).reshape(-1, inputs)
        return TernaryCode(
            flat,
            column_bounds(flat, self.limit),
            self.offsets,
            self.tile * INT16_BYTES,
            self.isa,
            self.style,
            self.split,
        )

    @cached_property
    def runs(self) -> tuple[range, ...]:
        """The planes that are joined in int16: as many as fit between the bounds of the code."""
        possible = (plane_runs(self.planes, most) for most in range(PLANES_A_RUN, 0, -1))
        return next(runs for runs in possible if self._fit(runs))

    def _fit(self, runs: Sequence[range]) -> bool:
        """Whether no run's sum overflows within a segment; single planes never do (`column_bounds`)."""
        starts = self.code.bounds[:-1]
        for run in runs:
            weights = block_diagonal(integer_weights(self.digits[:, run.start : run.stop]))
            sums = np.add.reduceat(np.abs(weights.astype(np.int64)), starts, axis=1)
            if sums.max(initial=0) * self.limit > ternary_codes.INT16_MAX:
                return False
        return True

    def cost_of(self, pixels: int) -> Cost:
        """Counts of ``pixels`` pixels: the code's additions, and those that join the planes."""
        outputs = self.geometry.groups * self.outputs
        adds = self.code.adds + (self.planes - 1) * outputs
        constants = CONSTANT_BYTES * outputs
        multiplies = outputs * self.epilogue.multiplies
        return Cost(pixels * adds, pixels * multiplies, 0, self.code.code_bytes + constants)

    def further_work(self, pixels: int) -> dict[str, int]:
        """Loads of all planes."""
        return {"loads": pixels * self.code.loads, "misses": pixels * self.code.misses}

    def arguments(self, b: KernelBuilder) -> list[Buffer]:
        """None."""
        return []

    def sums(self, b: KernelBuilder, arguments: list[Buffer], tile: Tile) -> Sums:
        """Block "y_code"; the planes are joined where the sum is read."""
        planes = self.code.product(b, "y_code", *self.inputs_of(b, tile), self.tile, tile.part)

        def joined(run: range, segment: int, m: Any, p: Any) -> Any:
            result = planes[segment, run.start * self.rows + m, p]
            for plane in run[1:]:
                result = T.shift_left(result, T.int16(1)) + planes[segment, plane * self.rows + m, p]
            return result

        def total(m: Any, p: Any) -> Any:
            result = T.int32(0)
            for run in self.runs:
                own = segment_total(self.code.segments, lambda s, run=run: joined(run, s, m, p))  # type: ignore[misc]
                result = own if run.start == 0 else T.shift_left(result, T.int32(len(run))) + own
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
