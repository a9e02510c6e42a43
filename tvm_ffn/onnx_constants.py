"""Evaluate the constant parts of an ONNX graph with ONNX's own reference semantics (NumPy), before conversion.

    node(constants) -> initializer

Exporters leave weights behind Transpose, DequantizeLinear, ConstantOfShape and the like. Folded here they cost
microseconds; folded by relax.transform.FoldConstant each costs a native build, and the layer that reads them loses
the name of its node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

FOLDABLE = frozenset(
    {
        "Add",
        "Cast",
        "Concat",
        "Constant",
        "ConstantOfShape",
        "DequantizeLinear",
        "Div",
        "Exp",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "Mul",
        "Neg",
        "Pow",
        "QuantizeLinear",
        "Range",
        "Reciprocal",
        "Reshape",
        "Slice",
        "Split",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)


def fold_constants(proto: onnx.ModelProto) -> None:
    """Replace, in place, every node of ``FOLDABLE`` type whose inputs are all constants by initializers."""
    from onnx import numpy_helper

    graph = proto.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    values: dict[str, np.ndarray] = {}
    kept = []
    for node in graph.node:
        operands = [name for name in node.input if name]
        foldable = node.op_type in FOLDABLE and node.domain in ("", "ai.onnx")
        if not foldable or not all(name in values or name in stored for name in operands):
            kept.append(node)
            continue
        for name in operands:
            if name not in values:
                values[name] = numpy_helper.to_array(stored[name])
        results = _evaluate(proto, node, {name: values[name] for name in operands})
        values.update(zip(node.output, results, strict=True))
    read = {name for node in kept for name in node.input} | {value.name for value in graph.output}
    del graph.node[:]
    graph.node.extend(kept)
    folded = [name for name in values if name not in stored and name in read]
    graph.initializer.extend(numpy_helper.from_array(values[name], name) for name in folded)
    unused = [position for position, tensor in enumerate(graph.initializer) if tensor.name not in read]
    inputs = [position for position, value in enumerate(graph.input) if value.name in stored]
    for position in reversed(unused):
        del graph.initializer[position]
    for position in reversed(inputs):  # IR version 3 lists initializers as inputs
        del graph.input[position]


def _evaluate(proto: onnx.ModelProto, node: onnx.NodeProto, operands: dict[str, np.ndarray]) -> list[np.ndarray]:
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    # The types of inputs and outputs are not read by the evaluator: it takes those of the arrays.
    declare = [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in operands]
    results = [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in node.output]
    opset = max((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), default=1)
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        opset = max(opset, 21)  # the reference has no older versions; the newer ones only add types and attributes
    graph = helper.make_graph([node], "constant", declare, results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return [np.asarray(result) for result in ReferenceEvaluator(model).run(None, operands)]
