"""A pooling unit's window, and the weight of each element in an average."""

from __future__ import annotations

import numpy as np

from tvm_ffn.graph import Unit, shape_of
from tvm_ffn.kernels.pool2d import Window


def pool_window(unit: Unit) -> Window:
    """Window of a max_pool2d, avg_pool2d or mean over the image."""
    n, c, height, width = shape_of(unit.inputs[0])
    attrs = unit.call.attrs
    if unit.call.op.name == "relax.mean":
        return Window((n, c, height, width), (height, width), (1, 1), (0, 0), (1, 1), (1, 1))
    top, left = int(attrs.padding[0]), int(attrs.padding[1])
    kernel, strides, dilation = ((int(v[0]), int(v[1])) for v in (attrs.pool_size, attrs.strides, attrs.dilation))
    out_height, out_width = shape_of(unit.call)[2:]
    return Window((n, c, height, width), kernel, strides, (top, left), dilation, (out_height, out_width))


def average_weights(unit: Unit, window: Window) -> np.ndarray:
    """1 / count for each output position, (out_height, out_width)."""
    if unit.call.op.name == "relax.mean" or not unit.call.attrs.count_include_pad:
        return 1.0 / window.counts()
    return np.full(window.out_size, 1.0 / (window.kernel[0] * window.kernel[1]))
