"""``factorize``: checks, dispatch to a method, and the error measure."""

from __future__ import annotations

from collections.abc import Sequence

from numpy.typing import ArrayLike

from tvm_ffn.errors import ConfigError
from tvm_ffn.factorize.backend import Backend
from tvm_ffn.factorize.checks import checked_gram, checked_grams, checked_matrix, power_of_two
from tvm_ffn.factorize.factors import Factors
from tvm_ffn.factorize.native import fastest_backend
from tvm_ffn.factorize.products import Products, default_threads, single_threaded_blas
from tvm_ffn.factorize.refit import relative_error
from tvm_ffn.factorize.response import solve_response
from tvm_ffn.factorize.semidiscrete import semidiscrete

METHODS = ("response", "sdd")


def factorize(
    w: ArrayLike,
    rank: int,
    *,
    method: str = "response",
    gram: ArrayLike | None = None,
    rounds: int = 4,
    sweeps: int = 5,
    beam: int = 64,
    seed: int = 0,
    threads: int | None = None,
    backend: Backend | None = None,
) -> Factors:
    """Factorise ``w`` (m, n) into ``rank`` ternary terms: ``W ~ diag(a) X diag(d) Y^T``.

    ``method``: "sdd", the paper's semidiscrete decomposition with improved sweeps (arXiv 1611.01972; plain
    Frobenius error, a = 1), or "response", which minimises ``tr(E H E^T)`` with H = ``gram`` (n, n), the ridged
    covariance of the layer's inputs (None: the identity). ``sweeps`` and ``rounds`` bound the refinement of the two;
    ``beam`` is the number of points kept in the response solver's search for a column in the last round (1 is fastest;
    earlier rounds keep fewer). ``seed`` matters only for weights whose rows sum to zero;
    ``threads`` (default: all cores of this process) changes the time, not the result; ``backend`` replaces the native
    inner loops, e.g. by `reference.NumpyBackend`.
    Raises ConfigError for weights or a gram that are not finite or do not fit, a rank below 1, an unknown method.
    """
    weights = checked_matrix(w, "w")
    if method not in METHODS:
        raise ConfigError(f"factorize: unknown method {method!r}; there are {', '.join(METHODS)}")
    if rank < 1:
        raise ConfigError(f"factorize: rank must be at least 1, not {rank}")
    if beam < 1:
        raise ConfigError(f"factorize: beam must be at least 1, not {beam}")
    if rounds < 0 or sweeps < 0:
        raise ConfigError(f"factorize: rounds and sweeps must not be negative: {rounds}, {sweeps}")
    if threads is not None and threads < 1:
        raise ConfigError(f"factorize: threads must be at least 1, not {threads}")
    metric = checked_gram(gram, weights.shape[1])
    if method == "sdd" and metric is not None:
        raise ConfigError("factorize: method 'sdd' is unweighted and takes no gram; use method='response'")
    backend = backend or fastest_backend(threads)
    # Powers of two cost no rounding and keep squares of tiny or huge weights inside float32.
    unit, metric_unit = power_of_two(weights), power_of_two(metric)
    weights = weights / unit
    if metric is not None:
        metric = metric / metric_unit
    with single_threaded_blas():
        if method == "sdd":
            state = semidiscrete(weights, rank, sweeps=sweeps, seed=seed, normalize=False, backend=backend)
        else:
            state = solve_response(
                weights, rank, metric, rounds=rounds, sweeps=sweeps, beam=beam, seed=seed, backend=backend
            )
    state.d *= unit
    return state.factors()


def response_error(w: ArrayLike, factors: Factors, gram: ArrayLike | Sequence[ArrayLike] | None) -> float:
    """``sqrt(tr(E H E^T) / tr(W H W^T))``, E = W - factors.weight(), H = ``gram`` (None: the identity; a sequence:
    block diagonal).

    Raises ConfigError when the shapes do not fit or a value is not finite.
    """
    weights = checked_matrix(w, "w")
    approximation = factors.weight()
    if approximation.shape != weights.shape:
        raise ConfigError(f"response_error: w is {weights.shape}, the factors stand for {approximation.shape}")
    grams = checked_grams(gram, weights.shape[1])
    with single_threaded_blas():
        return relative_error(weights, approximation, grams, Products(default_threads()))
