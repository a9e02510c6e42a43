"""A float16 or bfloat16 ONNX graph as float32: what the layers are factorised from, and what is run in between.

inputs, outputs, initializers, constants, Cast(to=float16)  ->  the same in float32
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_dtype"})


def widen(graph: onnx.GraphProto) -> bool:
    """Make every 16-bit floating-point tensor of ``graph`` float32, in place; whether there was any."""
    from onnx import TensorProto, numpy_helper

    narrow = {TensorProto.FLOAT16, TensorProto.BFLOAT16}
    found = False
    for tensor in _tensors(graph):
        if tensor.data_type in narrow:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
            found = True
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type in narrow:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
            found = True
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in TYPE_ATTRIBUTES and attribute.i in narrow:
                attribute.i = TensorProto.FLOAT
                found = True
    return found


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """The initializers, and the values of Constant and ConstantOfShape."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
