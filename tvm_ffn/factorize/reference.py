"""The solver's inner loops in NumPy: what each native loop must compute, and the fallback without the library."""

from __future__ import annotations

import numpy as np

from tvm_ffn.factorize.backend import Backend
from tvm_ffn.factorize.levels import beam_levels, nearest_levels
from tvm_ffn.factorize.products import Matrix

POLISHED = 4
"""Of the lattice points near a column, those from which coordinate descent starts."""
EXHAUSTED = 1e-12
"""A residual below this share of the first energy is float32 noise: no further term is fitted to it."""


def fit_ternary(s: Matrix) -> tuple[Matrix, int, float]:
    """The ternary z that maximises ``(s . z)^2 / (z . z)``, its count of non-zeros and ``s . z``.

    The best support is ``{|s_j| > t}`` with t half the mean of |s| over it; ``t <- mean(|s|, |s| > t) / 2`` from 0
    rises to a fixed point.
    """
    magnitude = np.abs(s)
    threshold, previous, total = np.float32(0.0), -1, 0.0
    while True:
        chosen = magnitude > threshold
        count = int(np.count_nonzero(chosen))
        total = float(magnitude[chosen].sum(dtype=np.float64))
        if count in (0, previous):
            return np.where(chosen, np.sign(s), 0).astype(np.float32), count, total
        previous = count
        threshold = np.float32(0.5 * total / count)


def _alternate(r: Matrix, y: Matrix, max_iterations: int, tolerance: float) -> tuple[Matrix, Matrix, float]:
    """One term of the greedy decomposition from a start ``y``; scale 0 when the start sees nothing."""
    gain, x, scale = -1.0, np.zeros(r.shape[0], np.float32), 0.0
    for iteration in range(max_iterations):
        x, count_x, _ = fit_ternary(r @ y)
        y, count_y, total = fit_ternary(x @ r)
        if count_x == 0 or count_y == 0:
            return x, y, 0.0
        scale = total / (count_x * count_y)
        if iteration > 0 and total * scale <= gain * (1.0 + tolerance):
            break
        gain = total * scale
    return x, y, scale


def _round(u: Matrix, half: Matrix | float) -> Matrix:
    """-1, 0 or 1: the nearest ternary value of ``u / (2 half)``."""
    return (u > half).astype(np.float32) - (u < -half)


def _descend(gram: Matrix, s: Matrix, y: Matrix, passes: int) -> None:
    """Coordinate descent on ``y^T G y / 2 - t^T y``; y and ``s = t - G y`` in place."""
    for _ in range(passes):
        changed = False
        for i in range(len(y)):
            g = gram[i, i]
            rounded = _round(s[i] + g * y[i], 0.5 * g)
            if rounded != y[i]:
                s -= (rounded - y[i]) * gram[i]
                y[i] = rounded
                changed = True
        if not changed:
            return


