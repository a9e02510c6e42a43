"""Between NCHW tensors and the flat pixel space of `geometry`: padded planes in, cropped rows out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_ffn.kernels.builder import KernelBuilder
from tvm_ffn.kernels.geometry import ConvGeometry


def image_planes(b: KernelBuilder, x: Buffer, g: ConvGeometry, lanes: int, dtype: str = "int8") -> Buffer:
    """Block "planes": ``dtype`` (images, channels, span), the padded image by phase of the stride, rows at pitch."""
    if g.is_image:
        return _runs(b, x, dtype, g.span(lanes))
    top, left = g.padding[0], g.padding[1]
    rows, columns = g.phases

    def value(n: Any, c: Any, fh: Any, fw: Any, r: Any, q: Any) -> Any:
        h, w = r * g.strides[0] + fh - top, q * g.strides[1] + fw - left
        inside = T.And(T.And(h >= 0, h < g.height), T.And(w >= 0, w < g.width))
        return T.Cast(dtype, T.if_then_else(inside, x[n, c, h, w], T.int8(g.pad_value)))

    def place(n: Any, c: Any, fh: Any, fw: Any, r: Any, q: Any) -> tuple[Any, Any, Any]:
        return n, c, (fh * columns + fw) * g.plane_size(lanes) + r * g.pitch + q

    shape = (g.batch, g.channels, rows, columns, g.plane_rows(lanes), g.pitch)
    size = (g.batch, g.channels, g.span(lanes))
    return b.compute("planes", shape, dtype, value, at=place, size=size)


def flat_copy(b: KernelBuilder, x: Buffer, g: ConvGeometry, lanes: int) -> Buffer:
    """Block "residual_flat": an int8 tensor of the output's shape (N, M, H, W) laid out in the flat pixel space."""
    shape, width = tuple(int(extent) for extent in x.shape), g.out_width
    size = (*shape[:2], max(lanes, g.out_height * g.pitch))
    if g.pitch == width:
        shape = (*shape[:2], g.out_height * width)
        return b.compute(
            "residual_flat", shape, "int8", lambda n, m, p: x[n, m, p // width, p % width], at=lambda *i: i, size=size
        )
    return b.compute(
        "residual_flat", shape, "int8", lambda *i: x[i], at=lambda n, m, h, w: (n, m, h * g.pitch + w), size=size
    )


def _runs(b: KernelBuilder, x: Buffer, dtype: str, size: int) -> Buffer:
    """Block "planes": each channel of an NCHW tensor as one run of ``size``, zeros beyond its end. (All of it is
    written: of a buffer that is not, TVM keeps the written part only, and code has its offsets.)"""
    images, channels, height, width = (int(extent) for extent in x.shape)
    planes = b.tensor("planes", (images, channels, size), dtype)
    end, zero = height * width, getattr(T, dtype)(0)
    with b.tile("planes", (images, channels)) as (n, c):
        with T.serial(end) as p:
            T.buffer_store(planes, T.Cast(dtype, x[n, c, p // width, p % width]), [n, c, p])
        with T.serial(size - end) as p:
            T.buffer_store(planes, zero, [n, c, end + p])
    return planes


def cropped(b: KernelBuilder, out: Buffer, g: ConvGeometry, flat: Callable[[Any, Any, Any], Any]) -> None:
    """Block "store": ``out`` (N, M, H, W) from its ``flat(n, m, p)`` form, where rows follow each other at pitch."""
    shape = tuple(int(size) for size in out.shape)
    if g.pitch == g.out_width:
        b.compute(
            "store",
            (*shape[:2], g.out_height * g.out_width),
            out.dtype,
            flat,
            out=out,
            at=lambda n, m, p: (n, m, p // g.out_width, p % g.out_width),
        )
    else:
        b.compute("store", shape, out.dtype, lambda n, m, h, w: flat(n, m, h * g.pitch + w), out=out)


def im2col_numpy(x: np.ndarray, g: ConvGeometry) -> np.ndarray:
    """NumPy reference: columns (N, groups, inputs, out_height * out_width) of an NCHW tensor, padded."""
    top, left, bottom, right = g.padding
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=g.pad_value)
    taps = []
    for dy in range(g.kernel[0]):
        for dx in range(g.kernel[1]):
            y0, x0 = dy * g.dilation[0], dx * g.dilation[1]
            y1, x1 = y0 + (g.out_height - 1) * g.strides[0] + 1, x0 + (g.out_width - 1) * g.strides[1] + 1
            taps.append(padded[:, :, y0 : y1 : g.strides[0], x0 : x1 : g.strides[1]])
    columns = np.stack(taps, axis=2)  # N, C, taps, OH, OW
    return columns.reshape(x.shape[0], g.groups, g.inputs, g.out_height * g.out_width)
