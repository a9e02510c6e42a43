"""Least squares for the scales, and the error they leave, in the metric of the activations' covariance H.

With ``E = W - diag(a) X diag(d) Y^T`` the solver minimises ``tr(E H E^T)``, the squared error of the layer's response.
For fixed X and Y it is quadratic in d and in each a_i, with coefficients made of two small matrices only:
``M = Y^T H Y`` (k x k) and ``N = W H Y`` (m x k).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tvm_ffn.factorize.products import Matrix, Products
from tvm_ffn.factorize.state import State

SCALE_RIDGE = 1e-6
"""Added to the normal equations of d, relative to their mean diagonal: terms that coincide stay solvable."""


@dataclass(frozen=True)
class Moments:
    """``gram`` = Y^T H Y: (k, k) and ``cross`` = (W H Y)^T: (k, m), for the current Y."""

    gram: Matrix
    cross: Matrix

    @staticmethod
    def of(y: Matrix, h: Matrix | None, wh: Matrix, products: Products) -> Moments:
        """From ``y`` (k, n), ``h`` (n, n; None is the identity) and ``wh`` = W H (m, n)."""
        weighted = y if h is None else products.matmul(y, h)
        return Moments(products.matmul(weighted, y.T), products.matmul(y, wh.T))


def refit_terms(state: State, moments: Moments) -> None:
    """Least squares for d: ``(X_a^T X_a * M) d = diag(X_a^T N)`` with X_a = diag(a) X; signs move to X."""
    scaled = (state.x * state.a).astype(np.float64)
    normal = (scaled @ scaled.T) * moments.gram
    right = np.einsum("ci,ci->c", scaled, moments.cross)
    k = len(right)
    ridge = SCALE_RIDGE * np.trace(normal) / k
    if ridge <= 0:
        return
    normal[np.arange(k), np.arange(k)] += ridge
    state.set_scales(np.linalg.solve(normal, right).astype(np.float32))


def refit_rows(state: State, moments: Moments) -> None:
    """Least squares for each a_i: ``a_i = (v_i N_i) / (v_i M v_i)`` with v_i = x_i * d; rows it would flip are kept."""
    v = (state.x * state.d[:, None]).T
    numerator = np.einsum("ic,ci->i", v, moments.cross)
    denominator = np.einsum("ic,ic->i", v @ moments.gram, v)
    fits = (numerator > 0) & (denominator > 0)
    state.a[fits] = numerator[fits] / denominator[fits]


def relative_error(w: Matrix, approximation: Matrix, grams: Sequence[Matrix] | None, products: Products) -> float:
    """``sqrt(tr(E H E^T) / tr(W H W^T))``, H block diagonal: the relative error of the responses; 0 when both are 0."""
    ends = np.cumsum([len(gram) for gram in grams]) if grams else [w.shape[1]]
    parts = [np.split(matrix, ends[:-1], axis=1) for matrix in (w - approximation, w)]
    metrics: Sequence[Matrix | None] = grams or [None]
    error, whole = (sum(map(energy, matrix, metrics, [products] * len(metrics))) for matrix in parts)
    return float(np.sqrt(max(error, 0.0) / max(whole, np.finfo(np.float64).tiny)))


def energy(w: Matrix, h: Matrix | None, products: Products) -> float:
    """``tr(W H W^T)``."""
    return float(np.einsum("ij,ij->", w if h is None else products.matmul(w, h), w, dtype=np.float64))
