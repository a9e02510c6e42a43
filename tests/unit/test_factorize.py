"""The solvers: what they promise for any matrix, and known answers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ffn.errors import ConfigError
from tvm_ffn.factorize import Factors, factorize, response_error, response_target
from tvm_ffn.factorize.native import library_path

FEW = settings(max_examples=20)


def covariance(n: int, seed: int, ridge: float = 0.05) -> np.ndarray:
    """Covariance of smooth rectified features: what the inputs of a convolution look like."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((600, n + 8))
    smooth = sum(noise[:, s : s + n] * np.exp(-((s - 4) ** 2) / 6) for s in range(9))
    features = np.maximum(smooth, 0) * rng.uniform(0.2, 2.0, n)
    gram = np.cov(features.T).reshape(n, n)
    return (gram + ridge * np.trace(gram) / n * np.eye(n)).astype(np.float32)


def weights(m: int, n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((m, n)) * rng.uniform(0.1, 3.0, (m, 1))).astype(np.float32)


def same(one: Factors, other: Factors) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("x", "d", "y", "a"))


@pytest.mark.parametrize("method", ["sdd", "response"])
@given(m=st.integers(1, 12), n=st.integers(1, 20), rank=st.integers(1, 14), seed=st.integers(0, 99))
@FEW
def test_factors_are_ternary_with_scales_that_are_not_negative(
    method: str, m: int, n: int, rank: int, seed: int
) -> None:
    gram = covariance(n, seed) if method == "response" else None
    f = factorize(weights(m, n, seed), rank, method=method, gram=gram, rounds=1)
    assert f.x.shape == (m, rank)
    assert f.y.shape == (n, rank)
    assert f.rank == rank
    assert (f.x.dtype, f.y.dtype, f.d.dtype, f.a.dtype) == (np.int8, np.int8, np.float32, np.float32)
    assert set(np.unique(f.x)) <= {-1, 0, 1}
    assert set(np.unique(f.y)) <= {-1, 0, 1}
    assert np.all(f.d >= 0)
    assert np.isfinite(f.weight()).all()
    assert 0 <= f.density_x <= 1
    assert f.adds == np.count_nonzero(f.x) + np.count_nonzero(f.y)
    if method == "sdd":
        assert np.all(f.a == 1)


@given(m=st.integers(2, 10), n=st.integers(2, 16), rank=st.integers(1, 12), seed=st.integers(0, 99))
@FEW
def test_no_refinement_makes_the_error_worse(m: int, n: int, rank: int, seed: int) -> None:
    w, gram = weights(m, n, seed), covariance(n, seed)
    start = response_error(w, factorize(w, rank, gram=gram, rounds=0), gram)
    assert response_error(w, factorize(w, rank, gram=gram, rounds=2), gram) <= start + 1e-5
    greedy = response_error(w, factorize(w, rank, method="sdd", sweeps=0), None)
    assert greedy <= 1 + 1e-5
    assert response_error(w, factorize(w, rank, method="sdd", sweeps=3), None) <= greedy + 1e-5


def test_more_terms_leave_less_error() -> None:
    w, gram = weights(24, 60, 3), covariance(60, 3)
    for method, metric in (("sdd", None), ("response", gram)):
        errors = [response_error(w, factorize(w, k, method=method, gram=metric), metric) for k in (6, 12, 24, 36, 48)]
        assert all(later < earlier for earlier, later in itertools.pairwise(errors)), errors


def test_response_beats_sdd_where_it_counts() -> None:
    w, gram = weights(32, 72, 5), covariance(72, 5)
    unweighted = response_error(w, factorize(w, 32, method="sdd"), gram)
    assert response_error(w, factorize(w, 32, gram=gram), gram) < 0.75 * unweighted


@pytest.mark.parametrize("method", ["sdd", "response"])
def test_same_bits_for_any_number_of_threads(method: str) -> None:
    w = weights(96, 800, 1)  # large enough for products that are cut and for several shares of columns
    gram = covariance(800, 1) if method == "response" else None
    results = [factorize(w, 70, method=method, gram=gram, rounds=1, threads=t) for t in (1, 2, 3, 1)]
    assert all(same(results[0], other) for other in results[1:])


@given(seed=st.integers(0, 99), exponent=st.integers(-60, 60), method=st.sampled_from(["sdd", "response"]))
@FEW
def test_scaling_the_weights_scales_the_scales(seed: int, exponent: int, method: str) -> None:
    w = weights(7, 11, seed)
    one = factorize(w, 6, method=method, rounds=1)
    scaled = factorize(np.ldexp(w, exponent), 6, method=method, rounds=1)
    assert np.array_equal(one.x, scaled.x)
    assert np.array_equal(one.y, scaled.y)
    assert np.array_equal(np.ldexp(one.d, exponent), scaled.d)


@given(seed=st.integers(0, 99))
@FEW
def test_scaling_the_gram_changes_nothing(seed: int) -> None:
    w, gram = weights(7, 11, seed), covariance(11, seed)
    assert same(factorize(w, 6, gram=gram, rounds=1), factorize(w, 6, gram=np.ldexp(gram, 20), rounds=1))


@given(seed=st.integers(0, 99))
@FEW
def test_flipping_the_sign_of_the_weights_keeps_the_error(seed: int) -> None:
    w, gram = weights(8, 12, seed), covariance(12, seed)
    f, g = factorize(w, 8, gram=gram), factorize(-w, 8, gram=gram)
    assert response_error(w, f, gram) == pytest.approx(response_error(-w, g, gram), rel=1e-3)


