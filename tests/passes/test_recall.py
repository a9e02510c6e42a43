"""A second compilation of the same model, settings and data takes its solution from the cache."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.small_net import Net
from tvm_ffn import network_solver, targets
from tvm_ffn.cache import Cache
from tvm_ffn.config import FFNConfig, LayerConfig
from tvm_ffn.pipeline import Compilation, run
from tvm_ffn.solution import QuantizedNetwork

CONFIG = FFNConfig(rounds=1, sweeps=1)
DATA = np.random.default_rng(0).standard_normal((12, 3, 8, 8)).astype(np.float32)


def net(seed: int = 0) -> onnx.ModelProto:
    """A convolution in int8, a grouped one in ternary factors, a residual, a dense layer."""
    net = Net(1, 3, 8, 8)
    net.rng = np.random.default_rng(seed)
    x = net("Relu", net.conv("x", 3, 8))
    y = net("Relu", net("Add", net.conv(x, 8, 8, groups=2), x))
    return net.model(net.dense(net("Flatten", net("GlobalAveragePool", y)), 8, 4))


def solved(cache: Path, config: FFNConfig = CONFIG, data: np.ndarray = DATA, seed: int = 0) -> Compilation:
    c = Compilation(net(seed), targets.parse_target("llvm"), config, data)
    c.cache = Cache(cache)
    return run(c, stop_after="factorize")


def equal(first: QuantizedNetwork, second: QuantizedNetwork) -> bool:
    def flat(quantized: QuantizedNetwork) -> list:
        layers = [quantized.layers[unit] for unit in quantized.network.linear]
        values = [dataclasses.asdict(layer) for layer in layers]
        ranges = [sorted((v.name, r) for v, r in part.items()) for part in vars(quantized.ranges).values()]
        return [ranges, values, quantized.middle_bits, quantized.plan, quantized.held_out]

    return repr(flat(first)) == repr(flat(second))


def test_the_same_question_is_answered_from_the_cache(tmp_path: Path) -> None:
    first = solved(tmp_path)
    second = solved(tmp_path)
    assert not first.recalled and second.recalled
    assert equal(first.quantized, second.quantized)
    third = solved(tmp_path, CONFIG.replace(threads=1, optimize="speed"))
    assert third.recalled


@pytest.mark.parametrize(
    "change",
    [
        {"config": CONFIG.replace(seed=1)},
        {"config": CONFIG.replace(layers={"re:.*": LayerConfig(rank_ratio=2.0)})},
        {"config": CONFIG.replace(layers={"re:conv.*": None})},
        {"data": DATA[:5]},
        {"data": DATA + np.float32(1e-6)},
        {"seed": 1},
    ],
    ids=["config", "layers", "fp32", "fewer samples", "other samples", "other weights"],
)
def test_another_question_is_not(change: dict, tmp_path: Path) -> None:
    solved(tmp_path)
    assert not solved(tmp_path, **change).recalled


def test_an_entry_that_does_not_fit_is_solved_again(tmp_path: Path) -> None:
    first = solved(tmp_path)
    with np.load(tmp_path / f"{first.key}.npz") as arrays:
        kept = {name: arrays[name] for name in arrays.files if not name.endswith("bias")}
    Cache(tmp_path).store(first.key, kept)
    second = solved(tmp_path)
    assert not second.recalled and equal(first.quantized, second.quantized)
    assert solved(tmp_path).recalled


def test_layers_of_other_names_have_other_plans(tmp_path: Path) -> None:
    solved(tmp_path)
    renamed = net()
    for node in renamed.graph.node:
        node.name = f"other_{node.name}"
    c = Compilation(renamed, targets.parse_target("llvm"), CONFIG, DATA)
    c.cache = Cache(tmp_path)
    run(c, stop_after="factorize")
    assert not c.recalled and all(name.startswith("other_") for name in c.quantized.plan.layers)


def test_whole_batches_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Net(4, 3, 8, 8)
    model = batch.model(batch.conv(batch("Relu", batch.conv("x", 3, 8)), 8, 4))
    monkeypatch.setattr(network_solver, "MEMORY", 9000)
    data = np.random.default_rng(0).standard_normal((40, 3, 8, 8)).astype(np.float32)
    c = run(Compilation(model, targets.parse_target("llvm"), CONFIG, data), stop_after="factorize")
    assert len(c.data) % 4 == 0 and len(c.data) < 40


def test_no_more_samples_are_used_than_fit_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The stem's output (8, 8, 8) is kept for the residual while another layer writes as much: 1024 bytes."""
    monkeypatch.setattr(network_solver, "MEMORY", 7 * 1100)
    c = solved(tmp_path)
    assert len(c.data) == 7 and c.observation.count == 7
    assert "7 of 12 calibration samples" in caplog.text
