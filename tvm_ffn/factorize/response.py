"""The dense response solver: factors that minimise ``tr(E H E^T)``, the error of the layer's responses.

Start: semidiscrete decomposition of the row-normalised weights. Then rounds of
  1. the column pass (column_pass.py), which replaces Y;
  2. least squares for d;
  3. twice: coordinate descent on Y in the metric of H, on X, least squares for d and for a.
A round can make things worse, so the best state met is what is returned.
"""

from __future__ import annotations

import numpy as np

from tvm_ffn.factorize.backend import Backend, blocks
from tvm_ffn.factorize.column_pass import column_pass
from tvm_ffn.factorize.products import Matrix
from tvm_ffn.factorize.refit import Moments, energy, refit_rows, refit_terms
from tvm_ffn.factorize.semidiscrete import TERMS_PER_BLOCK, semidiscrete
from tvm_ffn.factorize.state import State
from tvm_ffn.factorize.target import error_feedback

COLUMNS_PER_BLOCK = 256
DESCENTS_PER_ROUND = 2
BEAM_GROWTH = 8
"""From round to round: a wide beam pays only in the last one, whose Y is kept."""


def solve_response(
    w: Matrix, rank: int, h: Matrix | None, *, rounds: int, sweeps: int, beam: int, seed: int, backend: Backend
) -> State:
    """Factorise ``w`` (m, n) in the metric of ``h`` (n, n; positive definite; None is the identity)."""
    n = w.shape[1]
    wh = w if h is None else backend.matmul(w, h)
    order, feedback = (np.arange(n), np.eye(n, dtype=np.float32)) if h is None else error_feedback(h, backend)
    state = semidiscrete(w, rank, sweeps=sweeps, seed=seed, normalize=True, backend=backend)
    moments = Moments.of(state.y, h, wh, backend)
    refit_rows(state, moments)
    refit_terms(state, moments)
    best, best_error = state.copy(), energy(w - state.product(), h, backend)
    for earlier in reversed(range(rounds)):
        width = max(1, beam // BEAM_GROWTH**earlier)
        state.y = column_pass(state.left(), w, state.y, order, feedback, beam=width, backend=backend)
        refit_terms(state, Moments.of(state.y, h, wh, backend))
        for _ in range(DESCENTS_PER_ROUND):
            descend_y(state, h, wh, backend)
            moments = Moments.of(state.y, h, wh, backend)
            descend_x(state, moments, backend)
            refit_terms(state, moments)
            refit_rows(state, moments)
        error = energy(w - state.product(), h, backend)
        if error < best_error:
            best, best_error = state.copy(), error
    return best


def descend_y(state: State, h: Matrix | None, wh: Matrix, backend: Backend) -> None:
    """One pass of ``min tr(Y^T G Y H) / 2 - tr(B^T Y)``, G = V^T V, B = V^T W H, by blocks of columns."""
    left = state.left()
    gram = backend.matmul(left, left.T)
    correlation = backend.matmul(wh.T, left.T)
    columns = np.ascontiguousarray(state.y.T)
    weighted = backend.matmul(columns, gram)
    for block in blocks(len(columns), COLUMNS_PER_BLOCK):
        seen = weighted[block] if h is None else backend.matmul(h[block], weighted)
        s = correlation[block] - seen
        metric = np.eye(len(s), dtype=np.float32) if h is None else np.ascontiguousarray(h[block, block])
        before = columns[block].copy()
        if backend.weighted_block(gram, metric, s, columns[block]):
            weighted[block] += backend.matmul(columns[block] - before, gram)
    state.y = np.ascontiguousarray(columns.T)


def descend_x(state: State, moments: Moments, backend: Backend) -> None:
    """One pass of coordinate descent on X: every row of W is its own problem, with Gram matrix diag(d) M diag(d)."""
    gram = moments.gram * state.d * state.d[:, None]
    correlation = moments.cross * state.d[:, None] / state.a
    for block in blocks(len(state.d), TERMS_PER_BLOCK):
        s = correlation[block] - backend.matmul(gram[block], state.x)
        backend.ternary_block(np.ascontiguousarray(gram[block, block]), s, state.x[block])
