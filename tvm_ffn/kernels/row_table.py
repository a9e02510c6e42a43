"""Ternary times activations through tables over pixels (the ``rows`` family), without a multiply.

For each group of s inputs, two to four, the 3^s possible signed sums are written once as rows over a vector of pixels;
every output then adds *one* row a group, picked by the byte that holds its s ternary digits:

    table[g, e, p] = sum_i digit_i(e) * x[s g + i, p]        total[m, p] = sum_g table[g, code[m, g], p]

Sums run in int16 lanes within a segment (`codes.segments` proves that they fit) and in int32 across segments.
Cost a pixel vector: 3^s stores a group for the table, then one load and add a group and output, and one word of codes
every four or eight groups.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_ffn.kernels.builder import KernelBuilder
from tvm_ffn.kernels.codes import Segments, unpack_groups


def signed(digit: Any, value: Any) -> Any:
    """``value`` int16 times a digit, which is stored as 0, 1 or 2 for -1, 0 or 1."""
    return T.Select(digit == 2, value, T.Select(digit == 0, T.int16(0) - value, T.int16(0)))


def row_table_sum(
    b: KernelBuilder,
    stage: str,
    codes: Buffer,
    cut: Segments,
    *,
    inputs: int,
    rows: int,
    outer: tuple[int, int],
    pixels: int,
    value: Callable[..., Any],
) -> Buffer:
    """Add the blocks of one ternary product; ``stage`` prefixes their names.

    ``codes`` is (groups, segments, chunks, rows, words) uint32 or uint64, ``outer`` = (images, groups),
    ``value(n, j, k, p)`` the int16 input k of group j. Returns the int32 sums (images, groups, rows, pixels).
    """

    def entry(n: Any, j: Any, g: Any, e: Any, p: Any) -> Any:
        # The last group may reach past the inputs: its digits there are zero, any input in bounds will do. (But not in
        # the only group: of the same input three times LLVM makes a multiply by three.)
        parts = [
            signed(e // 3**i % 3, value(n, j, T.min(g * cut.step + i, inputs - 1), p))
            for i in range(min(cut.step, inputs))
        ]
        return sum(parts[1:], parts[0])

    table = b.compute(f"{stage}_table", (*outer, cut.steps, 3**cut.step, pixels), "int16", entry)

    def group(s: Any, c: Any, g: Any) -> Any:
        return (s * cut.chunks + c) * cut.length + g

    def code(j: Any, s: Any, c: Any, m: Any, g: Any) -> Any:
        shift = T.Cast(codes.dtype, g % cut.word_bytes * 8)
        word = T.shift_right(codes[j, s, c, m, g // cut.word_bytes], shift)
        return T.Cast("int32", T.bitwise_and(word, getattr(T, str(codes.dtype))(0xFF)))

    partial = b.reduce(
        f"{stage}_partial",
        (*outer, cut.segments, rows, pixels),
        (cut.chunks, cut.length),
        "int16",
        lambda n, j, s, m, p, c, g: table[n, j, group(s, c, g), code(j, s, c, m, g), p],
        reads=lambda n, j, s, m, p, c, g: (
            table[n, j, group(s, c, g), 0 : 3**cut.step, p],
            codes[j, s, c, m, g // cut.word_bytes],
        ),
    )
    shape, name = (*outer, rows, pixels), f"{stage}_sum"
    if cut.segments == 1:
        return b.compute(name, shape, "int32", lambda n, j, m, p: T.Cast("int32", partial[n, j, 0, m, p]))
    return b.reduce(
        name, shape, (cut.segments,), "int32", lambda n, j, m, p, s: T.Cast("int32", partial[n, j, s, m, p])
    )


def row_table_adds(cut: Segments, rows: int) -> int:
    """Additions that one pixel executes in one group's product: tables, then one a row and step. Half of a table's rows
    are sums, but for single inputs, the others their negations, and the zero row is free."""
    return cut.steps * (3**cut.step - 1 - cut.step + rows)


def ternary_sum_numpy(codes: np.ndarray, cut: Segments, inputs: np.ndarray) -> np.ndarray:
    """NumPy reference: exact ``T @ inputs`` for packed ``codes`` (segments, chunks, R, words) and inputs (K, P)."""
    ternary = unpack_groups(codes, cut, inputs.shape[0])
    return ternary.astype(np.int64) @ inputs.astype(np.int64)
