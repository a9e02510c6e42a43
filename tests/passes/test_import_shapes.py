"""Shapes that a graph computes of its tensors' sizes, as exporters write them: constants once the inputs' are known."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from tests.small_net import Net
from tvm_ffn.importer import load_model
from tvm_ffn.interpreter import Interpreter


def check(model: onnx.ModelProto, samples: int) -> list[str]:
    """Compare with onnxruntime; return the operators of the imported graph, in order."""
    imported = load_model(model)
    x = np.random.default_rng(1).standard_normal((samples, *imported.inputs[0].shape[1:])).astype(np.float32)
    (result,) = Interpreter(imported.mod).run({"x": x})
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": x})
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)
    calls = [binding.value for block in imported.mod["main"].body.blocks for binding in block.bindings]
    return [call.op.name.removeprefix("relax.") for call in calls if hasattr(call, "op")]


def size_of(net: Net, x: str, axis: int) -> str:
    return net("Gather", net("Shape", x), net.const(np.int64(axis)), axis=0)


def test_halves_of_a_computed_size() -> None:
    """``chunk`` of the exporter by tracing; the convolution's input shape depends on it."""
    net = Net(1, 8, 6, 6)
    x = net.conv("x", 8, 8)
    half = net("Div", net("Add", size_of(net, x, 1), net.const(np.int64(1))), net.const(np.int64(2)))
    axes = net.const(np.array([1]))
    end = net("Unsqueeze", net("Mul", half, net.const(np.int64(1))), net.const(np.array([0])))
    part = net("Slice", x, net.const(np.array([0])), end, axes)
    assert check(net.model(net.conv(part, 4, 4)), 1) == ["nn.conv2d", "add", "strided_slice", "nn.conv2d", "add"]


@pytest.mark.parametrize("batch", [1, "batch"])
def test_heads_by_a_computed_batch_and_scale(batch: int | str) -> None:
    net = Net(batch, 5, 8)
    heads = [net("Unsqueeze", size, net.const(np.array([0]))) for size in (size_of(net, "x", 0), size_of(net, "x", 1))]
    split = net("Concat", *heads, net.const(np.array([2, 4])), axis=0)
    width = net("Cast", net("Shape", "x", start=-1), to=TensorProto.FLOAT)
    scale = net("Div", net.const(np.float32([1])), net("Sqrt", width))
    assert check(net.model(net("Mul", net("Reshape", "x", split), scale)), 1) == ["reshape", "multiply"]


def test_a_mask_by_the_size() -> None:
    net = Net("batch", 6, opset=20)
    places = net("Range", net.const(np.int64(0)), size_of(net, "x", 1), net.const(np.int64(1)))
    kept = net("Where", net("Less", places, net.const(np.int64(3))), net.const(np.float32(1)), net.const(np.float32(0)))
    assert check(net.model(net("Mul", "x", kept)), 2) == ["multiply"]


def test_a_mask_that_is_written_in_parts() -> None:
    """The shifted windows of a Swin transformer."""
    net = Net(1, 4, opset=20)
    empty = net(
        "ConstantOfShape", net("Shape", "x"), value=onnx.helper.make_tensor("zero", TensorProto.FLOAT, [1], [0])
    )
    places = net.const(np.array([[0, 1], [0, 3]]))
    mask = net("ScatterND", empty, places, net.const(np.float32([-1, -2])))
    assert check(net.model(net("Add", "x", mask)), 1) == ["add"]
