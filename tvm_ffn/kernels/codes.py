"""Packing of ternary matrices into the forms the kernels read.

* ``pack_groups``: one byte for three neighbouring entries, ``sum (t_i + 1) 3^i`` in 0..26: 2.67 bits an entry, the row
  index of the row-table kernel. Bytes lie in the order the kernel reads them, ``[segment, chunk, row, group]``.
* ``pack_masks``: two bits an entry, 16 outputs a word (is it +1, is it -1), for products with few pixels.

Both are cut into *segments* short enough that a sum of int16 lanes cannot overflow: `segments` derives the cut from the
actual matrix and the largest activation, it is never hoped for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

INT16_MAX = 32767
GROUP = 3
ZERO_CODE = 13  # three zero digits
_WEIGHTS = np.array([1, 3, 9], np.uint8)


@dataclass(frozen=True)
class Segments:
    """K inputs cut into ``segments`` equal parts of ``chunks`` chunks of ``length`` steps each (padded with zeros)."""

    segments: int
    chunks: int
    length: int

    @property
    def steps(self) -> int:
        return self.segments * self.chunks * self.length


def _largest_sum(ternary: np.ndarray, steps_a_segment: int, step: int) -> int:
    """Most non-zeros of any row in any segment of ``steps_a_segment * step`` columns."""
    columns = steps_a_segment * step
    padded = np.zeros((ternary.shape[0], -(-ternary.shape[1] // columns) * columns), np.int64)
    padded[:, : ternary.shape[1]] = ternary != 0
    return int(padded.reshape(ternary.shape[0], -1, columns).sum(2).max(initial=0))


def segments(ternary: np.ndarray, limit: int, *, step: int, chunk: int) -> Segments:
    """Cut the columns of ``ternary`` (R, K) so that no int16 sum of activations of magnitude ``limit`` overflows.

    ``step`` columns are consumed together, at most ``chunk`` steps make a chunk. Returns the fewest segments that keep
    ``limit * non-zeros <= 32767`` in every row and segment.
    """
    if limit * step > INT16_MAX:
        raise ValueError(f"activations up to {limit} overflow int16 within one group of {step}")
    steps = -(-ternary.shape[1] // step)
    count = 1
    while True:
        chunks = -(-steps // (count * chunk))
        length = -(-steps // (count * chunks))
        if _largest_sum(ternary, chunks * length, step) * limit <= INT16_MAX:
            return Segments(count, chunks, length)
        count += 1


def pack_groups(ternary: np.ndarray, cut: Segments) -> np.ndarray:
    """Bytes of a (R, K) ternary matrix, uint8 of shape (segments, chunks, R, length)."""
    rows, columns = ternary.shape
    digits = np.zeros((rows, cut.steps * GROUP), np.int8)
    digits[:, :columns] = ternary
    codes = ((digits.reshape(rows, cut.steps, GROUP) + 1).astype(np.uint8) * _WEIGHTS).sum(2, dtype=np.uint8)
    return np.ascontiguousarray(codes.reshape(rows, cut.segments, cut.chunks, cut.length).transpose(1, 2, 0, 3))


def unpack_groups(codes: np.ndarray, columns: int) -> np.ndarray:
    """Inverse of `pack_groups`: the (R, ``columns``) ternary matrix, int8."""
    rows = codes.shape[2]
    flat = codes.transpose(2, 0, 1, 3).reshape(rows, -1, 1)
    digits = (flat // _WEIGHTS % 3).astype(np.int8) - 1
    return digits.reshape(rows, -1)[:, :columns]


def pack_masks(ternary: np.ndarray, lanes: int) -> np.ndarray:
    """Bit masks of a (R, K) ternary matrix, uint16 of shape (ceil(R / lanes), K, 2, lanes / 16): bit i of word w is row
    ``block * lanes + 16 w + i``; [..., 0, :] marks the +1, [..., 1, :] the -1."""
    rows, columns = ternary.shape
    padded = np.zeros((-(-rows // lanes) * lanes, columns), np.int8)
    padded[:rows] = ternary
    blocks = padded.reshape(-1, lanes // 16, 16, columns)
    weights = (1 << np.arange(16, dtype=np.uint16))[None, None, :, None]
    words = [((blocks == sign) * weights).sum(2, dtype=np.uint16) for sign in (1, -1)]
    return np.ascontiguousarray(np.stack(words).transpose(1, 3, 0, 2))


def unpack_masks(masks: np.ndarray, rows: int) -> np.ndarray:
    """Inverse of `pack_masks`: the (``rows``, K) ternary matrix, int8."""
    bits = (masks[..., None] >> np.arange(16, dtype=np.uint16)) & 1
    signed = bits[:, :, 0].astype(np.int8) - bits[:, :, 1].astype(np.int8)
    return signed.reshape(*signed.shape[:2], -1).transpose(0, 2, 1).reshape(-1, signed.shape[1])[:rows]
