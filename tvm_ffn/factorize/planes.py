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

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tvm_ffn.errors import ConfigError
from tvm_ffn.factorize.backend import Backend
from tvm_ffn.factorize.checks import checked_grams, checked_matrix, power_of_two
from tvm_ffn.factorize.factors import Factors
from tvm_ffn.factorize.levels import signed_digits
from tvm_ffn.factorize.native import fastest_backend
from tvm_ffn.factorize.plane_search import Problem, State
from tvm_ffn.factorize.products import single_threaded_blas

MOST_PLANES = 7
"""Magnitudes up to 127: the weights are int8 too, which gives every kernel an oracle."""


def factorize_planes(
    w: ArrayLike,
    *,
    planes: int = 5,
    penalty: float = 0.02,
    gram: ArrayLike | Sequence[ArrayLike] | None = None,
    rounds: int = 2,
    sweeps: int = 10,
    beam: int = 4,
    threads: int | None = None,
    backend: Backend | None = None,
) -> Factors:
    """Write each entry of ``w`` (m, n) as a row scale times an integer of ``planes`` signed binary digits.

    Returns factors with X = [I I ... I], int8 (m, planes m), ``d[p m + i] = 2^-p``, ``y[:, p m + i]`` the digits of
    plane p of row i, each integer in a representation with the fewest digits, and a > 0.
    ``penalty`` is the price of a digit that is not zero, in units of the mean response energy of a weight, from
    0.005 (accurate) to 0.05 (sparse). ``gram`` (n, n) is the ridged covariance of the layer's inputs (None: the
    identity; a sequence of square matrices: block diagonal, for more inputs than one matrix should hold). ``rounds``
    (at least 1) and ``sweeps`` bound the search; ``beam`` is the number of partial solutions that the last round's pass
    keeps for each row (1 is fastest). ``threads`` (default: all cores of this process) changes the time, not the
    result; ``backend`` replaces the native loops, e.g. by `reference.NumpyBackend`.
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
    grams = checked_grams(gram, weights.shape[1])
    backend = backend or fastest_backend(threads)
    # Powers of two cost no rounding and keep squares of tiny or huge weights inside float32.
    unit = power_of_two(weights)
    if grams is not None:
        metric_unit = np.max([power_of_two(block) for block in grams])
        grams = [block / metric_unit for block in grams]
    digits = signed_digits(planes)
    with single_threaded_blas():
        problem = Problem.of(weights / unit, grams, penalty, np.count_nonzero(digits, axis=1), backend)
        best = problem.solve(planes, rounds, sweeps, beam)
    return _factors(best, digits, unit)


def _factors(state: State, digits: NDArray[np.int8], unit: np.float32) -> Factors:
    planes, (n, m) = digits.shape[1], state.q.shape
    magnitude, sign = np.abs(state.q).astype(np.intp), np.sign(state.q).astype(np.int8)
    y = np.empty((n, planes * m), np.int8)
    for p in range(planes):
        y[:, p * m : (p + 1) * m] = sign * digits[:, p][magnitude]
    x = np.tile(np.eye(m, dtype=np.int8), (1, planes))
    d = np.repeat(2.0 ** -np.arange(planes), m).astype(np.float32)
    return Factors(x, d, y, (state.unit * np.float32(2.0 ** (planes - 1)) * unit).astype(np.float32))
