"""Convolution and pooling in NumPy, fast enough to calibrate on hundreds of images.

A convolution is a product of the flattened kernel (C_out, C_in/g * kh * kw) with the columns (C_in/g * kh * kw,
pixels) that im2col copies out of the padded input, one strided copy a kernel tap, in pieces of at most
``SCRATCH_BYTES``. Kernels of 1x1 read the input as it is; depthwise convolutions, whose products would be of one row
each, sum scaled taps instead. All arrays are NCHW float32.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from tvm_ffn.host import cores
from tvm_ffn.parallel import for_each

SCRATCH_BYTES = 8 << 20  # of columns, in each thread
DEPTHWISE_BYTES = 1 << 18  # of one block of channels: half of a level 2 cache


def conv2d(
    x: np.ndarray,
    w: np.ndarray,
    *,
    strides: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0, 0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> np.ndarray:
    """Convolve x (n, C, h, w) with w (C_out, C / groups, kh, kw); padding is (top, left, bottom, right)."""
    channels_out, per_group, kh, kw = w.shape
    strides, dilation = tuple(map(int, strides)), tuple(map(int, dilation))
    xp = pad_spatial(x, padding, 0.0)
    oh, ow = _output_size(xp.shape, (kh, kw), strides, dilation)
    out = np.empty((x.shape[0], channels_out, oh, ow), np.float32)
    if per_group == 1 and groups == x.shape[1] and groups > 1:
        _depthwise(xp, w, out, strides, dilation)
    elif (kh, kw) == (1, 1):
        _pointwise(xp[:, :, :: strides[0], :: strides[1]][:, :, :oh, :ow], w, out, groups)
    else:
        _by_columns(xp, w, out, strides, dilation, groups)
    return out


def im2col_rows(
    x: np.ndarray,
    rows: np.ndarray,
    *,
    kernel: Sequence[int],
    strides: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0, 0, 0),
    dilation: Sequence[int] = (1, 1),
) -> np.ndarray:
    """Return the patches (len(rows), C * kh * kw), in (c, dy, dx) order, of the flattened (n, oh, ow) positions."""
    xp = pad_spatial(x, padding, 0.0)
    kernel, strides, dilation = tuple(map(int, kernel)), tuple(map(int, strides)), tuple(map(int, dilation))
    oh, ow = _output_size(xp.shape, kernel, strides, dilation)
    image, rest = np.divmod(np.asarray(rows, np.int64), oh * ow)
    top, left = rest // ow * strides[0], rest % ow * strides[1]
    columns = np.empty((len(image), x.shape[1], *kernel), x.dtype)
    for dy in range(kernel[0]):
        for dx in range(kernel[1]):
            columns[:, :, dy, dx] = xp[image, :, top + dy * dilation[0], left + dx * dilation[1]]
    return columns.reshape(len(image), -1)


def pad_spatial(x: np.ndarray, padding: Sequence[int], value: float) -> np.ndarray:
    """Pad the last two axes by (top, left, bottom, right); without padding x itself."""
    top, left, bottom, right = (int(width) for width in padding)
    if not (top or left or bottom or right):
        return x
    height, width = x.shape[-2:]
    padded = np.full((*x.shape[:-2], height + top + bottom, width + left + right), value, x.dtype)
    padded[..., top : top + height, left : left + width] = x
    return padded


def pool_windows(
    x: np.ndarray,
    combine: Callable[..., np.ndarray],
    fill: float,
    *,
    kernel: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    output: Sequence[int],
) -> np.ndarray:
    """Reduce windows with an associative ufunc, rows first, then columns; ``output`` (oh, ow) settles ceil_mode."""
    top, left = int(padding[0]), int(padding[1])
    ends = [(int(output[a]) - 1) * int(strides[a]) + (int(kernel[a]) - 1) * int(dilation[a]) + 1 for a in (0, 1)]
    bottom, right = max(ends[0] - x.shape[2] - top, 0), max(ends[1] - x.shape[3] - left, 0)
    result = pad_spatial(x, (top, left, bottom, right), fill)
    for axis in (0, 1):
        taps = []
        for tap in range(int(kernel[axis])):
            start = tap * int(dilation[axis])
            span = slice(start, start + (int(output[axis]) - 1) * int(strides[axis]) + 1, int(strides[axis]))
            taps.append(result[:, :, span] if axis == 0 else result[:, :, :, span])
        total = taps[0].copy()
        for piece in taps[1:]:
            combine(total, piece, out=total)
        result = total
    return result


def _output_size(
    shape: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilation: Sequence[int]
) -> tuple[int, int]:
    height, width = ((shape[2 + a] - (kernel[a] - 1) * dilation[a] - 1) // strides[a] + 1 for a in (0, 1))
    return height, width


def _pointwise(x: np.ndarray, w: np.ndarray, out: np.ndarray, groups: int) -> None:
    channels, pixels = x.shape[1], out.shape[2] * out.shape[3]
    kernel = w.reshape(groups, -1, channels // groups)

    def multiply(image: int) -> None:
        columns = np.ascontiguousarray(x[image]).reshape(groups, channels // groups, pixels)
        np.matmul(kernel, columns, out=out[image].reshape(groups, -1, pixels))

    for_each(multiply, range(len(x)))


def _depthwise(xp: np.ndarray, w: np.ndarray, out: np.ndarray, strides: Sequence[int], dilation: Sequence[int]) -> None:
    """Sum of taps, a block of channels at a time so that the block stays in cache."""
    batch, channels_out, oh, ow = out.shape
    multiplier, (kh, kw) = channels_out // xp.shape[1], w.shape[2:]
    block = max(1, DEPTHWISE_BYTES // (4 * xp.shape[2] * xp.shape[3]))

    def add_taps(piece: tuple[int, int]) -> None:
        image, first = piece
        last = min(first + block, channels_out)
        inputs = xp[image, np.arange(first, last) // multiplier] if multiplier > 1 else xp[image, first:last]
        total, product = out[image, first:last], np.empty((last - first, oh, ow), np.float32)
        for dy in range(kh):
            for dx in range(kw):
                tap = _tap(inputs, dy * dilation[0], dx * dilation[1], (oh, ow), strides)
                scale = w[first:last, 0, dy, dx, None, None]
                if dy == dx == 0:
                    np.multiply(tap, scale, out=total)
                else:
                    np.add(total, np.multiply(tap, scale, out=product), out=total)

    for_each(add_taps, itertools.product(range(batch), range(0, channels_out, block)))


def _by_columns(
    xp: np.ndarray, w: np.ndarray, out: np.ndarray, strides: Sequence[int], dilation: Sequence[int], groups: int
) -> None:
    """One product for several images if they are small, for a band of output rows if one image is large."""
    batch, channels_out, oh, ow = out.shape
    channels, (kh, kw) = xp.shape[1], w.shape[2:]
    depth = channels * kh * kw
    images = max(1, min(-(-batch // cores()), SCRATCH_BYTES // (4 * depth * oh * ow)))
    bands = 1 if images > 1 else max(-(-4 * depth * oh * ow // SCRATCH_BYTES), -(-cores() // batch))
    band = -(-oh // bands)
    kernel = w.reshape(groups, channels_out // groups, depth // groups)

    def multiply(piece: tuple[int, int]) -> None:
        image, row = piece
        count, rows = min(images, batch - image), min(band, oh - row)
        columns = np.empty((channels, kh, kw, count, rows, ow), np.float32)
        part = xp[image : image + count, :, row * strides[0] :].swapaxes(0, 1)
        for dy in range(kh):
            for dx in range(kw):
                columns[:, dy, dx] = _tap(part, dy * dilation[0], dx * dilation[1], (rows, ow), strides)
        product = np.matmul(kernel, columns.reshape(groups, depth // groups, count * rows * ow))
        product = product.reshape(channels_out, count, rows, ow).swapaxes(0, 1)
        out[image : image + count, :, row : row + rows] = product

    for_each(multiply, itertools.product(range(0, batch, images), range(0, oh, band)))


def _tap(x: np.ndarray, y0: int, x0: int, size: Sequence[int], strides: Sequence[int]) -> np.ndarray:
    """The inputs that one kernel tap meets, one for each of ``size`` (rows, columns) outputs."""
    ys = slice(y0, y0 + (size[0] - 1) * strides[0] + 1, strides[0])
    return x[..., ys, x0 : x0 + (size[1] - 1) * strides[1] + 1 : strides[1]]
