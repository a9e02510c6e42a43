"""A linear unit as a matrix product: its inputs and outputs at chosen output positions, one row a position.

Positions are flat over a batch: sample * positions a sample + position. A convolution's positions are its output
pixels, a dense layer's all indices but the last.
"""

from __future__ import annotations

import numpy as np
from tvm import relax

from tvm_ffn.graph import Unit, shape_of
from tvm_ffn.numpy_conv import im2col_rows


def positions(unit: Unit) -> int:
    """Output positions in one run of the graph."""
    out = shape_of(unit.call)
    return int(np.prod(out)) // out[-1 if unit.kind == "dense" else 1]


def outputs_of(value: np.ndarray, kind: str) -> np.ndarray:
    """A layer's output as (positions, channels): NCHW for a convolution, features last for a dense layer. A view."""
    if kind == "conv2d":
        return value.transpose(0, 2, 3, 1).reshape(-1, value.shape[1])
    return value.reshape(-1, value.shape[-1])


def inputs_at(unit: Unit, x: np.ndarray, index: np.ndarray) -> np.ndarray:
    """The unit's inputs at the positions ``index`` of the batch ``x``: float32 (rows, groups, n)."""
    if unit.kind == "dense":
        rows = x.reshape(-1, x.shape[-1])[index]
    else:
        attributes = conv_attributes(unit.call)
        attributes.pop("groups")
        rows = im2col_rows(x, index, kernel=shape_of(unit.call.args[1])[2:], **attributes)
    return rows.reshape(len(index), unit.groups, -1)


def conv_attributes(call: relax.Call) -> dict:
    """Strides, padding (top, left, bottom, right), dilation and groups of a conv2d call."""
    attrs = call.attrs
    return {
        "strides": tuple(int(v) for v in attrs.strides),
        "padding": tuple(int(v) for v in attrs.padding),
        "dilation": tuple(int(v) for v in attrs.dilation),
        "groups": int(attrs.groups),
    }
