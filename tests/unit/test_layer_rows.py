"""The ridge of the repaired weights follows the samples: strong where they are few, weak where they tell the truth."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ffn.config import FFNConfig
from tvm_ffn.layer_rows import CANDIDATES, SPAN, WIDEST, GroupRows, LayerRows, Moments, choose_ridge

M, N = 4, 24


def rows(count: int, noise: float) -> tuple[np.ndarray, GroupRows]:
    """Weights W and rows of a layer whose responses come from other weights, W + 0.3 D, and from noise."""
    rng = np.random.default_rng(0)
    weight, change = (rng.standard_normal((M, N)).astype(np.float32) for _ in range(2))
    inputs = rng.standard_normal((count, 1, N)).astype(np.float32) + 2
    response = inputs[:, 0] @ (weight + 0.3 * change).T + noise * rng.standard_normal((count, M)).astype(np.float32)
    return weight, LayerRows(inputs, response, np.arange(count) % 5 == 0).group(0, M)


def chosen(weight: np.ndarray, group: GroupRows) -> float:
    fitted = ~group.held
    return choose_ridge(weight, Moments.of(group.inputs[fitted], group.response[fitted]), group)


def test_many_exact_samples_are_trusted() -> None:
    assert chosen(*rows(2000, 0.0)) == CANDIDATES[0]


def test_few_noisy_samples_are_not() -> None:
    assert chosen(*rows(20, 20.0)) == CANDIDATES[-1]


def test_without_held_out_rows_it_is_one() -> None:
    weight, group = rows(20, 1.0)
    alone = GroupRows(group.inputs, group.response, group.mean, group.response_mean, np.zeros(20, bool))
    assert chosen(weight, alone) == 1.0


def test_fitted_rows_are_centred_and_the_bias_gives_their_mean_back() -> None:
    weight, group = rows(50, 0.0)
    np.testing.assert_allclose(group.inputs[~group.held].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(weight @ group.mean + group.bias(weight), group.response_mean, rtol=1e-5)


def test_held_out_rows_change_nothing_but_the_ridge() -> None:
    weight, group = rows(200, 0.1)
    spoilt = LayerRows(
        np.where(group.held[:, None, None], 99, group.inputs[:, None] + group.mean),
        np.where(group.held[:, None], -7, group.response + group.response_mean),
        group.held,
    ).group(0, M)
    config = FFNConfig(target_ridge=0.3)
    for one, other in zip(group.problem(weight, config), spoilt.problem(weight, config), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(group.bias(weight), spoilt.bias(weight), rtol=1e-3)


def test_error_of_the_responses() -> None:
    weight, group = rows(200, 0.0)
    behind = np.linalg.lstsq(group.inputs, group.response, rcond=None)[0].T
    assert group.missed(behind) < 1e-3
    assert group.missed(0 * weight) == pytest.approx(1.0)


def test_very_many_inputs_have_their_covariance_in_blocks() -> None:
    rng = np.random.default_rng(1)
    inputs = rng.standard_normal((8, 1, WIDEST + 8)).astype(np.float32)
    response = rng.standard_normal((8, 2)).astype(np.float32)
    weight = rng.standard_normal((2, WIDEST + 8)).astype(np.float32)
    target, metric = LayerRows(inputs, response, np.zeros(8, bool)).group(0, 2).problem(weight, FFNConfig())
    assert target is weight and isinstance(metric, list)
    assert sum(map(len, metric)) == WIDEST + 8 and max(map(len, metric)) <= SPAN


def test_a_number_fixes_the_ridge() -> None:
    weight, group = rows(2000, 0.0)
    strong, _ = group.problem(weight, FFNConfig(target_ridge=1e6))
    chosen, metric = group.problem(weight, FFNConfig())
    kept, same_metric = group.problem(weight, FFNConfig(), repair=False)
    np.testing.assert_allclose(strong, weight, atol=1e-4)
    assert kept is weight and np.abs(chosen - weight).max() > 0.1
    np.testing.assert_array_equal(metric, same_metric)


def test_inputs_that_never_move_keep_the_weights() -> None:
    weight, group = rows(50, 0.0)
    still = GroupRows(0 * group.inputs, group.response, group.mean, group.response_mean, group.held)
    target, metric = still.problem(weight, FFNConfig())
    np.testing.assert_array_equal(target, weight)
    np.testing.assert_array_equal(metric, np.eye(N))
