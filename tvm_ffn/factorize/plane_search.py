"""The search of `factorize_planes`, on the inputs in one part or, where their covariance is block diagonal, in several.

The parts share the row scales and the price of a digit; the pass over the columns, the sweeps and the products with H
stay inside each. Matrices are held by column of W: (n, m).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tvm_ffn.factorize.backend import Backend, blocks
from tvm_ffn.factorize.products import Matrix
from tvm_ffn.factorize.refit import energy
from tvm_ffn.factorize.target import error_feedback

COLUMNS_PER_BLOCK = 128
SETTLED = 1e-3
"""Share of the weights that a sweep changes below which no further sweep pays."""
START_SCALES = {1: 1.5, 2: 2.0, 3: 2.5, 4: 3.0}
"""First a_i over the root mean square of row i, by the number of planes; too small costs 10-20 % of the error."""
LARGEST_START_SCALE = 4.0


@dataclass
class State:
    """``W_i ~ unit_i q_i``: ``q`` (n, m), integers held by column, and ``unit`` (m,), both float32."""

    q: Matrix
    unit: Matrix


@dataclass(frozen=True)
class Part:
    """Inputs whose covariance ``h`` (None: the identity) is formed, ``w`` their columns and ``hw`` = H w."""

    w: Matrix
    h: Matrix | None
    hw: Matrix
    order: NDArray[np.intp]
    feedback: Matrix | None

    @staticmethod
    def of(columns: Matrix, h: Matrix | None, backend: Backend) -> Part:
        """Prepare the products and the factor that carries errors from column to column."""
        if h is None:
            return Part(columns, None, columns, np.arange(len(columns)), None)
        return Part(columns, h, backend.matmul(h, columns), *error_feedback(h, backend))

    def weighted(self, columns: Matrix, backend: Backend) -> Matrix:
        """``H columns``, a copy."""
        return columns.copy() if self.h is None else backend.matmul(self.h, columns)


@dataclass(frozen=True)
class Problem:
    """What stays the same while solving: the parts in the order of W's columns, and what a digit costs."""

    parts: Sequence[Part]
    price: float
    costs: Matrix
    backend: Backend

    @staticmethod
    def of(
        w: Matrix, grams: Sequence[Matrix] | None, penalty: float, costs: NDArray[np.intp], backend: Backend
    ) -> Problem:
        """``w`` (m, n) in the metric of the block diagonal matrix of ``grams`` (None: the identity)."""
        columns = np.ascontiguousarray(w.T)
        ends = np.cumsum([len(gram) for gram in grams]) if grams else [len(columns)]
        metrics: Sequence[Matrix | None] = grams or [None]
        cut = np.split(columns, ends[:-1])
        parts = [Part.of(part, h, backend) for part, h in zip(cut, metrics, strict=True)]
        total = sum(energy(np.ascontiguousarray(part.w.T), part.h, backend) for part in parts)
        return Problem(parts, penalty * total / w.size, costs.astype(np.float32), backend)

    def solve(self, planes: int, rounds: int, sweeps: int, beam: int) -> State:
        """The best state of every row over all rounds."""
        w = np.concatenate([part.w for part in self.parts])
        rms = np.sqrt(np.mean(np.square(w, dtype=np.float64), axis=0))
        scale = START_SCALES.get(planes, LARGEST_START_SCALE) * np.maximum(rms, 1e-8 * rms.max())
        unit = np.where(scale > 0, scale * 2.0 ** (1 - planes), 1.0).astype(np.float32)
        best, lowest = State(np.zeros_like(w), unit.copy()), np.full(len(unit), np.inf)
        for earlier in reversed(range(rounds)):
            q = [self.pass_columns(part, unit, beam if earlier == 0 else 1) for part in self.parts]
            hq = [part.weighted(own, self.backend) for part, own in zip(self.parts, q, strict=True)]
            unit = self.refit(unit, q, hq)
            for _ in range(sweeps):
                changes = sum(self.descend(*args, unit) for args in zip(self.parts, q, hq, strict=True))
                unit = self.refit(unit, q, hq)
                if changes < SETTLED * w.size:
                    break
            objective = self.objective(unit, q, hq)
            better = objective < lowest
            best.q[:, better], best.unit[better], lowest[better] = (
                np.concatenate(q)[:, better],
                unit[better],
                objective[better],
            )
        return best

    def pass_columns(self, part: Part, unit: Matrix, width: int) -> Matrix:
        """New integers for all columns, the error of each fed to those after it: by blocks, the rest by one product."""
        targets = part.w[part.order]
        chosen = np.empty_like(targets)
        for block in blocks(len(targets), COLUMNS_PER_BLOCK):
            size = block.stop - block.start
            u = np.eye(size, dtype=np.float32) if part.feedback is None else part.feedback[block, block].copy()
            self.backend.level_pass(u, self.price, unit, self.costs, targets[block], chosen[block], width)
            if part.feedback is not None and block.stop < len(targets):
                targets[block.stop :] -= self.backend.matmul(part.feedback[block, block.stop :].T, targets[block])
        q = np.empty_like(chosen)
        q[part.order] = chosen
        return q

    def descend(self, part: Part, q: Matrix, hq: Matrix, unit: Matrix) -> int:
        """One sweep over the columns; ``q`` and ``hq`` = H q in place; returns the number of changed entries."""
        changes = 0
        for block in blocks(len(q), COLUMNS_PER_BLOCK):
            size = block.stop - block.start
            h = np.eye(size, dtype=np.float32) if part.h is None else part.h[block, block].copy()
            before, s = q[block].copy(), part.hw[block] - unit * hq[block]
            changed = self.backend.level_descent(h, self.price, unit, self.costs, s, q[block])
            if changed == 0:
                continue
            changes += changed
            step = q[block] - before
            if part.h is None:
                hq[block] += step
            else:
                hq += self.backend.matmul(part.h[:, block], step)
        return changes

    def refit(self, unit: Matrix, q: Sequence[Matrix], hq: Sequence[Matrix]) -> Matrix:
        """Least squares for the scale of every row; a row that would get none, or a negative one, keeps its own."""
        pairs = list(zip(self.parts, q, hq, strict=True))
        numerator = sum(np.einsum("ji,ji->i", own, part.hw, dtype=np.float64) for part, own, _ in pairs)
        denominator = sum(np.einsum("ji,ji->i", own, weighted, dtype=np.float64) for _, own, weighted in pairs)
        fits = (numerator > 0) & (denominator > 0)
        return np.where(fits, numerator / np.where(fits, denominator, 1.0), unit).astype(np.float32)

    def objective(self, unit: Matrix, q: Sequence[Matrix], hq: Sequence[Matrix]) -> NDArray[np.float64]:
        """``(E H E^T)_ii / 2 + price * digits`` of every row i: (m,)."""
        total = np.zeros(len(unit))
        for part, own, weighted in zip(self.parts, q, hq, strict=True):
            error, weighted_error = part.w - unit * own, part.hw - unit * weighted
            total += 0.5 * np.einsum("ji,ji->i", error, weighted_error, dtype=np.float64)
            total += self.price * self.costs[np.abs(own).astype(np.intp)].sum(axis=0, dtype=np.float64)
        return total
