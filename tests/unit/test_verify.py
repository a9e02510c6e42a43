"""Verification: divergence, labels, samples and the accuracy gate."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tvm_ffn.comparison import Comparison, Verification, damage, divergence
from tvm_ffn.errors import AccuracyError, DataError
from tvm_ffn.manifest import TensorInfo
from tvm_ffn.verify import read_labels, run_samples, single_samples


def softmax(values: np.ndarray) -> np.ndarray:
    exponents = np.exp(values - values.max(1, keepdims=True))
    return exponents / exponents.sum(1, keepdims=True)


def test_divergence_of_logits_and_of_probabilities_agree() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 5, 10)).astype(np.float32)
    p, q = softmax(a.astype(np.float64)), softmax(b.astype(np.float64))
    expected = (p * np.log(p / q)).sum(1)
    np.testing.assert_allclose(divergence(a, b), expected, rtol=1e-5)
    np.testing.assert_allclose(divergence(softmax(a), softmax(b)), expected, rtol=1e-4)
    np.testing.assert_allclose(divergence(a, a), 0, atol=1e-12)


def test_damage_of_classes_and_of_maps() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 5, 10)).astype(np.float32)
    assert damage([a, a], [b, b]) == pytest.approx(divergence(a, b).mean())
    maps = rng.standard_normal((2, 3, 4, 4)).astype(np.float32)
    assert damage([maps, maps], [maps, 1.2 * maps]) == pytest.approx(0.01, rel=1e-4)
    assert damage([0 * maps, maps[:1]], [maps, maps[:1]]) == pytest.approx(0.25)
    assert damage([0 * maps], [0 * maps]) == 0.0 and damage([maps], [1e9 * maps]) == 1.0
    assert damage([np.float32(2)], [np.float32(2.2)]) == pytest.approx(0.005, rel=1e-3)


def test_divergence_is_never_negative() -> None:
    rng = np.random.default_rng(0)
    p = softmax(rng.standard_normal((300, 10))).astype(np.float32)
    assert divergence(p, np.nextafter(p, np.float32(1))).min() >= 0


def test_comparison() -> None:
    expected = [np.eye(4, dtype=np.float32)[[0, 1, 2, 3]], np.ones((4, 2, 2), np.float32)]
    actual = [np.eye(4, dtype=np.float32)[[0, 1, 2, 0]], 1.5 * np.ones((4, 2, 2), np.float32)]
    comparison = Comparison(["logits", "map"], np.array([0, 1, 1, 0]))
    for index in range(4):
        comparison.add(*([values[index : index + 1] for values in side] for side in (expected, actual)))
    outcome = comparison.result()
    assert (outcome.samples, outcome.agreement) == (4, 0.75)
    assert (outcome.accuracy_fp32, outcome.accuracy, outcome.drop) == (0.5, 0.75, -25.0)
    assert outcome.relative_error["map"] == pytest.approx(0.5)
    assert "agreement with fp32     75.00 %" in outcome.text()


def test_model_without_classes() -> None:
    comparison = Comparison(["image"], None)
    comparison.add([np.ones((1, 3, 4, 4), np.float32)], [np.ones((1, 3, 4, 4), np.float32)])
    outcome = comparison.result()
    assert outcome.agreement is None and outcome.relative_error == {"image": 0.0}
    with pytest.raises(DataError, match="classes"):
        outcome.check(1.0)


@pytest.mark.parametrize(("accuracy", "drop"), [(0.9, 5.0), (None, 8.0)])
def test_gate(accuracy: float | None, drop: float) -> None:
    fp32 = None if accuracy is None else 0.95
    outcome = Verification(100, {}, 0.92, 0.01, fp32, accuracy)
    assert outcome.drop == pytest.approx(drop)
    outcome.check(drop + 0.01)
    with pytest.raises(AccuracyError, match="exceeds"):
        outcome.check(drop - 0.01)


def test_samples_of_the_batch_size() -> None:
    batch = {"x": np.arange(12).reshape(6, 2)}
    symbolic = list(single_samples([batch, batch], [TensorInfo("x", ("N", 2), "int64")]))
    assert len(symbolic) == 12 and symbolic[7]["x"].tolist() == [[2, 3]]
    assert len(list(single_samples([batch], [TensorInfo("x", (3, 2), "int64")]))) == 2
    with pytest.raises(DataError, match="no multiple"):
        list(single_samples([batch], [TensorInfo("x", (4, 2), "int64")]))


def test_samples_run_in_the_fixed_batch_size() -> None:
    def module(output: tuple[int, ...]) -> Any:
        infos = {"inputs": (TensorInfo("x", (2, 3), "float32"),), "outputs": (TensorInfo("y", output, "float32"),)}
        return SimpleNamespace(manifest=SimpleNamespace(symbolic_batch=False), run=lambda a: [a["x"] + 1], **infos)

    x = np.arange(18, dtype=np.float32).reshape(6, 3)
    np.testing.assert_array_equal(run_samples(module((2, 3)), {"x": x}, "x.npz")[0], x + 1)
    with pytest.raises(DataError, match="no multiple"):
        run_samples(module((2, 3)), {"x": x[:3]}, "x.npz")
    with pytest.raises(DataError, match=r"x\.npz: .*no samples"):
        run_samples(module((2, 3)), {"x": x[:0]}, "x.npz")
    with pytest.raises(DataError, match=r"'y' has no batch dimension: run one batch of 2"):
        run_samples(module((3,)), {"x": x}, "x.npz")


def test_labels_in_order(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("label\n3\n1\n2\n")
    assert read_labels(path, tmp_path / "data.npz", 2).tolist() == [3, 1]
    with pytest.raises(DataError, match="3 labels for 4"):
        read_labels(path, tmp_path / "data.npz", 4)


@pytest.mark.parametrize("content", ["", "name\nx\n", "label\ntench\n", "a,label\n1\n"])
def test_labels_that_are_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=r"labels\.csv"):
        read_labels(path, tmp_path / "data.npz", 1)
