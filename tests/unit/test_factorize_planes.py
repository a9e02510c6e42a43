"""The planes solver: what it promises for any matrix, known answers, and its native loops against NumPy's."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ffn.errors import ConfigError
from tvm_ffn.factorize import Factors, factorize, factorize_planes, native, response_error
from tvm_ffn.factorize.backend import Backend
from tvm_ffn.factorize.levels import nearest_levels, signed_digits
from tvm_ffn.factorize.reference import NumpyBackend

FEW = settings(max_examples=20)
COSTS = np.count_nonzero(signed_digits(5), axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def compiled() -> Backend:
    if native.library_path() is None:
        pytest.skip("the native library is not built (cmake -B build && cmake --build build)")
    return native.fastest_backend(2)


def covariance(n: int, seed: int, ridge: float = 0.05) -> np.ndarray:
    """Covariance of smooth rectified features: what the inputs of a convolution look like."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((400, n + 8))
    smooth = sum(noise[:, s : s + n] * np.exp(-((s - 4) ** 2) / 6) for s in range(9))
    features = np.maximum(smooth, 0) * rng.uniform(0.2, 2.0, n)
    gram = np.cov(features.T).reshape(n, n)
    return (gram + ridge * np.trace(gram) / n * np.eye(n)).astype(np.float32)


def weights(m: int, n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((m, n)) * rng.uniform(0.1, 3.0, (m, 1))).astype(np.float32)


def objective(w: np.ndarray, f: Factors, gram: np.ndarray, penalty: float) -> float:
    """``tr(E H E^T) / 2 + price * digits`` over ``tr(W H W^T) / 2``."""
    error = w.astype(np.float64) - f.weight()
    energy = float(np.sum(w @ gram.astype(np.float64) * w))
    price = penalty * energy / w.size
    return (0.5 * float(np.sum(error @ gram * error)) + price * np.count_nonzero(f.y)) / (0.5 * energy)


def same(one: Factors, other: Factors) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("x", "d", "y", "a"))


@pytest.mark.parametrize("planes", range(1, 8))
def test_signed_digits_are_the_cheapest(planes: int) -> None:
    digits = signed_digits(planes)
    powers = 2 ** np.arange(planes)[::-1]
    np.testing.assert_array_equal(digits @ powers, np.arange(2**planes))
    every = np.array(list(itertools.product((-1, 0, 1), repeat=planes)))
    for value, found in enumerate(digits):
        fewest = np.count_nonzero(every[every @ powers == value], axis=1).min()
        assert np.count_nonzero(found) == fewest


@given(
    m=st.integers(1, 12),
    n=st.integers(1, 20),
    planes=st.integers(1, 7),
    penalty=st.sampled_from([0.0, 0.005, 0.02, 1.0]),
    seed=st.integers(0, 99),
)
@FEW
def test_factors_are_planes_of_signed_digits(m: int, n: int, planes: int, penalty: float, seed: int) -> None:
    f = factorize_planes(weights(m, n, seed), planes=planes, penalty=penalty, gram=covariance(n, seed))
    assert (f.x.dtype, f.y.dtype, f.d.dtype, f.a.dtype) == (np.int8, np.int8, np.float32, np.float32)
    np.testing.assert_array_equal(f.x, np.tile(np.eye(m), (1, planes)))
    np.testing.assert_array_equal(f.d, np.repeat(2.0 ** -np.arange(planes), m))
    assert f.planes == planes
    assert f.y.shape == (n, planes * m)
    assert set(np.unique(f.y)) <= {-1, 0, 1}
    assert np.all(f.a > 0) and np.isfinite(f.a).all()
    digits = f.y.reshape(n, planes, m)
    integers = np.einsum("npm,p->nm", digits, 2 ** np.arange(planes)[::-1])
    fewest = np.count_nonzero(signed_digits(planes), axis=1)
    np.testing.assert_array_equal(np.count_nonzero(digits, axis=1), fewest[np.abs(integers)])
    np.testing.assert_allclose(f.weight(), (integers * 2.0 ** (1 - planes) * f.a).T, rtol=1e-6, atol=1e-30)


