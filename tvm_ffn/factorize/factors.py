"""The result of a factorisation: ``W ~ diag(a) X diag(d) Y^T`` with ternary X and Y."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Factors:
    """Ternary factors of a weight matrix (Fixed-point Factorized Networks, arXiv 1611.01972, equation 2).

    ``x``: int8 (m, k) and ``y``: int8 (n, k), entries in {-1, 0, 1}; ``d``: float32 (k,), not negative;
    ``a``: float32 (m,), the row scales (ones in the paper's form).
    """

    x: NDArray[np.int8]
    d: NDArray[np.float32]
    y: NDArray[np.int8]
    a: NDArray[np.float32]

    @property
    def rank(self) -> int:
        """k, the number of ternary terms (a term whose ``d`` is 0 is counted and does nothing)."""
        return int(self.d.shape[0])

    @property
    def density_x(self) -> float:
        """Share of the entries of X that are not zero."""
        return float(np.count_nonzero(self.x) / self.x.size)

    @property
    def density_y(self) -> float:
        """Share of the entries of Y that are not zero."""
        return float(np.count_nonzero(self.y) / self.y.size)

    @property
    def adds(self) -> int:
        """Non-zero entries of X and Y: the additions of one matrix-vector product before sums are shared."""
        return int(np.count_nonzero(self.x) + np.count_nonzero(self.y))

    @cached_property
    def planes(self) -> int:
        """t where X is exactly t identities side by side, ``[I I ... I]`` (`factorize_planes`), else 0."""
        m, k = self.x.shape
        terms = np.arange(k)
        stacked = k % m == 0 and bool(np.all(self.x[terms % m, terms] == 1)) and np.count_nonzero(self.x) == k
        return k // m if stacked else 0

    def weight(self) -> NDArray[np.float32]:
        """The matrix the factors stand for: float32 (m, n)."""
        if self.planes:
            digits = (self.y * self.d).reshape(len(self.y), self.planes, -1)
            return np.ascontiguousarray(digits.sum(axis=1, dtype=np.float32).T) * self.a[:, None]
        left = self.a[:, None] * (self.x.astype(np.float32) * self.d)
        return left @ self.y.astype(np.float32).T
