"""Weights in signed binary digits as lists of bytes: one byte a digit that is not zero, nothing for the others.

The inputs are cut into equal chunks of at most 255. For every chunk and output there are two lists a plane, the inputs
that its +1 and its -1 stand for, each one byte counted from the chunk's start; all lists follow each other in the order
the kernel reads them. ``counts`` uint8 (groups, chunks, m, 2 planes) holds their lengths, the largest power first, plus
before minus; ``codes`` uint8 (groups, bytes of the longest group) their entries: 1.1 bytes a digit, lengths included.

The end of a list costs as much as some digits, so `fold_rare_planes` writes a few digits of the largest power as pairs
of the next: digits here may be beyond +-1, an entry v being |v| bytes.

A kernel sums `plane_runs` of at most three planes in int16, modulo 2^16: ``a = 2 a + plane`` from the largest power
down, so only the sum at the end of a chunk has to fit. `cut_inputs` derives the chunks from that, for the actual
weights and the largest activation of either sign; shorter runs of planes where they allow longer chunks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tvm_ffn.kernels import codes as ternary_codes

LONGEST_CHUNK = 255  # inputs: a place in it, and the length of a list, are one byte
FOLDED = 4  # digits of the largest power in an output and chunk below which they cost less as pairs of the next
PLANES_A_RUN = 3  # weights of -7 .. 7: any 36 inputs of 127 fit int16, and 255 of an ordinary layer


@dataclass(frozen=True)
class DigitCut:
    """``inputs`` cut into ``chunks`` of ``length`` (the last may be shorter), for weights of ``planes`` digits, up to
    ``together`` of which are summed in int16."""

    planes: int
    inputs: int
    chunks: int
    length: int
    together: int = PLANES_A_RUN

    @property
    def runs(self) -> tuple[range, ...]:
        """The planes that are summed together in int16, the largest power first."""
        return plane_runs(self.planes, self.together)

    @property
    def ends(self) -> int:
        """Ends of lists and of runs for one output."""
        return self.chunks * (2 * self.planes + len(self.runs))


def plane_runs(planes: int, most: int = PLANES_A_RUN) -> tuple[range, ...]:
    """``planes`` in as few even runs of at most ``most`` as there can be, longer ones first."""
    runs = -(-planes // most)
    ends = [-(-planes * (run + 1) // runs) for run in range(runs)]
    return tuple(range(start, end) for start, end in zip([0, *ends], ends, strict=False))


def fold_rare_planes(digits: np.ndarray, longest: int) -> np.ndarray:
    """``digits`` (groups, planes, m, n), the largest power first, without the largest powers that hold less than
    `FOLDED` digits in an output and chunk of ``longest`` inputs: twice their digits are added to the next."""
    lists = -(-digits.shape[3] // longest) * digits.shape[0] * digits.shape[2]
    while digits.shape[1] > 2 and np.abs(digits[:, 0]).sum(dtype=np.int64) < FOLDED * lists:
        digits = np.concatenate([digits[:, 1:2] + 2 * digits[:, :1], digits[:, 2:]], axis=1)
    return digits


def cut_inputs(digits: np.ndarray, limit: int, longest: int) -> DigitCut:
    """The fewest equal chunks of at most ``longest`` inputs whose int16 sums cannot overflow, for digits (groups,
    planes, m, n), the largest power first, and activations of magnitude up to ``limit``; as many planes together as
    leave the fewest ends."""
    found = (_fewest_chunks(digits, limit, longest, together) for together in range(PLANES_A_RUN, 0, -1))
    cuts = [cut for cut in found if cut is not None]
    if not cuts:
        raise ValueError(f"activations up to {limit} overflow int16 within one weight")
    return min(cuts, key=lambda cut: cut.ends)


def _fewest_chunks(digits: np.ndarray, limit: int, longest: int, together: int) -> DigitCut | None:
    planes, inputs = digits.shape[1], digits.shape[3]
    runs = plane_runs(planes, together)
    values = np.concatenate([integer_weights(digits[:, run.start : run.stop]) for run in runs])
    sums, entries = _sums_before(values), _sums_before(digits[:, 0])
    for chunks in range(-(-inputs // min(longest, LONGEST_CHUNK)), inputs + 1):
        length = -(-inputs // chunks)
        edges = np.minimum(np.arange(0, inputs + length, length), inputs)
        largest, longest_list = (np.diff(before[:, edges], axis=1).max() for before in (sums, entries))
        if largest * limit <= ternary_codes.INT16_MAX and longest_list <= LONGEST_CHUNK:
            return DigitCut(planes, inputs, len(edges) - 1, length, together)
    return None


def _sums_before(values: np.ndarray) -> np.ndarray:
    """Sums of the magnitudes of (..., n) left of each input: int32 (rows, n + 1)."""
    flat = np.abs(values.reshape(-1, values.shape[-1]).astype(np.int32))
    return np.pad(flat.cumsum(axis=1, dtype=np.int32), ((0, 0), (1, 0)))


def pack_digits(digits: np.ndarray, cut: DigitCut) -> tuple[np.ndarray, np.ndarray]:
    """``counts`` and ``codes`` (see above) of digits int8 (groups, planes, m, n)."""
    groups, planes, outputs, inputs = digits.shape
    padded = np.zeros((groups, planes, outputs, cut.chunks * cut.length), np.int8)
    padded[..., :inputs] = digits
    counts, lists = [], []
    for group in padded:
        chunked = group.reshape(planes, outputs, cut.chunks, cut.length).transpose(2, 1, 0, 3)
        copies = np.maximum(np.stack([chunked, -chunked], axis=3), 0)  # chunk, output, plane, sign, input
        lengths = copies.sum(axis=4, dtype=np.uint8)
        counts.append(lengths.reshape(cut.chunks, outputs, 2 * planes))
        places = copies.nonzero()
        lists.append(np.repeat(places[4], copies[places]).astype(np.uint8))
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
        signs = (1 - 2 * (place % 2)).astype(np.int8)
        np.add.at(group, (chunk, output, place // 2, entries[: len(place)]), signs)
    return digits.transpose(0, 3, 2, 1, 4).reshape(groups, lists // 2, outputs, -1)[..., : cut.inputs]


def integer_weights(digits: np.ndarray) -> np.ndarray:
    """The int8 weights (..., m, n) that digits (..., planes, m, n) stand for, the largest power first."""
    planes = digits.shape[-3]
    places = (1 << np.arange(planes - 1, -1, -1)).reshape(planes, 1, 1)
    return (digits * places).sum(axis=-3).astype(np.int8)