@given(seed=st.integers(0, 99))
@FEW
def test_a_column_permutation_permutes_greedy_terms(seed: int) -> None:
    # Integers keep every sum of the first term exact, so the order of columns cannot change a rounding.
    rng = np.random.default_rng(seed)
    w = rng.integers(-9, 10, (6, 10)).astype(np.float32)
    order = rng.permutation(10)
    one = factorize(w, 1, method="sdd", sweeps=0)
    other = factorize(w[:, order], 1, method="sdd", sweeps=0)
    assert np.array_equal(one.y[order], other.y)
    assert np.array_equal(one.x, other.x)
    assert np.array_equal(one.d, other.d)


@pytest.mark.parametrize("method", ["sdd", "response"])
@given(m=st.integers(1, 10), n=st.integers(1, 14), seed=st.integers(0, 99))
@FEW
def test_one_ternary_term_is_found_exactly(method: str, m: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.integers(-1, 2, m), rng.integers(-1, 2, n)
    x[0] = y[0] = 1
    w = (0.37 * np.outer(x, y)).astype(np.float32)
    f = factorize(w, 3, method=method)
    np.testing.assert_allclose(f.weight(), w, atol=1e-6)
    assert np.count_nonzero(f.d) == 1  # nothing is fitted to rounding noise


@given(seed=st.integers(0, 99))
@FEW
def test_blocks_of_ternary_terms_are_found_exactly(seed: int) -> None:
    # Disjoint supports with well separated scales: a product of rank 3 whose terms greedy takes one by one.
    rng = np.random.default_rng(seed)
    x, y = np.zeros((9, 3)), np.zeros((15, 3))
    for term in range(3):
        x[3 * term : 3 * term + 3, term] = rng.choice([-1, 1], 3)
        y[5 * term : 5 * term + 5, term] = rng.choice([-1, 1], 5)
    w = (x * np.array([9.0, 1.0, 0.1])) @ y.T
    assert response_error(w, factorize(w, 3, method="sdd"), None) < 1e-3


def test_rows_that_sum_to_zero_need_another_start() -> None:
    w = np.outer([1, -1, 1], [1, -1, 1, -1]).astype(np.float32)
    for seed in range(5):
        np.testing.assert_allclose(factorize(w, 1, method="sdd", seed=seed).weight(), w, atol=1e-6)


@pytest.mark.parametrize("method", ["sdd", "response"])
def test_zero_weights_and_zero_rows(method: str) -> None:
    f = factorize(np.zeros((3, 5)), 2, method=method)
    assert not f.weight().any()
    assert f.adds == 0
    w = weights(6, 9, 0)
    w[2] = 0
    f = factorize(w, 9, method=method)
    assert np.isfinite(f.weight()).all()
    assert response_error(w, f, None) < 0.6


def test_target_is_the_weights_when_nothing_is_broken() -> None:
    w, h = weights(5, 8, 2), covariance(8, 2)
    np.testing.assert_allclose(response_target(w, h, w @ h, ridge=0.1), w, atol=1e-5)


def test_target_repairs_inputs_that_were_scaled() -> None:
    # Inputs arrive halved: H = A/4 and T = W A/2, so the weights must double.
    w, a = weights(5, 8, 2), covariance(8, 2, ridge=1.0)
    np.testing.assert_allclose(response_target(w, a / 4, w @ a / 2, ridge=1e-6), 2 * w, rtol=1e-3, atol=1e-3)


def test_response_error_is_the_error_of_the_responses() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((500, 10)) @ rng.standard_normal((10, 10))
    w = weights(6, 10, 0)
    f = factorize(w, 6, gram=inputs.T @ inputs / 500)
    expected = np.linalg.norm(inputs @ (w - f.weight()).T) / np.linalg.norm(inputs @ w.T)
    assert response_error(w, f, inputs.T @ inputs) == pytest.approx(expected, rel=1e-3)


def _bad(value: float) -> np.ndarray:
    w = np.ones((3, 4))
    w[1, 2] = value
    return w


@pytest.mark.parametrize(
    ("w", "options", "message"),
    [
        (_bad(np.nan), {}, "NaN"),
        (_bad(np.inf), {}, "NaN or infinite"),
        (np.ones(4), {}, "non-empty matrix"),
        (np.ones((0, 4)), {}, "non-empty matrix"),
        (np.ones((3, 4), complex), {}, "real numbers"),
        (np.ones((3, 4)), {"rank": 0}, "rank must be at least 1"),
        (np.ones((3, 4)), {"method": "svd"}, "unknown method 'svd'"),
        (np.ones((3, 4)), {"gram": np.eye(3)}, r"gram must be \(4, 4\)"),
        (np.ones((3, 4)), {"gram": np.full((4, 4), np.nan)}, "gram holds NaN"),
        (np.ones((3, 4)), {"gram": -np.eye(4)}, "not positive definite"),
        (np.ones((3, 4)), {"gram": np.eye(4), "method": "sdd"}, "takes no gram"),
        (np.ones((3, 4)), {"rounds": -1}, "must not be negative"),
        (np.ones((3, 4)), {"beam": 0}, "beam must be at least 1"),
        (np.ones((3, 4)), {"threads": 0}, "threads must be at least 1"),
    ],
)
def test_refusals_say_what_is_wrong(w: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        factorize(w, options.pop("rank", 2), **options)


def test_target_and_error_refuse_shapes_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match=r"h must be \(4, 4\)"):
        response_target(np.ones((3, 4)), np.eye(3), np.ones((3, 4)), ridge=1.0)
    with pytest.raises(ConfigError, match="ridge must be positive"):
        response_target(np.ones((3, 4)), np.eye(4), np.ones((3, 4)), ridge=0.0)
    with pytest.raises(ConfigError, match="factors stand for"):
        response_error(np.ones((3, 5)), factorize(np.ones((3, 4)), 1), None)


def test_the_library_is_beside_the_package_or_absent() -> None:
    path = library_path()
    assert path is None or path.is_file()
