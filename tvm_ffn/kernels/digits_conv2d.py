"""Convolutions, and dense layers on many rows, with weights as lists of signed binary digits (see `digit_sum`).

Same numbers as an int8 convolution with the weights the digits stand for, without its multiplies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from tvm.tirx import Buffer

from tvm_ffn.kernels.builder import KernelBuilder
from tvm_ffn.kernels.digit_lists import (
    DigitCut,
    cut_inputs,
    fold_rare_planes,
    integer_weights,
    pack_digits,
    unpack_digits,
)
from tvm_ffn.kernels.digit_sum import DigitTile, digit_adds, digit_sum, tile_for
from tvm_ffn.kernels.epilogue import CONSTANT_BYTES, Epilogue
from tvm_ffn.kernels.geometry import ConvGeometry
from tvm_ffn.kernels.group_tiled_conv2d import GroupTiledConv2d
from tvm_ffn.kernels.split import output_parts
from tvm_ffn.kernels.tiled_conv2d import Sums, Tile
from tvm_ffn.kernels.work import Cost


@dataclass(frozen=True, eq=False)
class DigitsConv2d(GroupTiledConv2d):
    """Static description; ``digits`` counts the entries of all lists, ``longest`` the bytes of the part with most."""

    op: ClassVar[str] = "ternary_digits_conv2d"
    tile: DigitTile
    cut: DigitCut
    digits: int
    longest: int

    def cost_of(self, pixels: int) -> Cost:
        """Counts of ``pixels`` pixels: one lookup and one addition a digit, and what ends the sums."""
        outputs = self.geometry.groups * self.outputs
        adds = digit_adds(self.digits, self.cut, outputs)
        constants = self.lists + self.parts * self.longest + CONSTANT_BYTES * outputs
        return Cost(pixels * adds, pixels * outputs * self.epilogue.multiplies, pixels * self.digits, constants)

    def further_work(self, pixels: int) -> dict[str, int]:
        """Each list counts once a run."""
        return {"starts": self.lists}

    @property
    def reads_planes(self) -> bool:
        """Where they are the kernel's own at stride 1."""
        return self.geometry.has_own_planes

    @property
    def lists(self) -> int:
        """Lists of all parts; the length of each is one byte."""
        return self.parts * self.cut.chunks * self.rows * 2 * self.cut.planes

    @property
    def argument_count(self) -> int:
        return 2

    def arguments(self, b: KernelBuilder) -> list[Buffer]:
        """Lengths uint8 (parts, chunks, rows, 2 planes) and entries uint8 (parts, longest) of `digit_lists`."""
        cut = self.cut
        return [
            b.arg("counts", (self.parts, cut.chunks, self.rows, 2 * cut.planes), "uint8"),
            b.arg("codes", (self.parts, self.longest), "uint8"),
        ]

    def sums(self, b: KernelBuilder, arguments: list[Buffer], tile: Tile) -> Sums:
        """Block "digits"."""
        planes = tile.source
        reads = planes[tile.image, 0 : self.geometry.channels, 0 : int(planes.shape[2])]
        counts, codes = arguments
        total = digit_sum(
            b,
            counts,
            codes,
            self.cut,
            self.tile,
            tile.part,
            reads=reads,
            value=lambda k, p: planes[self.place(tile, k, p)],
        )
        return lambda m, p: total[m, p]

    def sums_numpy(self, columns: np.ndarray, arguments: tuple[np.ndarray, ...]) -> np.ndarray:
        """NumPy reference of `sums`."""
        counts, codes = arguments
        weights = integer_weights(unpack_digits(counts, codes, self.cut)).astype(np.int64)
        return weights.reshape(self.geometry.groups, self.outputs, -1) @ columns


@dataclass(frozen=True, eq=False)
class DigitsDense(DigitsConv2d):
    """A dense layer as a 1x1 convolution whose pixels are the rows: x (rows, n) in, out (rows, m)."""

    op: ClassVar[str] = "ternary_digits_dense"

    @property
    def in_shape(self) -> tuple[int, ...]:
        return self.geometry.width, self.geometry.channels

    @property
    def out_shape(self) -> tuple[int, ...]:
        return self.geometry.width, self.outputs

    def planes_in(self, b: KernelBuilder, x: Buffer) -> Buffer:
        """Block "planes": int16 (1, n, rows)."""
        return self._transposed(b, "planes", x, "int16")

    def residual_in(self, b: KernelBuilder, residual: Buffer) -> Buffer:
        """Block "residual_flat": int8 (1, m, rows)."""
        return self._transposed(b, "residual_flat", residual, "int8")

    @property
    def fills_rows(self) -> bool:
        """Never: the output is transposed."""
        return False

    def rows_out(self, b: KernelBuilder, flat: Buffer, out: Buffer) -> None:
        """Block "store"."""
        b.compute("store", self.out_shape, self.epilogue.out_dtype, lambda p, m: flat[0, m, p], out=out)

    def reference(self, x: np.ndarray, *arguments: np.ndarray) -> np.ndarray:
        """NumPy oracle on the function's arguments without the output; returns the output."""
        parameters = list(arguments)
        if self.epilogue.residual:
            parameters[4] = parameters[4].T
        return self.outputs_numpy(x.T[None, :, None], *parameters)[0, 0].T

    def _transposed(self, b: KernelBuilder, name: str, x: Buffer, dtype: str) -> Buffer:
        rows, columns = (int(size) for size in x.shape)
        return b.compute(
            name,
            (rows, columns),
            dtype,
            lambda p, k: x[p, k].astype(dtype),
            at=lambda p, k: (0, k, p),
            size=(1, columns, self.pixels),
        )


def digits_layer(
    geometry: ConvGeometry,
    digits: np.ndarray,
    limit: int,
    epilogue: Epilogue,
    *,
    lanes: int,
    most: int,
    table_bytes: int,
    threads: int,
    dense: bool = False,
) -> tuple[DigitsConv2d, tuple[np.ndarray, np.ndarray]]:
    """The layer and its two constant arguments for ``digits`` int8 (groups, planes, m, n), the largest power first, and
    activations up to ``limit``; at most ``most`` vectors of ``lanes`` int16 make a tile, with ``table_bytes`` of their
    activations at a time. Its parts keep ``threads`` busy. A ``dense`` layer has the geometry of a 1x1 convolution over
    one row of pixels."""
    groups, planes, outputs, inputs = digits.shape
    tile = tile_for(geometry.pixels, lanes, most, table_bytes)
    split = output_parts(geometry.batch * groups * geometry.blocks(tile.pixels), threads, outputs)
    digits = digits.reshape(groups, planes, split, -1, inputs).transpose(0, 2, 1, 3, 4)
    digits = digits.reshape(groups * split, planes, -1, inputs)
    digits = fold_rare_planes(digits, tile.longest_chunk)
    cut = cut_inputs(digits, limit, tile.longest_chunk)
    counts, codes = pack_digits(digits, cut)
    kind = DigitsDense if dense else DigitsConv2d
    entries = int(counts.sum(dtype=np.int64))
    return kind(geometry, epilogue, tile, outputs, split, cut, entries, codes.shape[1]), (counts, codes)
