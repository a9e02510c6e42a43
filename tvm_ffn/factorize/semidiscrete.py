"""The semidiscrete decomposition ``W ~ X diag(d) Y^T``: a greedy start, then joint sweeps over all terms.

Greedy (Kolda and O'Leary 1998): one term after another on the residual. Sweeps (the improved SDD of arXiv 1611.01972,
section 3.2): every term (d_i, x_i, y_i) is fitted again with the others fixed. The paper recomputes the residual for
each term; here a sweep runs in Gram form, one GEMM a block of 32 terms. With the other side A (X for a sweep over Y)
and G = A^T A, term i sees ``s_i = a_i^T W - sum_l G_il d_l y_l``, and inside the block only b x b of G are needed.
Least squares for d before and after; no step raises the error.
"""

from __future__ import annotations

import numpy as np

from tvm_ffn.factorize.backend import Backend, blocks
from tvm_ffn.factorize.products import Matrix
from tvm_ffn.factorize.refit import Moments, refit_terms
from tvm_ffn.factorize.state import State

TERMS_PER_BLOCK = 32
GREEDY_ITERATIONS = 1000
GREEDY_TOLERANCE = 1e-3


def semidiscrete(w: Matrix, rank: int, *, sweeps: int, seed: int, normalize: bool, backend: Backend) -> State:
    """Decompose ``w`` (m, n) into ``rank`` terms; ``normalize`` divides the rows by their root mean square into ``a``.

    ``seed`` draws the start that replaces the vector of ones where a residual's rows sum to zero.
    """
    m, n = w.shape
    a = np.ones(m, np.float32)
    if normalize:
        a = np.sqrt(np.mean(np.square(w, dtype=np.float64), axis=1)).astype(np.float32)
        a = np.where(a > 0, np.maximum(a, 1e-8 * a.max()), np.float32(1)).astype(np.float32)
    target = np.ascontiguousarray(w / a[:, None])
    state = State(np.zeros((rank, m), np.float32), np.zeros(rank, np.float32), np.zeros((rank, n), np.float32), a)
    fallback = np.asarray(np.random.default_rng(seed).standard_normal(n), np.float32)
    backend.greedy(target.copy(), fallback, state.x, state.y, state.d, GREEDY_ITERATIONS, GREEDY_TOLERANCE)
    refit_terms(state, Moments.of(state.y, None, w, backend))
    for _ in range(sweeps):
        changes = _sweep(state.y, target.T, state.x, state.d, backend)
        changes += _sweep(state.x, target, state.y, state.d, backend)
        if changes == 0:
            break
    if sweeps:
        refit_terms(state, Moments.of(state.y, None, w, backend))
    return state


def _sweep(fixed: Matrix, target: Matrix, z: Matrix, d: Matrix, backend: Backend) -> int:
    """Fit every row of ``z`` (k, n) and its scale in turn: ``target ~ fixed^T diag(d) z``; z and d in place."""
    gram = fixed @ fixed.T
    correlation = backend.matmul(fixed, target)
    changes = 0
    for block in blocks(len(d), TERMS_PER_BLOCK):
        s = correlation[block] - backend.matmul(gram[block] * d, z)
        changes += backend.joint_block(np.ascontiguousarray(gram[block, block]), s, z[block], d[block])
    return changes
