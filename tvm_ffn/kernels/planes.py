"""Between NCHW tensors and the flat pixel space of `geometry`: padded planes in, cropped rows out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_ffn.kernels.builder import KernelBuilder
from tvm_ffn.kernels.geometry import ConvGeometry

Convert = Callable[[Any, int], Any]
_PAIRS = 16  # of int8 that are read together


def image_planes(
    b: KernelBuilder,
    x: Buffer,
    g: ConvGeometry,
    lanes: int,
    dtype: str = "int8",
    convert: Convert | None = None,
) -> Buffer:
    """Block "planes": ``dtype`` (images, channels, span), the padded image by phase of the stride, rows at pitch;
    ``convert(value, n)`` makes it of a vector of n int8 (a cast)."""
    made = convert or partial(_cast, dtype)
    if g.is_image:
        return _runs(b, x, dtype, g.span(lanes), made)
    return _rows(b, x, g, lanes, dtype, made)


def _cast(dtype: str, value: Any, lanes: int) -> Any:
    return T.Cast(dtype if lanes == 1 else f"{dtype}x{lanes}", value)


def _rows(b: KernelBuilder, x: Buffer, g: ConvGeometry, lanes: int, dtype: str, convert: Convert) -> Buffer:
    """Block "planes" row by row: no element has a condition of its own."""
    planes = b.tensor("planes", (g.batch, g.channels, g.span(lanes)), dtype)
    rows, columns = g.phases
    with b.tile("planes", (g.batch, g.channels)) as (n, c), T.serial(g.plane_rows(lanes)) as r:

        def fill(start: Any, first: int, last: int) -> None:
            if first < last:
                with T.serial(last - first) as q:
                    T.buffer_store(planes, convert(T.int8(g.pad_value), 1), [n, c, start + first + q])

        for fh in range(rows):
            h = r * g.strides[0] + fh - g.padding[0]
            starts = [(fh * columns + fw) * g.plane_size(lanes) + r * g.pitch for fw in range(columns)]
            with T.If(T.And(h >= 0, h < g.height)):
                with T.Then():
                    for fw, start in enumerate(starts):
                        first, last = _copy_row(planes, x, [n, c], h, start, g, fw - g.padding[1], convert)
                        fill(start, 0, first)
                        fill(start, last, g.pitch)
                with T.Else():
                    for start in starts:
                        fill(start, 0, g.pitch)
    return planes


def _copy_row(
    planes: Buffer, x: Buffer, at: list[Any], h: Any, start: Any, g: ConvGeometry, shift: int, convert: Convert
) -> tuple[int, int]:
    """What row ``h`` of the image gives a row of a plane, whose column q is the image's ``stride q + shift``; the range
    of these columns. With a stride of two, pairs of int8 are read as int16, whose halves are the columns."""
    stride = g.strides[1]
    first = max(0, -(shift // stride))
    last = max(first, min(g.pitch, (g.width - 1 - shift) // stride + 1))
    count, odd = last - first, (stride * first + shift) % 2
    image = stride * first + shift
    vectors = min(count, (g.width - image + odd) // 2) // _PAIRS if stride == 2 else 0
    if vectors:
        with T.serial(vectors) as vector:
            place = image - odd + vector * (2 * _PAIRS)
            pairs = T.reinterpret(f"int16x{_PAIRS}", x[(*at, h, T.Ramp(place, 1, 2 * _PAIRS))])
            eight = T.Broadcast(T.int16(8), _PAIRS)
            half = T.shift_right(pairs if odd else T.shift_left(pairs, eight), eight)
            target = [*at, T.Ramp(start + first + vector * _PAIRS, 1, _PAIRS)]
            T.buffer_store(planes, convert(half, _PAIRS), target)
    done = vectors * _PAIRS
    if count > done:
        with T.serial(count - done) as q:
            item = x[(*at, h, image + stride * (done + q))]
            T.buffer_store(planes, convert(item, 1), [*at, start + first + done + q])
    return first, last


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


def _runs(b: KernelBuilder, x: Buffer, dtype: str, size: int, convert: Convert) -> Buffer:
    """Block "planes": each channel of an NCHW tensor as one run of ``size``, zeros beyond its end. (All of it is
    written: of a buffer that is not, TVM keeps the written part only, and code has its offsets.)"""
    images, channels, height, width = (int(extent) for extent in x.shape)
    planes = b.tensor("planes", (images, channels, size), dtype)
    end = height * width
    with b.tile("planes", (images, channels)) as (n, c):
        with T.serial(end) as p:
            T.buffer_store(planes, convert(x[n, c, p // width, p % width], 1), [n, c, p])
        with T.serial(size - end) as p:
            T.buffer_store(planes, convert(T.int8(0), 1), [n, c, end + p])
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
