"""What every solver asks of its input, and the power of two that takes out its magnitude."""

from __future__ import annotations

import math
from collections.abc import Sequence

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


def checked_grams(gram: ArrayLike | Sequence[ArrayLike] | None, n: int) -> list[Matrix] | None:
    """The diagonal blocks of a metric of ``n`` columns: one for a matrix, those of a sequence of square matrices."""
    if gram is None:
        return None
    if not isinstance(gram, (list, tuple)) or (len(gram) and np.ndim(gram[0]) < 2):
        whole = checked_gram(gram, n)  # type: ignore[arg-type]
        return None if whole is None else [whole]
    found = [checked_matrix(block, "gram") for block in gram]
    sizes = [block.shape for block in found]
    if any(rows != columns for rows, columns in sizes) or sum(rows for rows, _ in sizes) != n:
        raise ConfigError(f"factorize: the blocks of gram must be square and span {n} columns, not {sizes}")
    return found


def power_of_two(matrix: Matrix | None) -> np.float32:
    """The power of two next to the largest magnitude (1 for zeros or no matrix)."""
    largest = 0.0 if matrix is None else float(np.abs(matrix).max())
    return np.float32(2.0 ** math.frexp(largest)[1]) if largest > 0 else np.float32(1)
