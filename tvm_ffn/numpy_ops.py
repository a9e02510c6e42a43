"""NumPy semantics of the common Relax operators, in one table: operator name -> function(call, *operands).

Operands are arrays, tuples of arrays, or the Relax expression itself where an operand is no tensor (a shape, a
number). Functions take any size of the leading (batch) axis where the call says 1, so that an importer's batch-1
graph runs on batches. What is not in the table the interpreter builds with TVM.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import relax

from tvm_ffn.numpy_conv import conv2d, pool_windows
from tvm_ffn.parallel import one_blas_thread

Operator = Callable[..., Any]  # the result, or None for a form (layout, dtype) the function does not cover


def _conv2d(call: relax.Call, x: np.ndarray, w: np.ndarray) -> np.ndarray | None:
    attrs = call.attrs
    if (attrs.data_layout, attrs.kernel_layout) != ("NCHW", "OIHW") or x.dtype != np.float32:
        return None
    return conv2d(x, w, strides=attrs.strides, padding=attrs.padding, dilation=attrs.dilation, groups=int(attrs.groups))


def _windows(call: relax.Call, x: np.ndarray, combine: Callable[..., np.ndarray], fill: float) -> np.ndarray:
    attrs, output = call.attrs, [int(dim) for dim in call.ty.shape][2:]
    geometry = {
        "kernel": attrs.pool_size,
        "strides": attrs.strides,
        "padding": attrs.padding,
        "dilation": attrs.dilation,
    }
    return pool_windows(x, combine, fill, output=output, **geometry)


def _max_pool2d(call: relax.Call, x: np.ndarray) -> np.ndarray | None:
    if call.attrs.layout != "NCHW" or x.dtype != np.float32:
        return None
    return _windows(call, x, np.maximum, -np.inf)


def _avg_pool2d(call: relax.Call, x: np.ndarray) -> np.ndarray | None:
    attrs = call.attrs
    if attrs.layout != "NCHW" or x.dtype != np.float32:
        return None
    total = _windows(call, x, np.add, 0.0)
    if attrs.count_include_pad:
        return total / np.float32(int(attrs.pool_size[0]) * int(attrs.pool_size[1]))
    return total / _windows(call, np.ones((1, 1, *x.shape[2:]), np.float32), np.add, 0.0)


def _avg_pool3d(call: relax.Call, x: np.ndarray) -> np.ndarray | None:
    """Windows along the depth only, padding counted: what a local response normalisation is made of."""
    attrs = call.attrs
    window, strides, dilation = ([int(v) for v in field] for field in (attrs.pool_size, attrs.strides, attrs.dilation))
    front, top, left, back, bottom, right = (int(width) for width in attrs.padding)
    flat = window[1:] == strides[1:] == dilation[1:] == [1, 1] and not (top or left or bottom or right)
    if not flat or not attrs.count_include_pad or attrs.layout != "NCDHW" or x.dtype != np.float32:
        return None
    planes = x.reshape(-1, 1, x.shape[2], x.shape[3] * x.shape[4])
    geometry = {"strides": (strides[0], 1), "padding": (front, 0, back, 0), "dilation": (dilation[0], 1)}
    output = (int(call.ty.shape[2]), planes.shape[3])
    total = pool_windows(planes, np.add, 0.0, kernel=(window[0], 1), output=output, **geometry)
    return total.reshape(*x.shape[:2], -1, *x.shape[3:]) / np.float32(window[0])


def _reshape(call: relax.Call, x: np.ndarray, shape: relax.ShapeExpr) -> np.ndarray | None:
    if not isinstance(shape, relax.ShapeExpr):
        return None
    sizes = [int(dim) for dim in shape]
    if int(np.prod(sizes)) != x.size and sizes[:1] == [1]:  # a batch through a graph for one sample
        sizes[0] = x.shape[0]
    return x.reshape(sizes)


def _broadcast_to(call: relax.Call, x: np.ndarray, shape: relax.ShapeExpr) -> np.ndarray:
    sizes = [int(dim) for dim in shape]
    if x.ndim == len(sizes) and sizes[0] == 1:
        sizes[0] = x.shape[0]
    return np.broadcast_to(x, sizes)


def _strided_slice(
    call: relax.Call, x: np.ndarray, axes: Any, begin: Any, end: Any, strides: Any = None
) -> np.ndarray | None:
    fields = [getattr(part, "fields", None) for part in (axes, begin, end)]
    if any(field is None for field in fields):
        return None
    numbers = [[int(value) for value in field] for field in fields if field is not None]
    steps = [1] * len(numbers[0]) if strides is None else [int(value) for value in strides.fields]
    if any(step < 0 for step in steps):
        return None
    index = [slice(None)] * x.ndim
    for axis, first, last, step in zip(*numbers, steps, strict=True):
        index[axis] = slice(first, last, step)
    return x[tuple(index)]


def _pad(call: relax.Call, x: np.ndarray) -> np.ndarray | None:
    if call.attrs.pad_mode != "constant":
        return None
    widths = np.array([int(width) for width in call.attrs.pad_width]).reshape(-1, 2)
    return np.pad(x, widths, constant_values=call.attrs.pad_value)


def _matmul(call: relax.Call, a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    if not a.dtype == b.dtype == np.float32:
        return None
    with one_blas_thread():
        return np.matmul(a, b)


def _softmax(call: relax.Call, x: np.ndarray) -> np.ndarray:
    axis = int(call.attrs.axis)
    powers = np.exp(x - x.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def _sigmoid(call: relax.Call, x: np.ndarray) -> np.ndarray:
    small = np.exp(-np.abs(x))  # never overflows
    return np.where(x >= 0, 1, small) / (1 + small)


def _layer_norm(call: relax.Call, x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
    axes = tuple(int(axis) for axis in call.attrs.axes)
    centred = x - x.mean(axis=axes, keepdims=True)
    scaled = centred / np.sqrt((centred * centred).mean(axis=axes, keepdims=True) + np.float32(call.attrs.epsilon))
    return scaled * gamma + beta


def _along(values: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """Quantisation parameters: one value, or one for each index of ``axis``."""
    return values if values.ndim == 0 else values.reshape([-1 if a == axis % rank else 1 for a in range(rank)])


def _quantize(call: relax.Call, x: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray | None:
    """Round half to even and saturate, as ONNX's QuantizeLinear."""
    dtype, axis = np.dtype(str(call.attrs.out_dtype)), int(call.attrs.axis)
    if dtype.kind not in "iu":
        return None
    limits = np.iinfo(dtype)
    levels = np.rint(x / _along(scale, axis, x.ndim)) + _along(zero, axis, x.ndim).astype(np.float32)
    return np.clip(levels, limits.min, limits.max).astype(dtype)


