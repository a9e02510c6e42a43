"""Pooling of ONNX, its padding explicit, as TVM and the integer kernels compute it.

    MaxPool, AveragePool of rank 3           -> of rank 4, on an image of one row
    AveragePool whose last window overhangs  -> zero padding, then the average of the elements a window has

The second where padding is counted and ``ceil_mode`` adds a window that ends beyond the padding: ONNX and PyTorch count
the padding in it, and nothing further out. TVM counts whole windows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm import relax
from tvm.relax.frontend.onnx import onnx_frontend

from tvm_ffn.onnx_one_row import Attributes, in_one_row

Converter = Callable[[relax.Expr, Attributes], relax.Expr]


def max_pool(bb: relax.BlockBuilder, inputs: list, attrs: Attributes, opset: int) -> relax.Expr:
    """MaxPool of any rank."""
    return _pooled(bb, inputs[0], attrs, _stock("MaxPool", bb))


def average_pool(bb: relax.BlockBuilder, inputs: list, attrs: Attributes, opset: int) -> relax.Expr:
    """AveragePool of any rank."""

    def convert(data: relax.Expr, attrs: Attributes) -> relax.Expr:
        counted = attrs.get("count_include_pad") and attrs.get("ceil_mode")
        beyond = _overhang(data, attrs) if counted else []
        return stock(*(_padded(bb, data, attrs, beyond) if any(beyond) else (data, attrs)))

    stock = _stock("AveragePool", bb)
    return _pooled(bb, inputs[0], attrs, convert)


def _stock(name: str, bb: relax.BlockBuilder) -> Converter:
    return lambda data, attrs: getattr(onnx_frontend, name)._impl_v1(bb, [data], attrs, [{}, {}])


def _pooled(bb: relax.BlockBuilder, data: relax.Expr, attrs: Attributes, convert: Converter) -> relax.Expr:
    return in_one_row(bb, data, attrs, convert) if data.ty.ndim == 3 else convert(data, attrs)


def _padded(
    bb: relax.BlockBuilder, data: relax.Expr, attrs: Attributes, beyond: list[int]
) -> tuple[relax.Expr, Attributes]:
    """Data with its padding and attributes without; ``beyond`` it, nothing is counted."""
    axes = len(beyond)
    pads = attrs["pads"]
    if any(pads):
        widths = [0] * 4 + [int(width) for pair in zip(pads[:axes], pads[axes:], strict=True) for width in pair]
        data = bb.emit(relax.op.nn.pad(data, widths, "constant", 0.0))
    return data, {**attrs, "ceil_mode": 0, "count_include_pad": 0, "pads": [0] * axes + beyond}


def _overhang(data: relax.Expr, attrs: Attributes) -> list[int]:
    """By how much the last window of each axis ends beyond the padding; it starts before that after the data."""
    kernel = np.array(attrs["kernel_shape"])
    ones = [1] * len(kernel)
    strides, dilations = np.array(attrs.get("strides", ones)), np.array(attrs.get("dilations", ones))
    before, after = np.reshape(attrs["pads"], (2, -1))
    sizes = np.array([int(dim) for dim in data.ty.shape][2:])
    window, whole = (kernel - 1) * dilations + 1, before + sizes + after
    steps = -((window - whole) // strides)
    steps -= steps * strides >= before + sizes
    return [int(value) for value in np.maximum(steps * strides + window - whole, 0)]
