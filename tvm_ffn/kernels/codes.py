"""Packing of ternary matrices into the forms the kernels read.

* ``pack_groups``: one byte for some neighbouring entries, ``sum (t_i + 1) 3^i``: of three in 0..26, 2.67 bits an entry,
  of four in 0..80, 2 bits; the row index of the row-table kernel. They lie in the order the kernel reads them,
  ``[segment, chunk, row, group]``, four or eight to a word: loading each byte on its own would compete with the table's
  rows for the load ports (1.7x slower).
* ``pack_masks``: two bits an entry, 16 outputs a word (is it +1, is it -1), for products with few pixels.
* `Words`: a few such groups to a word, outputs side by side in the lanes of a vector: the indices of an instruction
  that looks all of them up at once, 1.78 or 2 bits an entry.

All are cut into *segments* short enough that a sum of int16 lanes cannot overflow: `segments` derives the cut from the
actual matrix and the largest activation, it is never hoped for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

INT16_MAX = 32767
MOST_GROUP = 4  # entries whose code fits a byte and whose table a cache
_WEIGHTS = np.array([1, 3, 9, 27], np.uint8)


def zero_code(group: int) -> int:
    """The code of ``group`` zeros."""
    return int(3**group // 2)


@dataclass(frozen=True)
class Segments:
    """K inputs cut into ``segments`` equal parts of ``chunks`` chunks of ``length`` steps each (padded with zeros), of
    ``step`` inputs."""

    segments: int
    chunks: int
    length: int
    step: int

    @property
    def steps(self) -> int:
        return self.segments * self.chunks * self.length

    @property
    def word_bytes(self) -> int:
        """Codes loaded together: eight where that leaves no gap, else four."""
        return 8 if self.length % 8 == 0 else 4

    @property
    def words(self) -> int:
        """Words that hold a chunk's codes of one row."""
        return -(-self.length // self.word_bytes)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row in `pack_groups`."""
        return self.segments * self.chunks * self.words * self.word_bytes


def segments(ternary: np.ndarray, limit: int, *, step: int, chunk: int) -> Segments:
    """Cut the columns of ``ternary`` (R, K) so that no int16 sum of activations of magnitude ``limit`` overflows.

    ``step`` columns are consumed together, at most ``chunk`` steps make a chunk. Of the cuts that keep
    ``limit * non-zeros <= 32767`` in every row and segment, returns the one that costs a row least: one for each byte
    of `pack_groups`, padding included, one more a chunk and two more a segment (partial sums are read and written).
    """
    if limit * step > INT16_MAX:
        raise ValueError(f"activations up to {limit} overflow int16 within one group of {step}")
    steps = -(-ternary.shape[1] // step)
    before = _magnitudes_before(ternary, step)
    best, least = None, np.inf
    for count in range(1, steps + 1):
        if steps + 3 * count >= least:
            break
        fewest = -(-steps // (count * chunk))
        for chunks in range(fewest, 2 * fewest + 1):
            cut = Segments(count, chunks, -(-steps // (count * chunks)), step)
            cost = count * chunks * (cut.words * cut.word_bytes + 1) + 2 * count
            edges = np.minimum(np.arange(count + 1) * (cut.chunks * cut.length), steps)
            if cost < least and np.diff(before[:, edges], axis=1).max(initial=0) * limit <= INT16_MAX:
                best, least = cut, cost
    assert best is not None  # with a step a segment, nothing overflows
    return best


def _magnitudes_before(weights: np.ndarray, step: int) -> np.ndarray:
    """Sums of the magnitudes of each row left of each step, int32 (R, steps + 1)."""
    starts = np.arange(0, weights.shape[1], step)
    sums = np.zeros((weights.shape[0], len(starts) + 1), np.int32)
    np.add.reduceat(np.abs(weights), starts, axis=1, dtype=np.int32).cumsum(axis=1, out=sums[:, 1:])
    return sums


def column_bounds(weights: np.ndarray, limit: int) -> tuple[int, ...]:
    """Ends of the fewest equal runs of columns of a (R, K) integer matrix whose int16 sums cannot overflow for inputs
    up to ``limit``: (0, ..., K). A weight that overflows alone is a ValueError."""
    largest = int(np.abs(weights).max(initial=1))
    if limit * largest > INT16_MAX:
        raise ValueError(f"activations up to {limit} overflow int16 within one group of {largest}")
    columns, before = weights.shape[1], _magnitudes_before(weights, 1)
    for count in range(1, columns + 1):
        run = -(-columns // count)
        bounds = [*range(0, columns, run), columns]
        if np.diff(before[:, bounds], axis=1).max(initial=0) * limit <= INT16_MAX:
            break
    return tuple(bounds)


def pack_groups(ternary: np.ndarray, cut: Segments) -> np.ndarray:
    """Bytes of ``cut.step`` entries each of a (R, K) ternary matrix, ``cut.word_bytes`` to a word: uint32 or uint64 of
    shape (segments, chunks, R, ``cut.words``), the first group in the lowest byte."""
    rows, columns = ternary.shape
    digits = np.zeros((rows, cut.steps * cut.step), np.int8)
    digits[:, :columns] = ternary
    groups = (digits.reshape(rows, cut.steps, cut.step) + 1).astype(np.uint8)
    codes = (groups * _WEIGHTS[: cut.step]).sum(2, dtype=np.uint8)
    padded = np.full((cut.segments, cut.chunks, rows, cut.words * cut.word_bytes), zero_code(cut.step), np.uint8)
    padded[..., : cut.length] = codes.reshape(rows, cut.segments, cut.chunks, cut.length).transpose(1, 2, 0, 3)
    return padded.view(f"<u{cut.word_bytes}")


def unpack_groups(words: np.ndarray, cut: Segments, columns: int) -> np.ndarray:
    """Inverse of `pack_groups`: the (R, ``columns``) ternary matrix, int8."""
    codes = np.ascontiguousarray(words).view(np.uint8)[..., : cut.length]
    rows = codes.shape[2]
    flat = codes.transpose(2, 0, 1, 3).reshape(rows, -1, 1)
    digits = (flat // _WEIGHTS[: cut.step] % 3).astype(np.int8) - 1
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


@dataclass(frozen=True)
class Words:
    """Ternary entries as the words of a table lookup: ``codes`` to a word, each of ``bits`` bits for ``group``
    neighbouring entries of a row, the first in the lowest bits; ``lanes`` rows lie side by side, with ``halves`` the
    first half of them in the even lanes."""

    group: int
    bits: int
    codes: int
    lanes: int
    halves: bool = False

    @property
    def step(self) -> int:
        """Entries of a word."""
        return self.group * self.codes

    @property
    def dtype(self) -> str:
        """The word."""
        return "uint8" if self.bits * self.codes <= 8 else "uint16"

    @property
    def _order(self) -> np.ndarray:
        """The row in each lane."""
        rows = np.arange(self.lanes)
        return rows.reshape(2, -1).T.reshape(-1) if self.halves else rows

    def pack(self, ternary: np.ndarray, cut: Segments, block: int) -> np.ndarray:
        """Words of a (R, K) matrix cut in steps of `step`: (ceil(R / ``block``), steps, ``block``), zeros beyond the
        last row and column."""
        rows, columns = ternary.shape
        padded = np.zeros((-(-rows // block) * block, cut.steps * self.step), np.int8)
        padded[:rows, :columns] = ternary
        lanes = padded.reshape(-1, self.lanes, padded.shape[1])[:, self._order]
        groups = (lanes + 1).astype(self.dtype).reshape(-1, block, cut.steps, self.codes, self.group)
        codes = (groups * _WEIGHTS[: self.group]).sum(-1, dtype=self.dtype)
        words = (codes << self._shifts).sum(-1, dtype=self.dtype)
        return np.ascontiguousarray(words.transpose(0, 2, 1))

    def unpack(self, words: np.ndarray, rows: int, columns: int) -> np.ndarray:
        """Inverse of `pack`: the (``rows``, ``columns``) ternary matrix, int8."""
        codes = (words.transpose(0, 2, 1)[..., None] >> self._shifts) & (2**self.bits - 1)
        digits = (codes[..., None] // _WEIGHTS[: self.group] % 3).astype(np.int8) - 1
        lanes = digits.reshape(-1, self.lanes, words.shape[1] * self.step)
        return lanes[:, np.argsort(self._order)].reshape(-1, lanes.shape[2])[:rows, :columns]

    @property
    def _shifts(self) -> np.ndarray:
        return self.bits * np.arange(self.codes, dtype=self.dtype)