def _dequantize(call: relax.Call, x: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray | None:
    axis = int(call.attrs.axis)
    if str(call.attrs.out_dtype) != "float32" or x.dtype.kind not in "iu":
        return None
    return (x.astype(np.int32) - _along(zero, axis, x.ndim)).astype(np.float32) * _along(scale, axis, x.ndim)


def _reduce(function: Callable[..., np.ndarray]) -> Operator:
    def run(call: relax.Call, x: np.ndarray) -> np.ndarray:
        axes = None if call.attrs.axis is None else tuple(int(axis) for axis in call.attrs.axis)
        return function(x, axis=axes, keepdims=bool(call.attrs.keepdims))

    return run


def _ufunc(function: Callable[..., np.ndarray]) -> Operator:
    return lambda call, *operands: function(*operands)


def _squeeze(call: relax.Call, x: np.ndarray) -> np.ndarray:
    axes = None if call.attrs.axis is None else tuple(int(axis) for axis in call.attrs.axis)
    return x.squeeze(axes)


def _permute(call: relax.Call, x: np.ndarray) -> np.ndarray:
    return x.transpose(None if call.attrs.axes is None else [int(axis) for axis in call.attrs.axes])


OPERATORS: dict[str, Operator] = {
    "relax.nn.conv2d": _conv2d,
    "relax.nn.max_pool2d": _max_pool2d,
    "relax.nn.avg_pool2d": _avg_pool2d,
    "relax.nn.avg_pool3d": _avg_pool3d,
    "relax.nn.relu": lambda call, x: np.maximum(x, x.dtype.type(0)),
    "relax.nn.leakyrelu": lambda call, x: np.where(x > 0, x, x * x.dtype.type(call.attrs.alpha)),
    "relax.nn.softmax": _softmax,
    "relax.nn.layer_norm": _layer_norm,
    "relax.nn.pad": _pad,
    "relax.add": _ufunc(np.add),
    "relax.subtract": _ufunc(np.subtract),
    "relax.multiply": _ufunc(np.multiply),
    "relax.maximum": _ufunc(np.maximum),
    "relax.minimum": _ufunc(np.minimum),
    "relax.matmul": _matmul,
    "relax.divide": lambda call, a, b: np.divide(a, b) if a.dtype.kind == "f" else None,
    "relax.power": lambda call, a, b: np.power(a, b) if a.dtype.kind == "f" else None,
    "relax.exp": _ufunc(np.exp),
    "relax.sqrt": _ufunc(np.sqrt),
    "relax.tanh": _ufunc(np.tanh),
    "relax.abs": _ufunc(np.abs),
    "relax.negative": _ufunc(np.negative),
    "relax.sigmoid": _sigmoid,
    "relax.clip": lambda call, x, low, high: np.clip(x, x.dtype.type(float(low)), x.dtype.type(float(high))),
    "relax.mean": _reduce(np.mean),
    "relax.sum": _reduce(np.sum),
    "relax.max": _reduce(np.max),
    "relax.min": _reduce(np.min),
    "relax.reshape": _reshape,
    "relax.broadcast_to": _broadcast_to,
    "relax.permute_dims": _permute,
    "relax.squeeze": _squeeze,
    "relax.expand_dims": lambda call, x: np.expand_dims(x, tuple(int(axis) for axis in call.attrs.axis)),
    "relax.concat": lambda call, parts: np.concatenate(parts, axis=int(call.attrs.axis or 0)),
    "relax.strided_slice": _strided_slice,
    "relax.astype": lambda call, x: x.astype(str(call.attrs.dtype)) if x.dtype.kind != "f" else None,
    "relax.quantize": _quantize,
    "relax.dequantize": _dequantize,
}
