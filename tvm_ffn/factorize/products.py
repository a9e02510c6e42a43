"""Matrix products on several threads that give the same bits on any number of them, and what is built from them.

A multi-threaded BLAS cuts a product by its thread count, so results change with the machine, and its threads spin,
which is slow beside other work. Here BLAS runs single-threaded; a product is cut into pieces that depend on its shape
alone, and a pool works them off. Cholesky and the triangular inverse are blocked so that products do the work.
"""

from __future__ import annotations

import functools
import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.floating[Any]]
"""float32 unless said otherwise."""

PIECES = 8
SMALL = 1 << 22
"""Multiply-adds below which a product is not worth handing out."""
PANEL = 384


@functools.cache
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def single_threaded_blas() -> AbstractContextManager[Any]:
    """While entered, BLAS and LAPACK calls of this process use one thread each."""
    limit: AbstractContextManager[Any] = _controller().limit(limits=1, user_api="blas")
    return limit


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="tvm_ffn-products")


def default_threads() -> int:
    """The number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Products:
    """Products on ``threads`` threads; enter `single_threaded_blas` around their use."""

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def matmul(self, a: Matrix, b: Matrix) -> Matrix:
        """``a @ b`` for matrices (m, l) and (l, n)."""
        (m, inner), n = a.shape, b.shape[1]
        if m * inner * n < SMALL:
            return a @ b
        out = np.empty((m, n), np.result_type(a, b))
        by_rows = m >= n
        longest = max(m, n)
        cuts = [longest * piece // PIECES for piece in range(PIECES + 1)]

        def piece(begin: int, end: int) -> None:
            if by_rows:
                np.matmul(a[begin:end], b, out=out[begin:end])
            else:
                np.matmul(a, b[:, begin:end], out=out[:, begin:end])

        if self._threads == 1:
            for begin, end in itertools.pairwise(cuts):
                piece(begin, end)
        else:
            list(_pool(self._threads).map(piece, cuts, cuts[1:]))
        return out

    def cholesky(self, a: Matrix) -> Matrix:
        """Lower triangular L with ``L L^T = a``, float64; raises numpy.linalg.LinAlgError when there is none."""
        n = len(a)
        rest = a.astype(np.float64)
        out = np.zeros((n, n))
        for begin in range(0, n, PANEL):
            end = min(begin + PANEL, n)
            corner = np.linalg.cholesky(rest[begin:end, begin:end])
            out[begin:end, begin:end] = corner
            if end < n:
                panel = self.matmul(rest[end:, begin:end], self.inverse_lower(corner).T)
                out[end:, begin:end] = panel
                # Only the lower triangle is read again: subtract below the diagonal, a strip at a time.
                for strip in range(end, n, PANEL):
                    stop = min(strip + PANEL, n)
                    rest[strip:, strip:stop] -= self.matmul(panel[strip - end :], panel[strip - end : stop - end].T)
        return out

    def inverse_lower(self, lower: Matrix) -> Matrix:
        """The inverse of a lower triangular matrix by halves: ``[[A, 0], [B, C]]^-1 = [[A', 0], [-C' B A', C']]``."""
        n = len(lower)
        if n <= 48:
            return np.tril(np.linalg.inv(lower))
        half = n // 2
        out = np.zeros_like(lower)
        out[:half, :half] = self.inverse_lower(lower[:half, :half])
        out[half:, half:] = self.inverse_lower(lower[half:, half:])
        out[half:, :half] = -self.matmul(out[half:, half:], self.matmul(lower[half:, :half], out[:half, :half]))
        return out
