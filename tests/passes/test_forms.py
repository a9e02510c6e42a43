"""The form of dense layers on few rows, where nobody chose one."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

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
