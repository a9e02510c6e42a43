"""Which inputs of a ternary block are taken together, so that rows share the sums of two.

A pair (i, j) costs one add for x_i + x_j if at least two rows want it and one for x_i - x_j likewise; each such row
then saves one add. Planes of digits that share what is loaded have sums of their own. Pairs are matched greedily by
what they save, within a window of neighbouring inputs; of equal ones the nearer, then the left one first.
"""

from __future__ import annotations

import numpy as np

from tvm_ffn.factorize.native import library


def match_pairs(planes: np.ndarray, window: int) -> np.ndarray:
    """Partner of each input of ternary (P, R, K) planes, int32 (K,), -1 for none; symmetric."""
    native = library()
    if native is None:
        return match_pairs_numpy(planes, window)
    mate = np.empty(planes.shape[2], np.int32)
    native.match_pairs(np.ascontiguousarray(planes), window, mate)
    return mate


def match_pairs_numpy(planes: np.ndarray, window: int) -> np.ndarray:
    """The same in rounds: every free input names the free input in its window that saves most, and those who name each
    other match. As no two pairs are worth the same, that is the greedy matching."""
    columns = planes.shape[2]
    mate = np.full(columns, -1, np.int32)
    worth = _worth(planes, min(window, columns - 1))
    half = worth.shape[1] // 2
    while worth.size:
        best = worth.argmax(1)
        partner = np.where(worth.max(1) > 0, np.arange(columns) + best - half, -1)
        wanted = np.flatnonzero(partner >= 0)
        mutual = wanted[partner[partner[wanted]] == wanted]
        if not len(mutual):
            break
        mate[mutual] = partner[mutual]
        worth[mutual] = 0
        for offset in range(-half, half + 1):  # nobody may name them any more
            owner = mutual - offset
            owner = owner[(owner >= 0) & (owner < columns)]
            worth[owner, half + offset] = 0
    return mate


def _worth(planes: np.ndarray, window: int) -> np.ndarray:
    """worth[i, window + o]: what pairing inputs i and i + o saves, for offsets -window..window, as an integer that also
    tells nearer and more leftward pairs; 0 where nothing is saved."""
    columns = planes.shape[2]
    t = planes.astype(np.float32)
    magnitude = np.abs(t)
    worth = np.zeros((columns, 2 * window + 1), np.int64)
    for offset in range(1, window + 1):
        product = (t[:, :, :-offset] * t[:, :, offset:]).sum(1)
        both = (magnitude[:, :, :-offset] * magnitude[:, :, offset:]).sum(1)
        saving = (np.maximum((both + product) / 2 - 1, 0) + np.maximum((both - product) / 2 - 1, 0)).sum(0)
        ranked = (saving.astype(np.int64) * (window + 1) - offset) * columns - np.arange(columns - offset)
        ranked = np.where(saving > 0, ranked, 0)
        worth[: columns - offset, window + offset] = ranked
        worth[offset:, window - offset] = ranked
    return worth
