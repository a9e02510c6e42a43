"""Which inputs of a ternary block are taken together, so that rows share the sums of two.

A pair (i, j) costs one add for x_i + x_j if at least two rows want it and one for x_i - x_j likewise; each such row
then saves one add. Pairs are matched greedily by what they save, within a window of neighbouring inputs.
"""

from __future__ import annotations

import numpy as np


def match_pairs(ternary: np.ndarray, window: int) -> np.ndarray:
    """Partner of each input (column) of a (R, K) ternary block, -1 for none; symmetric.

    In rounds: every free input names the free input in its window that saves most; those who name each other match.
    """
    columns = ternary.shape[1]
    mate = np.full(columns, -1)
    saving = _savings(ternary, min(window, columns - 1))
    while saving.size:
        best = saving.argmax(1)
        value = saving[np.arange(columns), best]
        partner = np.where(value > 0, np.arange(columns) + best - saving.shape[1] // 2, -1)
        wanted = np.flatnonzero(partner >= 0)
        mutual = wanted[partner[partner[wanted]] == wanted]
        if not len(mutual):
            break
        mate[mutual] = partner[mutual]
        saving[mutual] = 0
        _forget(saving, mutual)
    return mate


def _savings(ternary: np.ndarray, window: int) -> np.ndarray:
    """saving[i, window + o]: adds saved by pairing inputs i and i + o, for offsets -window..window.

    Offsets are weighted by a hair so that two inputs never prefer each other in a cycle: nearer first, then left.
    """
    columns = ternary.shape[1]
    t = ternary.astype(np.float32)
    magnitude = np.abs(t)
    saving = np.zeros((columns, 2 * window + 1), np.float32)
    for offset in range(1, window + 1):
        product = (t[:, :-offset] * t[:, offset:]).sum(0)
        both = (magnitude[:, :-offset] * magnitude[:, offset:]).sum(0)
        same, opposite = (both + product) / 2, (both - product) / 2
        value = np.maximum(same - 1, 0) + np.maximum(opposite - 1, 0)
        value = np.where(value > 0, value - offset * 1e-3 - np.arange(columns - offset) * 1e-6, 0)
        saving[: columns - offset, window + offset] = value
        saving[offset:, window - offset] = value
    return saving


def _forget(saving: np.ndarray, taken: np.ndarray) -> None:
    """Nobody may name a taken input any more."""
    columns, width = saving.shape
    half = width // 2
    for offset in range(-half, half + 1):
        owner = taken - offset
        owner = owner[(owner >= 0) & (owner < columns)]
        saving[owner, half + offset] = 0
