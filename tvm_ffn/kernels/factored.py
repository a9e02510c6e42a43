"""The factorised product ``epilogue(X requantize(d * (Y^T v)))`` on a block of pixels, for convolutions and dense.

Stage one is the ternary product with Y^T, the middle is scaled by d and requantised to int16 with few significant bits,
stage two is the ternary product with X (a 1x1 convolution). A block of pixels passes all stages before the next starts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm.tirx import Buffer

from tvm_ffn.kernels import epilogue as ep
from tvm_ffn.kernels.builder import KernelBuilder
from tvm_ffn.kernels.codes import Segments
from tvm_ffn.kernels.epilogue import CONSTANT_BYTES, Epilogue
from tvm_ffn.kernels.epilogue_arguments import EpilogueArguments
from tvm_ffn.kernels.row_table import row_table_adds, row_table_sum, ternary_sum_numpy
from tvm_ffn.kernels.work import Cost


@dataclass(frozen=True)
class FactoredProduct:
    """Static description; ``inputs`` n, ``terms`` k and ``outputs`` m count one of ``groups`` groups."""

    groups: int
    inputs: int
    terms: int
    outputs: int
    middle_limit: int
    cut_y: Segments
    cut_x: Segments
    epilogue: Epilogue

    def arguments(self, b: KernelBuilder, out_shape: tuple[int, ...]) -> FactoredArguments:
        """Declare everything after the activation: codes of Y^T (groups, segments, chunks, k, words) uint32 or
        uint64, middle scale (groups, k) float32, codes of X, bias (groups, m) int32, scale (groups, m) float32,
        with a residual its int8 tensor and float32 scale (1,), and the output."""
        cy, cx = self.cut_y, self.cut_x
        return FactoredArguments(
            b.arg("codes_y", (self.groups, cy.segments, cy.chunks, self.terms, cy.words), f"uint{8 * cy.word_bytes}"),
            b.arg("middle_scale", (self.groups, self.terms), "float32"),
            b.arg("codes_x", (self.groups, cx.segments, cx.chunks, self.outputs, cx.words), f"uint{8 * cx.word_bytes}"),
            EpilogueArguments.declare(b, self.epilogue, (self.groups, self.outputs), out_shape),
        )

    def blocks(
        self,
        b: KernelBuilder,
        arguments: FactoredArguments,
        *,
        images: int,
        pixels: int,
        read: Callable[..., Any],
        copy: Callable[[Buffer], Buffer],
        place: Callable[..., tuple[Any, ...]],
    ) -> Buffer:
        """Add the blocks; ``read(n, j, k, p)`` is the int16 input, ``copy(residual)`` adds the residual's copy, where
        its item (n, j, m, p) lies at ``place(n, j, m, p)``. Returns the stored values (images, groups, m, pixels)."""
        a, outer = arguments, (images, self.groups)
        ends = a.ends.with_copied_residual(copy)
        first = row_table_sum(
            b, "y", a.codes_y, self.cut_y, inputs=self.inputs, rows=self.terms, outer=outer, pixels=pixels, value=read
        )
        middle = b.compute(
            "middle",
            (*outer, self.terms, pixels),
            "int16",
            lambda n, j, k, p: ep.requantize(first[n, j, k, p], a.middle_scale[j, k], self.middle_limit),
        )
        second = row_table_sum(
            b,
            "x",
            a.codes_x,
            self.cut_x,
            inputs=self.terms,
            rows=self.outputs,
            outer=outer,
            pixels=pixels,
            value=lambda n, j, k, p: middle[n, j, k, p],
        )

        def stored(n: Any, j: Any, m: Any, p: Any) -> Any:
            return ends.stored(second[n, j, m, p], (j, m), place(n, j, m, p))

        return b.compute("epilogue", (*outer, self.outputs, pixels), self.epilogue.out_dtype, stored)

    @property
    def adds(self) -> int:
        """Additions executed a pixel."""
        each = row_table_adds(self.cut_y, self.terms) + row_table_adds(self.cut_x, self.outputs)
        return self.groups * each

    @property
    def multiplies(self) -> int:
        """Multiplies executed a pixel, all of them requantisation."""
        return self.groups * (self.terms + self.outputs * self.epilogue.multiplies)

    @property
    def lookups(self) -> int:
        """Elements of table rows loaded a pixel."""
        return self.groups * (self.cut_y.steps * self.terms + self.cut_x.steps * self.outputs)

    @property
    def constant_bytes(self) -> int:
        """Bytes of all arguments but activations and residual scale."""
        codes = self.cut_y.row_bytes * self.terms + self.cut_x.row_bytes * self.outputs
        return self.groups * (codes + 4 * self.terms + CONSTANT_BYTES * self.outputs)

    def cost(self, pixels: int) -> Cost:
        """Counts of ``pixels`` pixels."""
        return Cost(pixels * self.adds, pixels * self.multiplies, pixels * self.lookups, self.constant_bytes)

    def reference(self, columns: np.ndarray, parameters: list[np.ndarray], residual: np.ndarray | None) -> np.ndarray:
        """NumPy oracle on columns (images, groups, inputs, pixels), parameters in argument order, and the residual
        (images, groups, m, pixels). Returns (images, groups, m, pixels)."""
        codes_y, middle_scale, codes_x, bias, scale = parameters[:5]
        out = np.empty((*columns.shape[:2], self.outputs, columns.shape[3]), self.epilogue.out_dtype)
        for n in range(columns.shape[0]):
            for j in range(self.groups):
                first = ternary_sum_numpy(codes_y[j], self.cut_y, columns[n, j])
                middle = ep.requantize_numpy(first, middle_scale[j][:, None], self.middle_limit)
                second = ternary_sum_numpy(codes_x[j], self.cut_x, middle)
                extra = (residual[n, j], parameters[5]) if residual is not None else None
                out[n, j] = ep.apply_numpy(self.epilogue, second, bias[j][:, None], scale[j][:, None], extra)
        return out


@dataclass(frozen=True)
class FactoredArguments:
    """The function arguments declared by `FactoredProduct.arguments`."""

    codes_y: Buffer
    middle_scale: Buffer
    codes_x: Buffer
    ends: EpilogueArguments