class NumpyBackend(Backend):
    """`Backend` in NumPy."""

    name = "numpy"

    def __init__(self, threads: int = 1) -> None:
        super().__init__(threads)

    def greedy(
        self, residual: Matrix, fallback: Matrix, x: Matrix, y: Matrix, d: Matrix, max_iterations: int, tolerance: float
    ) -> None:
        start = float(np.square(residual, dtype=np.float64).sum())
        ones = np.ones(residual.shape[1], np.float32)
        for c in range(len(d)):
            if float(np.square(residual, dtype=np.float64).sum()) <= EXHAUSTED * start:
                return
            for first in (ones, fallback):
                xc, yc, scale = _alternate(residual, first, max_iterations, tolerance)
                if scale != 0.0:
                    break
            else:
                return
            x[c], y[c], d[c] = xc, yc, scale
            residual -= np.outer(d[c] * xc, yc)

    def joint_block(self, gram: Matrix, s: Matrix, z: Matrix, d: Matrix) -> int:
        changes = 0
        for i in range(len(d)):
            g = gram[i, i]
            if g <= 0:
                continue
            target = s[i] + d[i] * g * z[i]
            fitted, count, total = fit_ternary(target)
            # Threshold iteration finds a good support, not always a better one than there was.
            kept_count, kept_total = int(np.count_nonzero(z[i])), float(target @ z[i])
            if total**2 * kept_count <= kept_total**2 * count:
                fitted, count, total = z[i].copy(), kept_count, kept_total
            scale = np.float32(total / (count * float(g))) if count else np.float32(0)
            changes += int(np.count_nonzero(fitted != z[i]))
            delta = scale * fitted - d[i] * z[i]
            z[i], d[i] = fitted, scale
            s[i + 1 :] -= np.outer(gram[i + 1 :, i], delta)
        return changes

    def ternary_block(self, gram: Matrix, s: Matrix, z: Matrix) -> int:
        changes = 0
        for i in range(len(z)):
            g = gram[i, i]
            if g <= 0:
                continue
            rounded = _round(s[i] + g * z[i], 0.5 * g)
            delta = rounded - z[i]
            changes += int(np.count_nonzero(delta))
            z[i] = rounded
            s[i + 1 :] -= np.outer(gram[i + 1 :, i], delta)
        return changes

    def weighted_block(self, gram: Matrix, h: Matrix, s: Matrix, y: Matrix) -> int:
        changes = 0
        for j in range(len(y)):
            before, moved = y[j].copy(), s[j].copy()
            if h[j, j] <= 0:
                continue
            _descend(h[j, j] * gram, moved, y[j], passes=1)
            delta = y[j] - before
            changes += int(np.count_nonzero(delta))
            s[j + 1 :] -= np.outer(h[j, j + 1 :], gram @ delta)
        return changes

    def column_block(
        self,
        gram: Matrix,
        lower: Matrix,
        inverse: Matrix,
        feed: Matrix,
        previous: Matrix,
        target: Matrix,
        y: Matrix,
        passes: int,
        width: int,
    ) -> int:
        changes = 0
        for j in range(len(y)):
            t = target[j] - feed[:j, j] @ target[:j]
            kept, s_kept = y[j].copy(), t - previous[j]
            _descend(gram, s_kept, kept, passes)
            # y^T G y / 2 - t^T y = -y^T (t + s) / 2
            best = -kept @ (t + s_kept)
            for point in nearest_points(lower, inverse @ t, width)[:POLISHED]:
                s = t - gram @ point
                _descend(gram, s, point, passes)
                if -point @ (t + s) < best:
                    best, kept, s_kept = -point @ (t + s), point, s
            changes += int(np.count_nonzero(kept != y[j]))
            y[j], target[j] = kept, s_kept
        return changes

    def level_pass(
        self, feedback: Matrix, price: float, unit: Matrix, costs: Matrix, target: Matrix, q: Matrix, width: int
    ) -> None:
        if width > 1:
            beam_levels(feedback, price, unit, costs, target, q, width)
            return
        for j in range(len(target)):
            u = feedback[j, j]
            q[j] = nearest_levels(target[j], unit, 2 * price * u * u, costs)
            target[j] = (target[j] - unit * q[j]) / u
            target[j + 1 :] -= np.outer(feedback[j, j + 1 :], target[j])

    def level_descent(self, h: Matrix, price: float, unit: Matrix, costs: Matrix, s: Matrix, q: Matrix) -> int:
        changes = 0
        for j in range(len(q)):
            chosen = nearest_levels(s[j] / h[j, j] + unit * q[j], unit, 2 * price / h[j, j], costs)
            delta = chosen - q[j]
            changes += int(np.count_nonzero(delta))
            q[j] = chosen
            s[j + 1 :] -= np.outer(h[j, j + 1 :], unit * delta)
        return changes


def nearest_points(lower: Matrix, q: Matrix, width: int) -> Matrix:
    """Ternary rows z near ``min_z |L^T z - q|``, nearest first, by a beam of ``width`` from the last coordinate on.

    Width 1 is Babai's nearest plane with clipping.
    """
    values = np.array([-1, 0, 1], np.float32)
    rows, cost = q[None].copy(), np.zeros(1, np.float32)
    for i in range(len(q) - 1, -1, -1):
        extended = (cost[:, None] + np.square(rows[:, i, None] - values * lower[i, i])).ravel()
        nearest = np.argsort(extended, kind="stable")[:width]
        cost, value = extended[nearest], values[nearest % 3]
        rows = rows[nearest // 3]
        rows[:, :i] -= value[:, None] * lower[i, :i]
        rows[:, i] = value
    return rows
