"""The solver's working form of the factors: float32, one ternary term a row, changed in place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tvm_ffn.factorize.factors import Factors
from tvm_ffn.factorize.products import Matrix


@dataclass
class State:
    """``W ~ diag(a) x^T diag(d) y``: ``x`` (k, m), ``d`` (k,), ``y`` (k, n), ``a`` (m,), all C-contiguous float32."""

    x: Matrix
    d: Matrix
    y: Matrix
    a: Matrix

    def copy(self) -> State:
        """An independent copy."""
        return State(self.x.copy(), self.d.copy(), self.y.copy(), self.a.copy())

    def left(self) -> Matrix:
        """V^T = (diag(a) X diag(d))^T: (k, m)."""
        return self.x * self.d[:, None] * self.a

    def product(self) -> Matrix:
        """The matrix the factors stand for: (m, n)."""
        return self.left().T @ self.y

    def set_scales(self, d: Matrix) -> None:
        """Take over scales of any sign: a negative one becomes positive by flipping its column of X."""
        self.x[d < 0] *= -1
        self.d = np.abs(d).astype(np.float32)

    def factors(self) -> Factors:
        """The public form; terms without a scale, or with an empty side, are cleared on both sides."""
        alive = (self.d > 0) & self.x.any(axis=1) & self.y.any(axis=1)
        x = np.ascontiguousarray((self.x * alive[:, None]).T.astype(np.int8))
        y = np.ascontiguousarray((self.y * alive[:, None]).T.astype(np.int8))
        return Factors(x, (self.d * alive).astype(np.float32), y, self.a.astype(np.float32))
