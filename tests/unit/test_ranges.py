"""Scales and zero points of a tensor's values, against a search of all clipping points."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ffn.ranges import choose_range, choose_scale

RNG = np.random.default_rng(5)
NORMAL = RNG.standard_normal(4000)
TENSORS = {
    "leaky": np.where(NORMAL < 0, 0.1 * NORMAL, NORMAL),
    "leaky, outliers": np.concatenate([np.where(NORMAL < 0, 0.1 * NORMAL, NORMAL), [40.0, -3.0]]),
    "shifted": NORMAL - 1.5,
    "symmetric": NORMAL,
    "positive": np.abs(NORMAL) + 0.1,
    "negative": -np.abs(NORMAL),
}


def error(values: np.ndarray, scale: float, zero: int) -> float:
    """Mean squared error of what is read back, in float64."""
    stored = np.clip(np.rint(values / scale) + zero, -127, 127)
    return float(np.mean(((stored - zero) * scale - values) ** 2))


def least(values: np.ndarray) -> float:
    """Over all pairs of clipping points on a grid."""
    grid = np.linspace(0.05, 1, 60)
    low, high = min(values.min(), 0.0), max(values.max(), 0.0)
    ends = {(a * low, b * high) for a in (grid if low else [1]) for b in (grid if high else [1])}
    spreads = [((b - a) / 254, round(-127 - a * 254 / (b - a))) for a, b in ends]
    return min(error(values, scale, zero) for scale, zero in spreads)


@pytest.mark.parametrize("name", TENSORS)
def test_a_range_is_nearly_the_best_there_is(name: str) -> None:
    values = TENSORS[name].astype(np.float32)
    scale, zero = choose_range(values)
    assert -127 <= zero <= 127
    assert error(values, scale, zero) <= 1.1 * least(values)


def test_values_of_one_sign_take_all_levels() -> None:
    positive, negative = (TENSORS[name].astype(np.float32) for name in ("positive", "negative"))
    assert choose_range(positive)[1] == -127 and choose_range(negative)[1] == 127
    assert choose_range(positive)[0] == pytest.approx(choose_scale(positive, 254))


def test_a_leaky_tensor_gains_most_of_a_bit() -> None:
    values = TENSORS["leaky"].astype(np.float32)
    assert error(values, *choose_range(values)) < 0.45 * error(values, choose_scale(values, 127), 0)


def test_a_tensor_of_zeros() -> None:
    assert choose_range(np.zeros(5, np.float32)) == (1.0, 0)
    assert choose_range(np.zeros(0, np.float32)) == (1.0, 0)
