"""Weights in signed binary digits as lists of bytes: one byte a digit that is not zero, nothing for the others.

The inputs are cut into equal chunks of at most 255. For every chunk and output there are two lists a plane, the inputs
that its +1 and its -1 stand for, each one byte counted from the chunk's start; all lists follow each other in the order
the kernel reads them. ``counts`` uint8 (groups, chunks, m, 2 planes) holds their lengths, the largest power first, plus
before minus; ``codes`` uint8 (groups, bytes of the longest group) their entries: 1.1 bytes a digit, lengths included.

A kernel sums `runs` of at most four planes in int16, modulo 2^16: ``a = 2 a + plane`` from the largest power down, so
only the sum at the end of a chunk has to fit. `cut_inputs` derives the chunks from that, for the actual weights and the
largest activation of either sign.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tvm_ffn.kernels import codes as ternary_codes

LONGEST_CHUNK = 255  # inputs: a place in it, and the length of a list, are one byte
PLANES_A_RUN = 4  # weights of -15 .. 15: 17 inputs of 127 fit int16 at the very least


@dataclass(frozen=True)
class DigitCut:
    """``inputs`` cut into ``chunks`` of ``length`` (the last may be shorter), for weights of ``planes`` digits."""

    planes: int
    inputs: int
    chunks: int
    length: int

    @property
    def runs(self) -> tuple[range, ...]:
        """The planes that are summed together in int16, the largest power first."""
        return plane_runs(self.planes)


def plane_runs(planes: int) -> tuple[range, ...]:
    """``planes`` in as few even runs as `PLANES_A_RUN` allows, longer ones first."""
    runs = -(-planes // PLANES_A_RUN)
    ends = [-(-planes * (run + 1) // runs) for run in range(runs)]
    return tuple(range(start, end) for start, end in zip([0, *ends], ends, strict=False))


def cut_inputs(digits: np.ndarray, limit: int, longest: int) -> DigitCut:
    """The fewest equal chunks of at most ``longest`` inputs whose int16 sums cannot overflow, for digits (groups,
    planes, m, n), the largest power first, and activations of magnitude up to ``limit``."""
    planes, inputs = digits.shape[1], digits.shape[3]
    if limit * (2**PLANES_A_RUN - 1) > ternary_codes.INT16_MAX:
        raise ValueError(f"activations up to {limit} overflow int16 within one weight")
    sums = []
    for run in plane_runs(planes):
        places = 1 << np.arange(len(run) - 1, -1, -1)
        values = np.abs(np.tensordot(places, digits[:, run.start : run.stop], axes=(0, 1))).reshape(-1, inputs)
        sums.append(np.pad(values.cumsum(axis=1), ((0, 0), (1, 0))))
    before = np.concatenate(sums)
    for chunks in range(-(-inputs // min(longest, LONGEST_CHUNK)), inputs + 1):
        length = -(-inputs // chunks)
        edges = np.minimum(np.arange(0, inputs + length, length), inputs)
        if np.diff(before[:, edges], axis=1).max() * limit <= ternary_codes.INT16_MAX:
            return DigitCut(planes, inputs, len(edges) - 1, length)
    raise AssertionError("with an input a chunk, nothing overflows")


def pack_digits(digits: np.ndarray, cut: DigitCut) -> tuple[np.ndarray, np.ndarray]:
    """``counts`` and ``codes`` (see above) of digits int8 (groups, planes, m, n)."""
    groups, planes, outputs, inputs = digits.shape
    padded = np.zeros((groups, planes, outputs, cut.chunks * cut.length), np.int8)
    padded[..., :inputs] = digits
    counts, lists = [], []
    for group in padded:
        chunked = group.reshape(planes, outputs, cut.chunks, cut.length).transpose(2, 1, 0, 3)
        signs = np.stack([chunked > 0, chunked < 0], axis=3)  # chunk, output, plane, sign, input
        counts.append(signs.sum(axis=4, dtype=np.uint8).reshape(cut.chunks, outputs, 2 * planes))
        lists.append(signs.nonzero()[4].astype(np.uint8))
    codes = np.zeros((groups, max(1, *map(len, lists))), np.uint8)
    for row, entries in zip(codes, lists, strict=True):
        row[: len(entries)] = entries
    return np.stack(counts), codes


def unpack_digits(counts: np.ndarray, codes: np.ndarray, cut: DigitCut) -> np.ndarray:
    """Inverse of `pack_digits`: digits int8 (groups, planes, m, n)."""
    groups, chunks, outputs, lists = counts.shape
    digits = np.zeros((groups, chunks, outputs, lists // 2, cut.length), np.int8)
    for group, lengths, entries in zip(digits, counts, codes, strict=True):
        chunk, output, place = (np.repeat(axis.ravel(), lengths.ravel()) for axis in np.indices(lengths.shape))
        group[chunk, output, place // 2, entries[: len(place)]] = 1 - 2 * (place % 2)
    return digits.transpose(0, 3, 2, 1, 4).reshape(groups, lists // 2, outputs, -1)[..., : cut.inputs]


def integer_weights(digits: np.ndarray) -> np.ndarray:
    """The int8 weights (..., m, n) that digits (..., planes, m, n) stand for, the largest power first."""
    planes = digits.shape[-3]
    places = (1 << np.arange(planes - 1, -1, -1)).reshape(planes, 1, 1)
    return (digits * places).sum(axis=-3).astype(np.int8)
