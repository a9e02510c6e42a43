"""Sensitivities of a small network: weights replaced one at a time, curves that fall, damages that are real."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.small_net import Net
from tvm_ffn import sensitivity, targets
from tvm_ffn.comparison import damage
from tvm_ffn.config import FFNConfig, LayerConfig
from tvm_ffn.importer import load_model
from tvm_ffn.interpreter import Interpreter
from tvm_ffn.pipeline import Compilation, run

DATA = np.random.default_rng(0).standard_normal((40, 3, 8, 8)).astype(np.float32)


def net() -> onnx.ModelProto:
    """A stem, a grouped convolution with a residual, a dense layer."""
    net = Net(1, 3, 8, 8)
    x = net("Relu", net.conv("x", 3, 8))
    y = net("Relu", net("Add", net.conv(x, 8, 8, groups=2), x))
    return net.model(net.dense(net("Flatten", net("GlobalAveragePool", y)), 8, 4))


@pytest.fixture(scope="module")
def compilation() -> Compilation:
    config = FFNConfig(calibration_rows=1000, last_layer="ternary")
    return run(Compilation(net(), targets.parse_target("llvm"), config, DATA), stop_after="measure")


def test_alternatives_answer_as_the_changed_model_does(compilation: Compilation) -> None:
    interpreter = Interpreter(compilation.mod)
    stem = compilation.network.linear[0]
    changed = net()
    weight = next(w for w in changed.graph.initializer if list(w.dims) == [8, 3, 3, 3])
    other = np.float32(0.9) * numpy_helper.to_array(weight)
    weight.CopyFrom(numpy_helper.from_array(other, weight.name))
    batch = {interpreter.func.params[0].name: DATA[:5]}
    found = {place: outputs for place, _, outputs in interpreter.alternatives(batch, {stem.index: other})}
    np.testing.assert_allclose(found[None][0], interpreter.run(batch)[0], rtol=1e-6)
    np.testing.assert_allclose(found[stem.index][0], Interpreter(load_model(changed).mod).run(batch)[0], rtol=1e-4)


def test_curves_and_damages(compilation: Compilation) -> None:
    measured = compilation.measured
    assert [unit.kind for unit in measured] == ["conv2d", "conv2d"]
    for layer in measured.values():
        assert np.all(np.diff(layer.errors) >= 0) and np.all(np.diff(layer.digits) <= 0)
        assert layer.damage_per_error > 0
    assert [(s.weights, s.positions) for s in measured.values()] == [(216, 64), (288, 64)]


def test_damage_grows_with_the_error_as_predicted(compilation: Compilation) -> None:
    """A small random change of one layer does the damage that its size and the layer's sensitivity say."""
    unit, layer = next(iter(compilation.measured.items()))
    interpreter = Interpreter(compilation.mod)
    weight = unit.weight[0]
    change = np.random.default_rng(1).standard_normal(weight.shape).astype(np.float32)
    inputs = compilation.observation.rows[unit].inputs[:, 0]
    inputs = inputs - inputs.mean(0)
    size = np.linalg.norm(inputs @ change.T) / np.linalg.norm(inputs @ weight.T)
    other = (weight + 0.1 / size * change).reshape(8, 3, 3, 3)
    batch = {interpreter.func.params[0].name: DATA}
    found = {place: outputs for place, _, outputs in interpreter.alternatives(batch, {unit.index: other})}
    lost = damage(found[None], found[unit.index])
    assert 0.2 < lost / (layer.damage_per_error * 0.01) < 5


def test_interpolation_meets_what_was_measured() -> None:
    layer = sensitivity.Sensitivity(1.0, (0.001, 0.002, 0.004, 0.008, 0.016), (1.0, 0.8, 0.6, 0.4, 0.2), 10, 3)
    for place, penalty in enumerate(sensitivity.PENALTIES):
        assert layer.at(penalty) == pytest.approx((layer.errors[place], layer.digits[place]))
    between = layer.at(float(np.sqrt(sensitivity.PENALTIES[1] * sensitivity.PENALTIES[2])))
    assert between == pytest.approx((np.sqrt(0.002 * 0.004), np.sqrt(0.8 * 0.6)))
    assert layer.macs == 30


def test_layers_with_a_price_are_not_measured() -> None:
    config = FFNConfig(calibration_rows=500, penalty=0.01, layers={"re:conv.*": LayerConfig(penalty=0.02)})
    c = run(Compilation(net(), targets.parse_target("llvm"), config, DATA), stop_after="measure")
    assert not c.measured


def test_positions_count_one_sample_whatever_the_axes() -> None:
    net = Net(1, 64, 8)
    rows = net("Reshape", "x", net.const(np.array([64, 8])))
    image = net("Reshape", net("Relu", net.dense(rows, 8, 16)), net.const(np.array([1, 16, 8, 8])))
    model = net.model(net.conv(net("Relu", net.conv(image, 16, 8)), 8, 4))
    data = np.random.default_rng(0).standard_normal((12, 64, 8)).astype(np.float32)
    config = FFNConfig(calibration_rows=500)
    c = run(Compilation(model, targets.parse_target("llvm"), config, data), stop_after="measure")
    assert [layer.positions for layer in c.measured.values()] == [64, 64, 64][: len(c.measured)]


def test_a_network_whose_outputs_are_numbers_is_planned_too() -> None:
    net = Net(1, 3, 8, 8)
    x = net("Relu", net.conv(net("Relu", net.conv("x", 3, 8)), 8, 4))
    model = net.model(net("ReduceSum", x, keepdims=0), x)
    c = run(
        Compilation(model, targets.parse_target("llvm"), FFNConfig(calibration_rows=500), DATA), stop_after="factorize"
    )
    assert all(np.isfinite(layer.damage_per_error) for layer in c.measured.values())
