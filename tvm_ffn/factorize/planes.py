"""``factorize_planes``: each weight a few signed powers of two, chosen for the layer's responses at a price a digit.

``W ~ diag(a) X diag(d) Y^T`` with ``X = [I I ... I]``: weight (i, j) is ``a_i sum_p s_p 2^-p``, a row scale times an
integer in signed digits, one ternary plane a power of two. One stage at run time, no sums in between. With E the
error of the weights and H the covariance of the inputs, the solver minimises

    tr(E H E^T) / 2 + price * (digits that are not zero),     price = penalty * tr(W H W^T) / (m n)

by rounds of
  1. the pass of GPTQ (arXiv 2210.17323) with a price: columns by descending diag H, column j takes the integers q
     that minimise ``(w_j - u q)^2 / 2 + price U_jj^2 costs[|q|]``, and its error moves the later columns through U,
     ``H^-1 = U^T U``; in the last round a beam looks for better sequences inside each block of columns;
  2. least squares for the row scales, ``a_i = <B_i, (W H)_i> / <B_i, (B H)_i>``;
  3. sweeps of coordinate descent over the columns, each followed by least squares.
Every row of W is a problem of its own, so each keeps the best state it met.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tvm_ffn.errors import ConfigError
from tvm_ffn.factorize.backend import Backend, blocks
from tvm_ffn.factorize.checks import checked_gram, checked_matrix, power_of_two
from tvm_ffn.factorize.factors import Factors
from tvm_ffn.factorize.levels import signed_digits
from tvm_ffn.factorize.native import fastest_backend
from tvm_ffn.factorize.products import Matrix, single_threaded_blas
from tvm_ffn.factorize.refit import energy
from tvm_ffn.factorize.target import error_feedback

MOST_PLANES = 7
"""Magnitudes up to 127: the weights are int8 too, which gives every kernel an oracle."""
COLUMNS_PER_BLOCK = 128
SETTLED = 1e-3
"""Share of the weights that a sweep changes below which no further sweep pays."""
START_SCALES = {1: 1.5, 2: 2.0, 3: 2.5, 4: 3.0}
"""First a_i over the root mean square of row i, by the number of planes; too small costs 10-20 % of the error."""
LARGEST_START_SCALE = 4.0


def factorize_planes(
    w: ArrayLike,
    *,
    planes: int = 5,
    penalty: float = 0.02,
    gram: ArrayLike | None = None,
    rounds: int = 2,
    sweeps: int = 3,
    beam: int = 8,
    threads: int | None = None,
    backend: Backend | None = None,
) -> Factors:
    """Write each entry of ``w`` (m, n) as a row scale times an integer of ``planes`` signed binary digits.

    Returns factors with X = [I I ... I], int8 (m, planes m), ``d[p m + i] = 2^-p``, ``y[:, p m + i]`` the digits of
    plane p of row i, each integer in a representation with the fewest digits, and a > 0.
    ``penalty`` is the price of a digit that is not zero, in units of the mean response energy of a weight, from
    0.005 (accurate) to 0.05 (sparse). ``gram`` (n, n) is the ridged covariance of the layer's inputs (None: the
    identity). ``rounds`` (at least 1) and ``sweeps`` bound the search; ``beam`` is the number of partial solutions
    that the last round's pass keeps for each row (1 is fastest). ``threads`` (default: all cores of this process)
    changes the time, not the result; ``backend`` replaces the native loops, e.g. by `reference.NumpyBackend`.
    Raises ConfigError for weights or a gram that are not finite or do not fit, and for options out of range.
    """
    weights = checked_matrix(w, "w")
    if not 1 <= planes <= MOST_PLANES:
        raise ConfigError(f"factorize_planes: planes must be from 1 to {MOST_PLANES}, not {planes}")
    if not 0 <= penalty < np.inf:
        raise ConfigError(f"factorize_planes: penalty must be finite and not negative, not {penalty}")
    if rounds < 1 or sweeps < 0:
        raise ConfigError(f"factorize_planes: rounds must be at least 1 and sweeps at least 0: {rounds}, {sweeps}")
    if beam < 1:
        raise ConfigError(f"factorize_planes: beam must be at least 1, not {beam}")
    if threads is not None and threads < 1:
        raise ConfigError(f"factorize_planes: threads must be at least 1, not {threads}")
    metric = checked_gram(gram, weights.shape[1])
    backend = backend or fastest_backend(threads)
    # Powers of two cost no rounding and keep squares of tiny or huge weights inside float32.
    unit = power_of_two(weights)
    if metric is not None:
        metric = metric / power_of_two(metric)
    digits = signed_digits(planes)
    with single_threaded_blas():
        problem = _Problem.of(weights / unit, metric, penalty, np.count_nonzero(digits, axis=1), backend)
        best = problem.solve(planes, rounds, sweeps, beam)
    return _factors(best, digits, unit)


@dataclass
class _State:
    """``W_i ~ unit_i q_i``: ``q`` (n, m), integers held by column, and ``unit`` (m,), both float32."""

    q: Matrix
    unit: Matrix


@dataclass(frozen=True)
class _Problem:
    """What stays the same while solving. Matrices are held by column of W: (n, m)."""

    w: Matrix
    h: Matrix | None
    hw: Matrix
    order: NDArray[np.intp]
    feedback: Matrix | None
    price: float
    costs: Matrix
    backend: Backend

    @staticmethod
    def of(w: Matrix, h: Matrix | None, penalty: float, costs: NDArray[np.intp], backend: Backend) -> _Problem:
        columns = np.ascontiguousarray(w.T)
        hw = columns if h is None else backend.matmul(h, columns)
        order, feedback = (np.arange(len(columns)), None) if h is None else error_feedback(h, backend)
        price = penalty * energy(w, h, backend) / w.size
        return _Problem(columns, h, hw, order, feedback, price, costs.astype(np.float32), backend)

    def solve(self, planes: int, rounds: int, sweeps: int, beam: int) -> _State:
        rms = np.sqrt(np.mean(np.square(self.w, dtype=np.float64), axis=0))
        scale = START_SCALES.get(planes, LARGEST_START_SCALE) * np.maximum(rms, 1e-8 * rms.max())
        unit = np.where(scale > 0, scale * 2.0 ** (1 - planes), 1.0).astype(np.float32)
        best, lowest = _State(np.zeros_like(self.w), unit.copy()), np.full(len(unit), np.inf)
        for earlier in reversed(range(rounds)):
            q = self.pass_columns(unit, beam if earlier == 0 else 1)
            hq = self.weighted(q)
            unit = self.refit(unit, q, hq)
            for _ in range(sweeps):
                changes = self.descend(unit, q, hq)
                unit = self.refit(unit, q, hq)
                if changes < SETTLED * q.size:
                    break
            objective = self.objective(unit, q, hq)
            better = objective < lowest
            best.q[:, better], best.unit[better], lowest[better] = q[:, better], unit[better], objective[better]
        return best

    def weighted(self, columns: Matrix) -> Matrix:
        """``H columns``, a copy."""
        return columns.copy() if self.h is None else self.backend.matmul(self.h, columns)

    def pass_columns(self, unit: Matrix, width: int) -> Matrix:
        """New integers for all columns, the error of each fed to those after it: by blocks, the rest by one product."""
        targets = self.w[self.order]
        chosen = np.empty_like(targets)
        for block in blocks(len(targets), COLUMNS_PER_BLOCK):
            size = block.stop - block.start
            u = np.eye(size, dtype=np.float32) if self.feedback is None else self.feedback[block, block].copy()
            self.backend.level_pass(u, self.price, unit, self.costs, targets[block], chosen[block], width)
            if self.feedback is not None and block.stop < len(targets):
                targets[block.stop :] -= self.backend.matmul(self.feedback[block, block.stop :].T, targets[block])
        q = np.empty_like(chosen)
        q[self.order] = chosen
        return q

    def descend(self, unit: Matrix, q: Matrix, hq: Matrix) -> int:
        """One sweep over the columns; ``q`` and ``hq`` = H q in place; returns the number of changed entries."""
        changes = 0
        for block in blocks(len(q), COLUMNS_PER_BLOCK):
            size = block.stop - block.start
            h = np.eye(size, dtype=np.float32) if self.h is None else self.h[block, block].copy()
            before, s = q[block].copy(), self.hw[block] - unit * hq[block]
            changed = self.backend.level_descent(h, self.price, unit, self.costs, s, q[block])
            if changed == 0:
                continue
            changes += changed
            step = q[block] - before
            if self.h is None:
                hq[block] += step
            else:
                hq += self.backend.matmul(self.h[:, block], step)
        return changes

    def refit(self, unit: Matrix, q: Matrix, hq: Matrix) -> Matrix:
        """Least squares for the scale of every row; a row that would get none, or a negative one, keeps its own."""
        numerator = np.einsum("ji,ji->i", q, self.hw, dtype=np.float64)
        denominator = np.einsum("ji,ji->i", q, hq, dtype=np.float64)
        fits = (numerator > 0) & (denominator > 0)
        return np.where(fits, numerator / np.where(fits, denominator, 1.0), unit).astype(np.float32)

    def objective(self, unit: Matrix, q: Matrix, hq: Matrix) -> NDArray[np.float64]:
        """``(E H E^T)_ii / 2 + price * digits`` of every row i: (m,)."""
        error, weighted_error = self.w - unit * q, self.hw - unit * hq
        responses = np.einsum("ji,ji->i", error, weighted_error, dtype=np.float64)
        return 0.5 * responses + self.price * self.costs[np.abs(q).astype(np.intp)].sum(axis=0, dtype=np.float64)


def _factors(state: _State, digits: NDArray[np.int8], unit: np.float32) -> Factors:
    planes, (n, m) = digits.shape[1], state.q.shape
    magnitude, sign = np.abs(state.q).astype(np.intp), np.sign(state.q).astype(np.int8)
    y = np.empty((n, planes * m), np.int8)
    for p in range(planes):
        y[:, p * m : (p + 1) * m] = sign * digits[:, p][magnitude]
    x = np.tile(np.eye(m, dtype=np.int8), (1, planes))
    d = np.repeat(2.0 ** -np.arange(planes), m).astype(np.float32)
    return Factors(x, d, y, (state.unit * np.float32(2.0 ** (planes - 1)) * unit).astype(np.float32))