def test_planes_of_other_factors() -> None:
    w = weights(4, 9, 0)
    f = factorize_planes(w, planes=3)
    assert factorize(w, 8).planes == 0
    swapped = Factors(f.x[:, ::-1].copy(), f.d, f.y, f.a)
    assert swapped.planes == 0
    assert Factors(f.x[:, :7].copy(), f.d[:7], f.y[:, :7].copy(), f.a).planes == 0
    assert Factors(-f.x, f.d, f.y, f.a).planes == 0
    assert Factors(np.ones_like(f.x), f.d, f.y, f.a).planes == 0


def test_a_covariance_in_blocks_is_the_block_diagonal_matrix() -> None:
    w, parts = weights(12, 70, 3), [covariance(40, 1), covariance(30, 2)]
    whole = np.zeros((70, 70), np.float32)
    whole[:40, :40], whole[40:, 40:] = parts
    for penalty in (0.0, 0.02):
        blocks, one = factorize_planes(w, penalty=penalty, gram=parts), factorize_planes(w, penalty=penalty, gram=whole)
        assert abs(objective(w, blocks, whole, penalty) / objective(w, one, whole, penalty) - 1) < 0.05
        assert response_error(w, blocks, parts) == pytest.approx(response_error(w, blocks, whole), rel=1e-4)
    single = factorize_planes(w[:, :40], gram=parts[:1])
    assert same(single, factorize_planes(w[:, :40], gram=parts[0]))


