"""What every solver asks of its input, and the power of two that takes out its magnitude."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from tvm_ffn.errors import ConfigError
from tvm_ffn.factorize.products import Matrix


def checked_matrix(values: ArrayLike, name: str) -> Matrix:
    """A finite, non-empty, contiguous float32 matrix."""
    array = np.asarray(values)
    if array.ndim != 2 or array.size == 0:
        raise ConfigError(f"factorize: {name} must be a non-empty matrix, not of shape {array.shape}")
    if not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
        raise ConfigError(f"factorize: {name} must be real numbers, not {array.dtype}")
    matrix = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(matrix).all():
        raise ConfigError(f"factorize: {name} holds NaN or infinite values")
    return matrix


def checked_gram(gram: ArrayLike | None, n: int) -> Matrix | None:
    """A finite (n, n) float32 matrix, or None for the identity."""
    if gram is None:
        return None
    matrix = checked_matrix(gram, "gram")
    if matrix.shape != (n, n):
        raise ConfigError(f"factorize: gram must be {(n, n)} for weights of {n} columns, not {matrix.shape}")
    return matrix


def power_of_two(matrix: Matrix | None) -> np.float32:
    """The power of two next to the largest magnitude (1 for zeros or no matrix)."""
    largest = 0.0 if matrix is None else float(np.abs(matrix).max())
    return np.float32(2.0 ** math.frexp(largest)[1]) if largest > 0 else np.float32(1)
