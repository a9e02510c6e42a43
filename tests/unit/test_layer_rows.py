"""The ridge of the repaired weights follows the samples: strong where they are few, weak where they tell the truth."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ffn.config import FFNConfig
from tvm_ffn.layer_rows import CANDIDATES, FOLDS, GroupRows, LayerRows, choose_ridge

M, N = 4, 24


def rows(count: int, noise: float) -> tuple[np.ndarray, GroupRows]:
    """Weights W and rows of a layer whose responses come from other weights, W + 0.3 D, and from noise."""
    rng = np.random.default_rng(0)
    weight, change = (rng.standard_normal((M, N)).astype(np.float32) for _ in range(2))
    inputs = rng.standard_normal((count, 1, N)).astype(np.float32) + 2
    response = inputs[:, 0] @ (weight + 0.3 * change).T + noise * rng.standard_normal((count, M)).astype(np.float32)
    return weight, LayerRows(inputs, response, np.arange(count) % FOLDS == 0).group(0, M)


def test_many_exact_samples_are_trusted() -> None:
    assert choose_ridge(*rows(2000, 0.0)) == CANDIDATES[0]


def test_few_noisy_samples_are_not() -> None:
    assert choose_ridge(*rows(20, 20.0)) == CANDIDATES[-1]


@pytest.mark.parametrize("held", [False, True])
def test_without_a_part_to_compare_it_is_one(held: bool) -> None:
    weight, group = rows(20, 1.0)
    alone = GroupRows(group.inputs, group.response, group.mean, group.response_mean, np.full(20, held))
    assert choose_ridge(weight, alone) == 1.0


def test_rows_are_centred_and_the_bias_gives_the_mean_back() -> None:
    weight, group = rows(50, 0.0)
    np.testing.assert_allclose(group.inputs.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(weight @ group.mean + group.bias(weight), group.response_mean, rtol=1e-5)


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
