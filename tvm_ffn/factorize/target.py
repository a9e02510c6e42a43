"""What the response solver aims at, and the triangular factor that carries errors from column to column."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tvm_ffn.errors import ConfigError
from tvm_ffn.factorize.loops import Matrix


def response_target(w: ArrayLike, h: ArrayLike, t: ArrayLike, *, ridge: float) -> NDArray[np.float32]:
    """The weights that also repair what earlier layers broke: ``W* = W + (T - W H)(H + r I)^-1``.

    ``w``: (m, n); ``h``: (n, n), the covariance of the layer's inputs in the quantised network, without a ridge;
    ``t``: (m, n), the covariance of the fp32 network's outputs with those inputs. With T = W H (nothing broken)
    W* = W. r is ``ridge`` times the mean diagonal of H. Raises ConfigError for shapes that do not fit and for a ridge that leaves H singular.
    """
    weights, second, cross = (np.asarray(v, np.float64) for v in (w, h, t))
    m, n = weights.shape
    if second.shape != (n, n) or cross.shape != (m, n):
        raise ConfigError(
            f"response_target: w is {weights.shape}, so h must be {(n, n)} and t {(m, n)}, "
            f"not {second.shape} and {cross.shape}"
        )
    if ridge <= 0:
        raise ConfigError(f"response_target: ridge must be positive, not {ridge}")
    mean = float(np.trace(second)) / n
    if mean <= 0:
        return weights.astype(np.float32)  # the inputs never move: nothing to repair
    ridged = second.copy()
    ridged[np.arange(n), np.arange(n)] += ridge * mean
    difference = cross - weights @ second
    return (weights + np.linalg.solve(ridged, difference.T).T).astype(np.float32)


def error_feedback(h: Matrix) -> tuple[NDArray[np.intp], Matrix]:
    """Column order ``o`` (largest diag H first) and upper triangular U with ``H[o, o]^-1 = U^T U``, from float64.

    When column j is fixed with error e, the best answer of the later columns is ``-e U_jl / U_jj`` (GPTQ,
    arXiv 2210.17323). Raises ConfigError when ``h`` is not positive definite.
    """
    order = np.argsort(-np.diag(h), kind="stable")
    backwards = order[::-1]
    try:
        lower = np.linalg.cholesky(h[np.ix_(backwards, backwards)].astype(np.float64))
    except np.linalg.LinAlgError:
        raise ConfigError("factorize: gram is not positive definite; add a ridge to its diagonal") from None
    return order, np.ascontiguousarray(inverse_lower(lower)[::-1, ::-1].astype(np.float32))


def inverse_lower(lower: Matrix) -> Matrix:
    """The inverse of a lower triangular matrix by halves: ``[[A, 0], [B, C]]^-1 = [[A', 0], [-C' B A', C']]``."""
    n = len(lower)
    if n <= 64:
        return np.tril(np.linalg.inv(lower))
    half = n // 2
    out = np.zeros_like(lower)
    out[:half, :half] = inverse_lower(lower[:half, :half])
    out[half:, half:] = inverse_lower(lower[half:, half:])
    out[half:, :half] = -out[half:, half:] @ (lower[half:, :half] @ out[:half, :half])
    return out
