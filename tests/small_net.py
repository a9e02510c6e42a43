"""A few lines to write small ONNX networks with random weights in tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Net:
    """``net("Relu", x)`` appends a node and returns its output's name; the inputs are ``x`` (and others on request)."""

    def __init__(self, *shape: int | str, opset: int = 17, **inputs: tuple[int, ...]) -> None:
        self.opset, self.rng = opset, np.random.default_rng(0)
        self.inputs = {"x": shape, **inputs} if shape else inputs
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def __call__(self, operator: str, *operands: str, outputs: int = 1, **attributes: Any) -> Any:
        name = f"{operator.lower()}{len(self.nodes)}"
        results = [f"{name}_{i}" if outputs > 1 else name for i in range(outputs)]
        self.nodes.append(helper.make_node(operator, operands, results, name, **attributes))
        return results if outputs > 1 else name

    def const(self, value: Any) -> str:
        array = np.asarray(value)
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        self.weights.append(numpy_helper.from_array(array, f"c{len(self.weights)}"))
        return self.weights[-1].name

    def random(self, *shape: int, scale: float = 1.0) -> str:
        return self.const(self.rng.standard_normal(shape) * scale)

    def conv(self, x: str, inputs: int, outputs: int, kernel: int = 3, *, groups: int = 1, **attributes: Any) -> str:
        """A convolution with bias; padding keeps the size unless ``pads`` says otherwise."""
        fan_in = inputs // groups * kernel**2
        weight = self.random(outputs, inputs // groups, kernel, kernel, scale=np.sqrt(2 / fan_in))
        bias = self.random(outputs, scale=0.1)
        given = {"pads": [kernel // 2] * 4, "group": groups, "kernel_shape": [kernel, kernel], **attributes}
        return self("Conv", x, weight, bias, **given)

    def dense(self, x: str, inputs: int, outputs: int) -> str:
        """MatMul and Add, as exporters write a linear layer on any number of leading axes."""
        product = self("MatMul", x, self.random(inputs, outputs, scale=np.sqrt(2 / inputs)))
        return self("Add", self.random(outputs, scale=0.1), product)

    def model(self, *outputs: str, dtype: int = TensorProto.FLOAT) -> onnx.ModelProto:
        inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(s)) for n, s in self.inputs.items()]
        results = [helper.make_tensor_value_info(name, dtype, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "net", inputs, results, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
