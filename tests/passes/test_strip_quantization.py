"""Fake quantisation turned into the clips it implies, what is refused, and a QDQ network through the compiler."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import tvm
from integer_check import INT8, build, relative_error
from small_net import Net
from tvm import relax

from tvm_ffn.importer import load_model
from tvm_ffn.interpreter import Interpreter
from tvm_ffn.passes.strip_quantization import StripQuantization


def fake_quantize(net: Net, x: str, scale: float | np.ndarray, zero: int | np.ndarray = 0) -> str:
    """QuantizeLinear to int8 and back."""
    operands = [net.const(np.asarray(scale, np.float32)), net.const(np.asarray(zero, np.int8))]
    return net("DequantizeLinear", net("QuantizeLinear", x, *operands), *operands)


def strip(model: onnx.ModelProto) -> tuple[list[str], Interpreter]:
    """Operators of the stripped graph, clips with their bounds, and an interpreter of it."""
    mod = tvm.transform.Sequential([StripQuantization()])(load_model(model).mod)
    names = []
    for binding in mod["main"].body.blocks[0].bindings:
        call = binding.value
        assert isinstance(call, relax.Call)
        name = call.op.name.removeprefix("relax.").removeprefix("nn.")
        names.append(f"clip {float(call.args[1]):g} {float(call.args[2]):g}" if name == "clip" else name)
    return names, Interpreter(mod)


def test_a_pair_is_the_clip_of_its_range() -> None:
    net = Net(1, 3, 4, 4)
    names, interpreter = strip(net.model(fake_quantize(net, "x", 0.5, -28)))
    assert names == ["clip -50 77.5"]
    x = 60 * np.random.default_rng(0).standard_normal((1, 3, 4, 4)).astype(np.float32)
    (result,) = interpreter.run({"x": x})
    np.testing.assert_array_equal(result, np.clip(x, -50, 77.5))


def test_a_saturating_pair_is_the_activation() -> None:
    """Lowest integer as zero point: a ReLU6 that exporters leave out."""
    net = Net(1, 3, 8, 8)
    names, _ = strip(net.model(fake_quantize(net, net.conv("x", 3, 4), 6 / 255, -128)))
    assert names == ["conv2d", "add", "clip 0 6"]


def test_clips_are_joined_and_left_out() -> None:
    net = Net(1, 3, 8, 8)
    relu = fake_quantize(net, net("Relu", "x"), 0.125)  # [-16, 15.875]
    pooled = fake_quantize(net, net("MaxPool", relu, kernel_shape=[2, 2]), 0.25)  # wider: can never bind
    names, _ = strip(net.model(fake_quantize(net, net("Transpose", pooled, perm=[0, 2, 3, 1]), 0.0625)))
    assert names == ["clip 0 15.875", "max_pool2d", "permute_dims", "clip -8 7.9375"]


@pytest.mark.parametrize("scales", [np.float32([0.1, 0.2, 0.3]), None], ids=["a scale a channel", "another scale"])
def test_refused(scales: np.ndarray | None) -> None:
    net = Net(1, 3, 4, 4)
    if scales is not None:
        result = fake_quantize(net, "x", scales, np.zeros(3, np.int8))
    else:
        zero = net.const(np.int8(0))
        quantized = net("QuantizeLinear", "x", net.const(0.1), zero)
        result = net("DequantizeLinear", quantized, net.const(0.2), zero)
    names, _ = strip(net.model(result))
    assert names == ["quantize", "dequantize"]


def test_a_quantised_network_is_integer_throughout() -> None:
    net = Net(1, 3, 10, 10)
    weight = net.rng.integers(-127, 128, (8, 8, 3, 3)).astype(np.int8)
    a = fake_quantize(net, net.conv(fake_quantize(net, "x", 1 / 32), 3, 8), 4 / 255, -128)
    stored = net("DequantizeLinear", net.const(weight), net.const(0.003), net.const(np.int8(0)))
    b = fake_quantize(net, net("Conv", a, stored, pads=[1] * 4), 1 / 16)
    c = fake_quantize(net, net("Add", a, b), 1 / 16)
    model = net.model(fake_quantize(net, net.conv(c, 8, 4, 1), 1 / 16))
    built = build(model, INT8)
    assert built.float_operators == ["clip"]  # of the input
    assert built.kernels == ["quantize", "int8_conv2d", "int8_conv2d", "add", "int8_conv2d"]
    (expected,) = Interpreter(StripQuantization()(load_model(model).mod)).run(built.inputs)
    assert relative_error(built.outputs[0], expected) < 0.03
    assert max(built.errors) < 0.06  # onnxruntime rounds as the graph says
