"""The form of dense layers on few rows, where nobody chose one."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import tvm_ffn
from tests.small_net import Net
from tvm_ffn import forms, targets
from tvm_ffn.config import FFNConfig, LayerConfig
from tvm_ffn.pipeline import Compilation, run

DATA = np.random.default_rng(0).standard_normal((20, 3, 6, 6)).astype(np.float32)


def net() -> onnx.ModelProto:
    net = Net(1, 3, 6, 6)
    flat = net("Flatten", net("MaxPool", net("Relu", net.conv("x", 3, 8)), kernel_shape=[2, 2], strides=[2, 2]))
    return net.model(net.dense(net("Relu", net.dense(flat, 72, 20)), 20, 4))


def matched(config: FFNConfig) -> Compilation:
    return run(Compilation(net(), targets.parse_target("llvm"), config, DATA), stop_after="match")


def forms_of(c: Compilation) -> list[tuple[str | None, str | None]]:
    return [(own.precision, own.method) for own in c.settings.values() if own is not None]


def test_hidden_dense_layers_take_factors() -> None:
    assert forms_of(matched(FFNConfig())) == [("ternary", "planes"), ("ternary", "response"), ("int8", "planes")]


def test_large_ones_are_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "LARGEST", 1000)
    c = matched(FFNConfig())
    assert forms_of(c) == [("ternary", "planes"), ("int8", "planes"), ("int8", "planes")]
    run(c, start_at="recall", stop_after="factorize")
    assert "few rows" in c.quantized.layers[c.network.linear[1]].reason


def test_what_was_chosen_stays() -> None:
    names = list(matched(FFNConfig()).settings)
    config = FFNConfig(layers={names[1]: LayerConfig(penalty=0.01)})
    assert forms_of(matched(config))[1] == ("ternary", "planes")
    assert forms_of(matched(FFNConfig(penalty=0.02)))[1] == ("ternary", "planes")
    assert forms_of(matched(FFNConfig(method="sdd")))[1] == ("ternary", "sdd")


@pytest.mark.parametrize(
    ("settings", "factors", "most"),
    [
        ({}, [False, False], 0.05),
        ({"budget": {"max_drop": 1000.0}}, [True, True], 1.0),
        ({"method": "response"}, [False, True], 1.0),  # the first layer is int8, as that method's default
    ],
    ids=str,
)
def test_factors_that_lose_too_much_become_int8(settings: dict[str, Any], factors: list[bool], most: float) -> None:
    """Random weights have no structure that factors could find; a method that was asked for stays."""
    net = Net(1, 64)
    model = net.model(net.dense(net("Relu", net.dense(net("Relu", net.dense("x", 64, 64)), 64, 32)), 32, 10))
    known, fresh = np.random.default_rng(1).standard_normal((2, 40, 64)).astype(np.float32)
    solved = tvm_ffn.quantize(model, config=FFNConfig(**settings), calibration=known)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    want = np.concatenate([session.run(None, {"x": row[None]})[0] for row in fresh])
    got = np.concatenate([solved.run({"x": row[None]})[0] for row in fresh])
    assert np.linalg.norm(got - want) < most * np.linalg.norm(want)
    assert [row.rank is not None for row in solved.report.layers[:2]] == factors
