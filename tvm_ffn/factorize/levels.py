"""The levels of `factorize_planes`: integers priced by their fewest signed digits, and how NumPy chooses among them."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from tvm_ffn.factorize.products import Matrix


def signed_digits(planes: int) -> NDArray[np.int8]:
    """Fewest signed binary digits of 0 .. 2^planes - 1: int8 (2^planes, planes), the largest power first."""
    powers = 2 ** np.arange(planes)[::-1]
    found = np.zeros((2**planes, planes), np.int8)
    counts = np.full(2**planes, planes + 1)
    counts[0] = 0
    for digits in itertools.product((0, 1, -1), repeat=planes):
        value, count = int(np.dot(digits, powers)), np.count_nonzero(digits)
        if value > 0 and count < counts[value]:
            found[value], counts[value] = digits, count
    return found


def nearest_levels(wanted: Matrix, unit: Matrix, price: float, costs: Matrix) -> Matrix:
    """Integers q (m,) that minimise ``(wanted - unit q)^2 + price costs[|q|]``; of equal ones the smaller magnitude."""
    levels = np.arange(len(costs), dtype=np.float32)[:, None]
    inverse = np.float32(1) / unit
    values = np.square(np.abs(wanted) * inverse - levels) + np.float32(price) * inverse * inverse * costs[:, None]
    return np.copysign(np.argmin(values, axis=0).astype(np.float32), wanted)


def beam_levels(
    feedback: Matrix, price: float, unit: Matrix, costs: Matrix, target: Matrix, q: Matrix, width: int
) -> None:
    """For every row ``min |e|^2 / 2 + price costs[|q|]``, ``unit q + U^T e = target``, by a beam of ``width`` paths.

    ``feedback`` U: (b, b); ``target`` (b, m), the errors e on exit; ``q`` (b, m), written. A path is extended by the
    nearest level of every cost, if nearer than all cheaper ones.
    """
    b, m = target.shape
    prices = np.unique(costs)[:, None, None]
    classes = [np.flatnonzero(costs == cost).astype(np.float32) for cost in np.unique(costs)]
    rows, levels = target[:, None].copy(), np.zeros((b, 1, m), np.float32)
    total = np.zeros((1, m), np.float32)
    for j in range(b):
        wanted, u = rows[j], feedback[j, j]
        x = np.abs(wanted) / unit
        nearest = np.stack([magnitudes[np.abs(x[..., None] - magnitudes).argmin(-1)] for magnitudes in classes])
        gaps = np.abs(nearest - x)
        nearest = np.copysign(nearest, wanted)
        error = (wanted - unit * nearest) / u
        value = total + (np.float32(0.5) * error * error + np.float32(price) * prices)
        value[1:][gaps[1:] >= np.minimum.accumulate(gaps)[:-1]] = np.inf
        extended = value.reshape(-1, m)
        kept = np.argsort(extended, axis=0, kind="stable")[:width]
        parent = kept % len(total)
        total = np.take_along_axis(extended, kept, axis=0)
        rows = np.take_along_axis(rows, parent[None], axis=1)
        levels = np.take_along_axis(levels, parent[None], axis=1)
        levels[j] = np.take_along_axis(nearest.reshape(-1, m), kept, axis=0)
        rows[j] = np.take_along_axis(error.reshape(-1, m), kept, axis=0)
        rows[j + 1 :] -= feedback[j, j + 1 :, None, None] * rows[j]
    target[:], q[:] = rows[:, 0], levels[:, 0]
