"""Evaluate what is known of an ONNX graph at import with ONNX's own reference semantics (NumPy).

    node(constants) -> constants
    Shape(tensor)   -> constant

Exporters leave weights behind Transpose, DequantizeLinear or the BatchNormalization of a standardised weight, and
compute the operands of Reshape, Slice or Expand from Shape. Folded here they cost microseconds; folded by
relax.transform.FoldConstant each costs a native build, and the layer that reads them loses the name of its node, if it
becomes a constant at all. TVM's converters know few of the operators that may stand between a Shape and its reader.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

OF_SHAPES = frozenset({"Shape", "Size"})
FOLDABLE = OF_SHAPES | {
    "Abs",
    "Add",
    "And",
    "BatchNormalization",
    "Cast",
    "Ceil",
    "Clip",
    "Concat",
    "Constant",
    "ConstantOfShape",
    "Cos",
    "CumSum",
    "DequantizeLinear",
    "Div",
    "Equal",
    "Exp",
    "Expand",
    "Flatten",
    "Floor",
    "Gather",
    "Greater",
    "GreaterOrEqual",
    "Identity",
    "InstanceNormalization",
    "Less",
    "LessOrEqual",
    "Log",
    "Max",
    "Min",
    "Mod",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "Pow",
    "QuantizeLinear",
    "Range",
    "Reciprocal",
    "ReduceL2",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "Reshape",
    "ScatterND",
    "Sigmoid",
    "Sin",
    "Slice",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Tanh",
    "Tile",
    "Transpose",
    "Unsqueeze",
    "Where",
}


def is_foldable(node: onnx.NodeProto) -> bool:
    """Whether a node is evaluated here once its operands are known."""
    return node.op_type in FOLDABLE and node.domain in ("", "ai.onnx")


def evaluate(node: onnx.NodeProto, operands: Mapping[str, np.ndarray], opset: int) -> list[np.ndarray]:
    """The results of a node for operands by name."""
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    # The types of inputs and outputs are not read by the evaluator: it takes those of the arrays.
    declare = [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in operands]
    results = [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in node.output]
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        opset = max(opset, 21)  # the reference has no older versions; the newer ones only add types and attributes
    graph = helper.make_graph([node], "constant", declare, results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return [np.asarray(result) for result in ReferenceEvaluator(model).run(None, dict(operands))]
