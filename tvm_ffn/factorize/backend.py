"""What the solver computes with, as one interface with two implementations: NumPy (reference) and native (C++).

Arrays are C-contiguous float32, ternary entries are -1, 0, 1; everything marked "in place" is written.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from tvm_ffn.factorize.products import Matrix, Products


class Backend(Products, ABC):
    """Products (products.py) and inner loops. The equations are in csrc/solver.h and, executable, in reference.py."""

    name: str

    @abstractmethod
    def greedy(
        self, residual: Matrix, fallback: Matrix, x: Matrix, y: Matrix, d: Matrix, max_iterations: int, tolerance: float
    ) -> None:
        """Greedy semidiscrete decomposition of ``residual`` (m, n) into x (k, m), y (k, n), d (k,), all in place."""

    @abstractmethod
    def joint_block(self, gram: Matrix, s: Matrix, z: Matrix, d: Matrix) -> int:
        """Best ternary row and scale for each of b terms in turn; s, z (b, n) and d (b,) in place; changed entries."""

    @abstractmethod
    def ternary_block(self, gram: Matrix, s: Matrix, z: Matrix) -> int:
        """Coordinate descent on b ternary rows under a Gram matrix; s, z (b, n) in place; changed entries."""

    @abstractmethod
    def weighted_block(self, gram: Matrix, h: Matrix, s: Matrix, y: Matrix) -> int:
        """Coordinate descent on b columns of Y in the metric of H; s, y (b, k) in place; changed entries."""

    @abstractmethod
    def column_block(
        self,
        gram: Matrix,
        lower: Matrix,
        inverse: Matrix,
        feed: Matrix,
        previous: Matrix,
        target: Matrix,
        y: Matrix,
        passes: int,
        width: int,
    ) -> int:
        """Best ternary column for b targets in turn, errors fed forward; target, y (b, k) in place; changed entries."""

    @abstractmethod
    def level_pass(
        self, feedback: Matrix, price: float, unit: Matrix, costs: Matrix, target: Matrix, q: Matrix, width: int
    ) -> None:
        """Best priced level for b columns in turn, errors fed forward; target (errors on exit), q (b, m) in place."""

    @abstractmethod
    def level_descent(self, h: Matrix, price: float, unit: Matrix, costs: Matrix, s: Matrix, q: Matrix) -> int:
        """Descent on b columns at priced levels in the metric of H; s, q (b, m) in place; changed entries."""


def blocks(n: int, size: int) -> list[slice]:
    """[0, n) in consecutive slices of ``size``, the last one shorter."""
    return [slice(begin, min(begin + size, n)) for begin in range(0, n, size)]
