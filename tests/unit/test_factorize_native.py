"""The C++ loops against their NumPy reference, loop by loop and end to end."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import numpy as np
import pytest

from tvm_ffn.factorize import factorize, native, response_error
from tvm_ffn.factorize.backend import Backend
from tvm_ffn.factorize.products import Products, single_threaded_blas
from tvm_ffn.factorize.reference import NumpyBackend, fit_ternary, nearest_points

SHAPES = [(1, 1), (3, 5), (8, 16), (13, 67), (32, 130)]


@pytest.fixture(scope="module")
def compiled() -> Backend:
    if native.library_path() is None:
        pytest.skip("the native library is not built (cmake -B build && cmake --build build)")
    return native.fastest_backend(2)


def grams(k: int, seed: int) -> np.ndarray:
    a = np.random.default_rng(seed).standard_normal((2 * k, k))
    return (a.T @ a / k).astype(np.float32)


def ternary(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1, 2, shape).astype(np.float32)


def normal(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("n", [1, 2, 7, 64, 1025])
def test_the_fitted_support_is_nearly_the_best(n: int) -> None:
    s = normal((n,), n)
    z, count, total = fit_ternary(s)
    assert count == np.count_nonzero(z)
    assert total == pytest.approx(float(s @ z), rel=1e-5)
    threshold = 0.5 * total / count
    assert np.array_equal(z != 0, np.abs(s) > threshold)
    descending = np.sort(np.abs(s))[::-1].astype(np.float64)
    best = np.max(np.cumsum(descending) ** 2 / np.arange(1, n + 1))
    assert total**2 / count >= 0.9 * best


@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_greedy(compiled: Backend, m: int, n: int) -> None:
    w, k = normal((m, n), m), min(m, n)
    found = []
    for backend in (compiled, NumpyBackend()):
        r, x, y, d = w.copy(), np.zeros((k, m), np.float32), np.zeros((k, n), np.float32), np.zeros(k, np.float32)
        backend.greedy(r, np.ones(n, np.float32), x, y, d, 1000, 1e-3)
        np.testing.assert_allclose(r, w - (x.T * d) @ y, atol=1e-4)
        found.append((x, y, d))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize(("b", "n"), SHAPES)
def test_joint_block(compiled: Backend, b: int, n: int) -> None:
    found = []
    for backend in (compiled, NumpyBackend()):
        s, z, d = normal((b, n), 1), ternary((b, n), 2), np.abs(normal((b,), 3))
        found.append((s, z, d, np.array(backend.joint_block(grams(b, 0), s, z, d))))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("b", "n"), SHAPES)
def test_ternary_block(compiled: Backend, b: int, n: int) -> None:
    found = []
    for backend in (compiled, NumpyBackend()):
        s, z = normal((b, n), 1), ternary((b, n), 2)
        found.append((s, z, np.array(backend.ternary_block(grams(b, 0), s, z))))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("b", "k"), SHAPES)
def test_weighted_block_descends(compiled: Backend, b: int, k: int) -> None:
    gram, h, right = grams(k, 0), grams(b, 1), normal((b, k), 2)
    start = ternary((b, k), 3)

    def objective(y: np.ndarray) -> float:
        return float(0.5 * np.sum((y @ gram) * (h @ y)) - np.sum(right * y))

    found = []
    for backend in (compiled, NumpyBackend()):
        y, s = start.copy(), right - h @ start @ gram
        changes = backend.weighted_block(gram, h, s, y)
        assert changes == np.count_nonzero(y != start)
        assert objective(y) <= objective(start) + 1e-3
        found.append(y)
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("width", [1, 5])
@pytest.mark.parametrize(("b", "k"), SHAPES)
def test_column_block(compiled: Backend, b: int, k: int, width: int) -> None:
    gram = grams(k, 0)
    lower = np.linalg.cholesky(gram + 0.03 * np.eye(k, dtype=np.float32))
    inverse = np.tril(np.linalg.inv(lower))
    feed = np.triu(normal((b, b), 4), 1) * np.float32(0.2)
    start = ternary((b, k), 3)
    found = []
    for backend in (compiled, NumpyBackend()):
        y, target = start.copy(), 2 * normal((b, k), 2)
        changes = backend.column_block(gram, lower, inverse, feed, start @ gram, target, y, 3, width)
        assert changes == np.count_nonzero(y != start)
        found.append((y, target))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-3)


def test_the_beam_finds_the_nearest_point() -> None:
    lower = np.linalg.cholesky(grams(7, 0))
    every = np.stack(np.meshgrid(*[[-1.0, 0.0, 1.0]] * 7), -1).reshape(-1, 7).astype(np.float32)
    q = 2 * normal((7,), 1)
    distances = np.square(every @ lower - q).sum(1)
    found = nearest_points(lower, q, 3**7)
    np.testing.assert_array_equal(found[:5], every[np.argsort(distances)[:5]])
    one = np.square(nearest_points(lower, q, 1) @ lower - q).sum()
    assert distances.min() <= np.square(nearest_points(lower, q, 8)[0] @ lower - q).sum() <= one


def test_a_point_of_the_lattice_finds_itself() -> None:
    lower, z = np.linalg.cholesky(grams(12, 0)), ternary((12,), 1)
    np.testing.assert_array_equal(nearest_points(lower, lower.T @ z, 1)[0], z)


@pytest.mark.parametrize("method", ["sdd", "response"])
def test_both_back_ends_reach_the_same_error(compiled: Backend, method: str) -> None:
    w = normal((16, 40), 5)
    gram = grams(40, 6) if method == "response" else None
    errors = [
        response_error(w, factorize(w, 20, method=method, gram=gram, rounds=2, backend=backend), gram)
        for backend in (compiled, NumpyBackend())
    ]
    assert errors[0] == pytest.approx(errors[1], rel=0.05)


def test_the_library_refuses_arrays_of_the_wrong_type_or_shape(compiled: Backend) -> None:
    with pytest.raises(ValueError, match="s is not a contiguous float32"):
        compiled.ternary_block(np.eye(2, dtype=np.float32), np.zeros((2, 3)), np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match="gram is not a contiguous float32"):
        compiled.ternary_block(np.eye(3, dtype=np.float32), *(np.zeros((2, 3), np.float32) for _ in range(2)))


def test_without_the_library_numpy_takes_over_with_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_package(_: str) -> None:
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(native, "LIBRARY", "no_such_library.so")
    monkeypatch.setattr(importlib.metadata, "files", no_package)
    native.library.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="is not built"):
            assert native.fastest_backend().name == "numpy"
        w = normal((4, 6), 0)
        assert response_error(w, factorize(w, 6), None) < 0.6
    finally:
        native.library.cache_clear()


@pytest.mark.parametrize("n", [1, 47, 400, 900])
def test_cholesky_and_inverse(n: int) -> None:
    gram = grams(n, n).astype(np.float64) + 0.1 * np.eye(n)
    with single_threaded_blas():
        products = Products(2)
        lower = products.cholesky(gram)
        inverse = products.inverse_lower(lower)
    np.testing.assert_allclose(lower @ lower.T, gram, atol=1e-10)
    np.testing.assert_allclose(inverse @ lower, np.eye(n), atol=1e-9)
    assert not np.triu(lower, 1).any()
    assert not np.triu(inverse, 1).any()


def test_cholesky_refuses_what_is_not_positive_definite() -> None:
    with pytest.raises(np.linalg.LinAlgError):
        Products(1).cholesky(-np.eye(3))


@pytest.mark.parametrize(("m", "inner", "n"), [(3, 4, 5), (700, 300, 50), (50, 300, 700)])
def test_products_do_not_depend_on_threads(m: int, inner: int, n: int) -> None:
    a, b = normal((m, inner), 0), normal((inner, n), 1)
    with single_threaded_blas():
        one, two = Products(1).matmul(a, b), Products(2).matmul(a, b)
    np.testing.assert_array_equal(one, two)
    np.testing.assert_allclose(one, a @ b, rtol=1e-3, atol=1e-3)
