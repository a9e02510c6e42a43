"""The factorised product ``epilogue(X requantize(d * (Y^T v)))`` on a block of pixels, for convolutions and dense.

Stage one is the ternary product with Y^T, the middle is scaled by d and requantised to int16 with few significant bits,
stage two is the ternary product with X (a 1x1 convolution). A block of pixels passes all stages before the next starts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from tvm.tirx import Buffer

from tvm_ffn.kernels import epilogue as ep
from tvm_ffn.kernels.builder import KernelBuilder
from tvm_ffn.kernels.codes import Segments, pack_groups
from tvm_ffn.kernels.epilogue import CONSTANT_BYTES, Epilogue
from tvm_ffn.kernels.epilogue_arguments import EpilogueArguments
from tvm_ffn.kernels.row_table import row_table_adds, row_table_sum, ternary_sum_numpy
from tvm_ffn.kernels.work import Cost


@dataclass(frozen=True)
class FactoredProduct:
    """Static description; ``inputs`` n, ``terms`` k and ``outputs`` m count one of ``groups`` groups. ``split`` parts
    of the terms and then of the outputs are computed apart, where blocks of pixels are few (`split.output_parts`)."""

    groups: int
    inputs: int
    terms: int
    outputs: int
    split: int
    middle_limit: int
    cut_y: Segments
    cut_x: Segments
    epilogue: Epilogue

    @property
    def parts(self) -> int:
        """Parts of all groups."""
        return self.groups * self.split

    def pack(self, ternary: np.ndarray, cut: Segments) -> np.ndarray:
        """Codes (parts, segments, chunks, rows, words) of one stage's matrices int8 (groups, rows, columns)."""
        return np.stack([pack_groups(part, cut) for part in ternary.reshape(self.parts, -1, ternary.shape[2])])

    def arguments(self, b: KernelBuilder, out_shape: tuple[int, ...]) -> FactoredArguments:
        """Declare everything after the activation: codes of Y^T (parts, segments, chunks, k / split, words) uint32 or
        uint64, middle scale (groups, k) float32, codes of X, bias (groups, m) int32, scale (groups, m) float32,
        with a residual its int8 tensor and float32 scale (1,), and the output."""

        def codes(name: str, cut: Segments, rows: int) -> Buffer:
            shape = (self.parts, cut.segments, cut.chunks, rows // self.split, cut.words)
            return b.arg(name, shape, f"uint{8 * cut.word_bytes}")

        return FactoredArguments(
            codes("codes_y", self.cut_y, self.terms),
            b.arg("middle_scale", (self.groups, self.terms), "float32"),
            codes("codes_x", self.cut_x, self.outputs),
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
        """Add the blocks; ``read(n, j, k, p)`` is the int16 input of group j, ``copy(residual)`` adds the residual's
        copy, where its item of channel m lies at ``place(n, m, p)``. Returns the stored values (images, parts, rows,
        pixels), ``rows`` being the outputs of a part."""
        a, outer, split = arguments, (images, self.parts), self.split
        terms, outputs = self.terms // split, self.outputs // split
        ends = a.ends.with_copied_residual(copy)
        product = partial(row_table_sum, b, outer=outer, pixels=pixels)

        def input_of(n: Any, j: Any, k: Any, p: Any) -> Any:
            return read(n, j // split, k, p)

        first = product("y", a.codes_y, self.cut_y, inputs=self.inputs, rows=terms, value=input_of)

        def requantized(n: Any, j: Any, k: Any, p: Any) -> Any:
            scale = a.middle_scale[j // split, j % split * terms + k]
            return ep.requantize(first[n, j, k, p], scale, self.middle_limit)

        middle = b.compute("middle", (*outer, terms, pixels), "int16", requantized)

        def term_of(n: Any, j: Any, k: Any, p: Any) -> Any:
            return middle[n, j // split * split + k // terms, k % terms, p]

        second = product("x", a.codes_x, self.cut_x, inputs=self.terms, rows=outputs, value=term_of)

        def stored(n: Any, j: Any, m: Any, p: Any) -> Any:
            channel = (j // split, j % split * outputs + m)
            return ends.stored(second[n, j, m, p], channel, place(n, j * outputs + m, p))

        return b.compute("epilogue", (*outer, outputs, pixels), self.epilogue.out_dtype, stored)

    @property
    def adds(self) -> int:
        """Additions executed a pixel."""
        stages = ((self.cut_y, self.terms), (self.cut_x, self.outputs))
        return self.parts * sum(row_table_adds(cut, rows // self.split) for cut, rows in stages)

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
                first = ternary_sum_numpy(self._of_group(codes_y, j), self.cut_y, columns[n, j])
                middle = ep.requantize_numpy(first, middle_scale[j][:, None], self.middle_limit)
                second = ternary_sum_numpy(self._of_group(codes_x, j), self.cut_x, middle)
                extra = (residual[n, j], parameters[5]) if residual is not None else None
                out[n, j] = ep.apply_numpy(self.epilogue, second, bias[j][:, None], scale[j][:, None], extra)
        return out

    def _of_group(self, codes: np.ndarray, group: int) -> np.ndarray:
        """Codes (segments, chunks, rows, words) of all parts of a group."""
        return np.concatenate(codes[group * self.split : (group + 1) * self.split], axis=2)


@dataclass(frozen=True)
class FactoredArguments:
    """The function arguments declared by `FactoredProduct.arguments`."""

    codes_y: Buffer
    middle_scale: Buffer
    codes_x: Buffer
    ends: EpilogueArguments
