"""A batch through a graph for one sample: allowed where samples stay apart, sample by sample where they may not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tvm_ffn.errors import DataError
from tvm_ffn.importer import load_model
from tvm_ffn.interpreter import Interpreter

RNG = np.random.default_rng(0)
SIX = RNG.standard_normal((4, 6)).astype(np.float32)


def model(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    weights = [numpy_helper.from_array(np.array(value), name) for name, value in (("s", [1, 12]), ("t", [3, 4]))]
    weights += [numpy_helper.from_array(SIX, "w"), numpy_helper.from_array(np.array([1, 3, 4]), "u")]
    body = helper.make_graph(list(nodes), "net", inputs, outputs, weights)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def node(operator: str, operands: list[str], result: str = "y", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(operator, operands, [result], **attributes)


@pytest.mark.parametrize(
    ("nodes", "batched"),
    [
        ([node("MatMul", ["x", "w"])], True),
        ([node("Reshape", ["x", "s"])], True),
        ([node("Transpose", ["x"], perm=[0, 2, 1])], True),
        ([node("Transpose", ["x"], "a", perm=[0, 2, 1]), node("MatMul", ["x", "a"])], True),
        ([node("Softmax", ["x"], axis=1)], True),
        ([node("Concat", ["x", "x"], axis=2)], True),
        ([node("ReduceMean", ["x"], axes=[1], keepdims=0)], True),
        ([node("Transpose", ["x"], "a", perm=[1, 0, 2]), node("Transpose", ["a"], perm=[1, 0, 2])], False),
        ([node("Reshape", ["x", "t"], "a"), node("Relu", ["a"], "b"), node("Reshape", ["b", "u"])], False),
        ([node("ReduceMean", ["x"], axes=[0], keepdims=1)], False),
        ([node("Softmax", ["x"], axis=0)], False),
        ([node("Erf", ["x"])], False),  # unknown: always right, only slower
    ],
)
def test_whole_batches(nodes: list[onnx.NodeProto], batched: bool) -> None:
    interpreter = Interpreter(load_model(model(*nodes)).mod)
    assert interpreter.batched == batched
    x = RNG.standard_normal((5, 3, 4)).astype(np.float32)
    (result,) = interpreter.run({"x": x})
    expected = np.concatenate([interpreter.run({"x": x[i : i + 1]})[0] for i in range(5)])
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_inputs_are_checked() -> None:
    interpreter = Interpreter(load_model(model(node("Relu", ["x"]))).mod)
    with pytest.raises(DataError, match="'x' is missing; given: z"):
        interpreter.run({"z": np.zeros((1, 3, 4), np.float32)})
    with pytest.raises(DataError, match=r"shape \(1, 4, 4\)"):
        interpreter.run({"x": np.zeros((1, 4, 4), np.float32)})
