"""What the response solver aims at, and the triangular factor that carries errors from column to column."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tvm_ffn.errors import ConfigError
from tvm_ffn.factorize.backend import Backend
from tvm_ffn.factorize.products import Matrix, Products, default_threads, single_threaded_blas


def response_target(
    w: ArrayLike, h: ArrayLike, t: ArrayLike, *, ridge: float, threads: int | None = None
) -> NDArray[np.float32]:
    """The weights that also repair what earlier layers broke: ``W* = W + (T - W H)(H + r I)^-1``.

    ``w``: (m, n); ``h``: (n, n), the covariance of the layer's inputs in the quantised network, without a ridge;
    ``t``: (m, n), the covariance of the fp32 network's outputs with those inputs. With T = W H (nothing broken)
    W* = W. r is ``ridge`` times the mean diagonal of H. Raises ConfigError for shapes that do not fit and for a ridge
    that is not positive.
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
    products = Products(threads or default_threads())
    with single_threaded_blas():
        difference = cross - products.matmul(weights, second)
        inverse = products.inverse_lower(_cholesky(ridged, products, "h"))
        repair = products.matmul(products.matmul(difference, inverse.T), inverse)
    return (weights + repair).astype(np.float32)


def error_feedback(h: Matrix, backend: Backend) -> tuple[NDArray[np.intp], Matrix]:
    """Column order ``o`` (largest diag H first) and upper triangular U with ``H[o, o]^-1 = U^T U``, from float64.

    When column j is fixed with error e, the best answer of the later columns is ``-e U_jl / U_jj`` (GPTQ,
    arXiv 2210.17323). Raises ConfigError when ``h`` is not positive definite.
    """
    order = np.argsort(-np.diag(h), kind="stable")
    backwards = order[::-1]
    lower = _cholesky(h[np.ix_(backwards, backwards)], backend, "gram")
    return order, np.ascontiguousarray(backend.inverse_lower(lower)[::-1, ::-1].astype(np.float32))


def _cholesky(a: Matrix, products: Products, name: str) -> Matrix:
    try:
        return products.cholesky(a)
    except np.linalg.LinAlgError:
        raise ConfigError(f"factorize: {name} is not positive definite; add a ridge to its diagonal") from None