@pytest.mark.parametrize(
    ("gram", "message"),
    [([np.eye(4), np.eye(3)], "span 6 columns"), ([np.ones((2, 3)), np.eye(4)], "must be square"), ([], "span 6")],
)
def test_blocks_that_do_not_fit(gram: list[np.ndarray], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        factorize_planes(weights(2, 6, 0), gram=gram)


@pytest.mark.parametrize("metric", [True, False])
def test_what_is_representable_is_found(metric: bool) -> None:
    rng = np.random.default_rng(3)
    # Integers of root mean square 4: at the start, a = 4 rms, one is a/16.
    magnitudes = np.repeat([0, 2, 4, 5, 6], [6, 3, 20, 8, 3])
    integers = rng.permuted(np.tile(magnitudes, (9, 1)), axis=1) * rng.choice([-1, 1], (9, 40))
    w = (integers * rng.uniform(0.01, 5, (9, 1))).astype(np.float32)
    gram = covariance(40, 1) if metric else None
    f = factorize_planes(w, penalty=0.0, gram=gram, rounds=6, sweeps=8)
    assert response_error(w, f, gram) < 1e-5
    np.testing.assert_allclose(f.weight(), w, rtol=1e-4, atol=1e-4 * np.abs(w).max())


@given(seed=st.integers(0, 99), penalty=st.sampled_from([0.0, 0.01, 0.05]))
@FEW
def test_refinement_never_raises_the_objective(seed: int, penalty: float) -> None:
    w, gram = weights(7, 19, seed), covariance(19, seed)
    found = [
        objective(
            w, factorize_planes(w, penalty=penalty, gram=gram, rounds=rounds, sweeps=sweeps, beam=1), gram, penalty
        )
        for rounds, sweeps in ((1, 0), (1, 1), (1, 3), (2, 3), (4, 3))
    ]
    assert all(later <= earlier + 1e-6 for earlier, later in itertools.pairwise(found)), found


def test_a_higher_penalty_leaves_fewer_digits_and_more_error() -> None:
    w, gram = weights(24, 80, 3), covariance(80, 3)
    found = [factorize_planes(w, penalty=p, gram=gram) for p in (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.2)]
    digits = [np.count_nonzero(f.y) for f in found]
    errors = [response_error(w, f, gram) for f in found]
    assert digits == sorted(digits, reverse=True) and digits[0] > 2 * digits[-1]
    assert errors == sorted(errors) and errors[0] < 0.05
    assert np.count_nonzero(factorize_planes(w, penalty=1e3, gram=gram).y) == 0


def test_the_metric_is_used() -> None:
    w, gram = weights(32, 72, 5), covariance(72, 5)
    plain, aware = factorize_planes(w, penalty=0.02), factorize_planes(w, penalty=0.02, gram=gram)
    assert objective(w, aware, gram, 0.02) < 0.9 * objective(w, plain, gram, 0.02)


def test_more_planes_leave_less_error() -> None:
    w, gram = weights(16, 60, 1), covariance(60, 1)
    errors = [response_error(w, factorize_planes(w, planes=p, penalty=0.0, gram=gram), gram) for p in range(1, 8)]
    assert all(later < 0.75 * earlier for earlier, later in itertools.pairwise(errors)), errors


def test_no_metric_is_the_identity() -> None:
    w = weights(9, 30, 2)
    assert same(factorize_planes(w), factorize_planes(w, gram=np.eye(30)))


def test_same_bits_for_any_number_of_threads() -> None:
    w, gram = weights(150, 400, 1), covariance(400, 1)  # several shares of rows, several blocks, products that are cut
    results = [factorize_planes(w, gram=gram, threads=t) for t in (1, 2, 3, 1)]
    assert all(same(results[0], other) for other in results[1:])


@given(seed=st.integers(0, 99), exponent=st.integers(-60, 60))
@FEW
def test_scaling_the_weights_scales_the_rows(seed: int, exponent: int) -> None:
    w, gram = weights(7, 11, seed), covariance(11, seed)
    one, scaled = factorize_planes(w, gram=gram), factorize_planes(np.ldexp(w, exponent), gram=np.ldexp(gram, 20))
    assert np.array_equal(one.y, scaled.y)
    assert np.array_equal(np.ldexp(one.a, exponent), scaled.a)


def test_rows_of_zeros_get_no_digits_and_a_positive_scale() -> None:
    w, gram = weights(6, 20, 4), covariance(20, 4)
    w[[1, 4]] = 0
    f = factorize_planes(w, gram=gram)
    assert not f.weight()[[1, 4]].any()
    assert f.weight()[[0, 2, 3, 5]].any(axis=1).all()
    assert np.all(f.a > 0)
    for metric in (gram, None):
        nothing = factorize_planes(np.zeros((3, 20)), gram=metric)
        assert not nothing.y.any()
        assert np.all(nothing.a > 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"planes": 0}, "planes must be from 1 to 7, not 0"),
        ({"planes": 8}, "planes must be from 1 to 7, not 8"),
        ({"penalty": -0.1}, "penalty must be finite and not negative"),
        ({"penalty": float("nan")}, "penalty must be finite and not negative"),
        ({"rounds": 0}, "rounds must be at least 1"),
        ({"sweeps": -1}, "sweeps at least 0"),
        ({"beam": 0}, "beam must be at least 1"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"gram": np.eye(4)}, r"gram must be \(6, 6\)"),
        ({"gram": -np.eye(6)}, "not positive definite"),
        ({"gram": np.full((6, 6), np.inf)}, "gram holds NaN or infinite"),
        ({"w": np.full((5, 6), np.nan)}, "w holds NaN or infinite"),
        ({"w": np.zeros((0, 6))}, "non-empty matrix"),
        ({"w": np.zeros(6)}, "non-empty matrix"),
    ],
)
def test_errors(change: dict[str, object], message: str) -> None:
    options = {"w": weights(5, 6, 0)} | change
    with pytest.raises(ConfigError, match=message):
        factorize_planes(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("price", [0.0, 0.3])
def test_the_nearest_level_is_the_nearest(compiled: Backend, price: float) -> None:
    rng = np.random.default_rng(0)
    wanted, unit = rng.standard_normal(200).astype(np.float32) * 9, rng.uniform(0.2, 1, 200).astype(np.float32)
    wanted[0] = 0
    levels = np.arange(-31, 32)
    values = np.square(wanted[:, None] - unit[:, None] * levels) + price * COSTS[np.abs(levels)]
    best = levels[np.argmin(values, axis=1)]
    np.testing.assert_array_equal(nearest_levels(wanted, unit, price, COSTS), best)
    for backend in (compiled, NumpyBackend()):
        q = np.zeros((1, 200), np.float32)
        backend.level_pass(np.ones((1, 1), np.float32), price / 2, unit, COSTS, wanted[None].copy(), q, 1)
        np.testing.assert_array_equal(q[0], best)


@pytest.mark.parametrize("width", [1, 2, 7])
@pytest.mark.parametrize(("b", "m"), [(1, 1), (3, 5), (13, 67), (40, 200)])
def test_level_pass(compiled: Backend, b: int, m: int, width: int) -> None:
    rng = np.random.default_rng(b)
    feedback = np.triu(rng.standard_normal((b, b)) * 0.2, 1).astype(np.float32)
    feedback[np.arange(b), np.arange(b)] = rng.uniform(0.5, 2, b)
    unit = rng.uniform(0.05, 0.3, m).astype(np.float32)
    start = rng.standard_normal((b, m)).astype(np.float32)
    found: list[np.ndarray] = []
    for backend in (compiled, NumpyBackend()):
        target, q = start.copy(), np.full((b, m), 99, np.float32)
        backend.level_pass(feedback, 0.01, unit, COSTS, target, q, width)
        # What was fed forward: start = unit q + U^T e, row by row of U's lower-triangular transpose.
        np.testing.assert_allclose(feedback.T @ target + unit * q, start, atol=1e-4)
        found.append(q)
    np.testing.assert_array_equal(found[0], found[1])


def test_a_wide_beam_nears_the_best_levels(compiled: Backend) -> None:
    rng = np.random.default_rng(2)
    costs = np.array([0, 1, 1, 2], np.float32)
    feedback = np.triu(rng.standard_normal((4, 4)) * 0.6, 1).astype(np.float32) + np.eye(4, dtype=np.float32)
    target = rng.standard_normal((4, 9)).astype(np.float32) * 2
    unit = rng.uniform(0.5, 1, 9).astype(np.float32)
    every = np.array(list(itertools.product(range(-3, 4), repeat=4)))  # (7^4, 4)

    def value(q: np.ndarray) -> np.ndarray:
        error = np.linalg.solve(feedback.T, target - unit * q)
        return 0.5 * np.square(error).sum(0) + 0.3 * costs[np.abs(q)].sum(0)

    best = np.min([value(np.repeat(q[:, None], 9, axis=1)) for q in every], axis=0)
    for backend in (compiled, NumpyBackend()):
        values = []
        for width in (1, 300):
            q = np.zeros((4, 9), np.float32)
            backend.level_pass(feedback, 0.3, unit, costs, target.copy(), q, width)
            values.append(value(q.astype(int)))
        assert best.sum() * (1 - 1e-5) <= values[1].sum() < values[0].sum()
        np.testing.assert_allclose(values[1], best, rtol=0.3)
        assert np.isclose(values[1], best, rtol=1e-4).mean() > 0.7


@pytest.mark.parametrize(("b", "m"), [(1, 1), (3, 5), (13, 67), (40, 200)])
def test_level_descent(compiled: Backend, b: int, m: int) -> None:
    rng = np.random.default_rng(b)
    h = covariance(b, b)
    unit = rng.uniform(0.05, 0.3, m).astype(np.float32)
    w = rng.standard_normal((b, m)).astype(np.float32)
    start = np.rint(rng.standard_normal((b, m)) * 5).astype(np.float32)
    price = 0.01 * float(np.diag(h).mean())

    def value(q: np.ndarray) -> float:
        error = w - unit * q
        return float(0.5 * np.sum(error * (h @ error)) + price * COSTS[np.abs(q).astype(int)].sum())

    found = []
    for backend in (compiled, NumpyBackend()):
        q = start.copy()
        changes = backend.level_descent(h, price, unit, COSTS, h @ (w - unit * start), q)
        assert changes == np.count_nonzero(q != start) > 0
        assert value(q) < value(start)
        found.append(q)
    np.testing.assert_array_equal(found[0], found[1])


def test_both_back_ends_reach_the_same_objective(compiled: Backend) -> None:
    w, gram = weights(16, 150, 5), covariance(150, 6)
    found = [objective(w, factorize_planes(w, gram=gram, backend=b), gram, 0.02) for b in (compiled, NumpyBackend())]
    assert found[0] == pytest.approx(found[1], rel=0.02)


def test_the_library_refuses_arrays_of_the_wrong_type_or_shape(compiled: Backend) -> None:
    q = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match="unit is not a contiguous float32"):
        compiled.level_pass(np.eye(2, dtype=np.float32), 0.1, np.ones(2, np.float32), COSTS, q.copy(), q, 1)
    with pytest.raises(ValueError, match="h is not a contiguous float32"):
        compiled.level_descent(np.eye(3, dtype=np.float32), 0.1, np.ones(3, np.float32), COSTS, q.copy(), q)
