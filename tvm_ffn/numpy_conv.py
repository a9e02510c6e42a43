"""Convolution and pooling in NumPy, fast enough to calibrate on hundreds of images.

A convolution is a product of the flattened kernel (C_out, C_in/g * kh * kw) with the columns (C_in/g * kh * kw,
pixels) that im2col copies out of the padded input, one strided copy a kernel tap, in pieces of at most
``SCRATCH_BYTES``. Kernels of 1x1 read the input as it is; depthwise convolutions, whose products would be of one row
each, sum scaled taps instead. All arrays are NCHW float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

SCRATCH_BYTES = 8 << 20


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
    batch, channels = x.shape[:2]
    pixels = out.shape[2] * out.shape[3]
    columns = np.ascontiguousarray(x).reshape(batch, groups, channels // groups, pixels)
    np.matmul(w.reshape(groups, -1, channels // groups), columns, out=out.reshape(batch, groups, -1, pixels))


def _depthwise(xp: np.ndarray, w: np.ndarray, out: np.ndarray, strides: Sequence[int], dilation: Sequence[int]) -> None:
    """Sum of taps, a block of channels at a time so that the block stays in cache."""
    batch, channels_out, oh, ow = out.shape
    multiplier, (kh, kw) = channels_out // xp.shape[1], w.shape[2:]
    block = max(1, (SCRATCH_BYTES // 32) // (4 * xp.shape[2] * xp.shape[3]))
    scratch = np.empty((min(block, channels_out), oh, ow), np.float32)
    for image in range(batch):
        for first in range(0, channels_out, block):
            last = min(first + block, channels_out)
            inputs = xp[image, np.arange(first, last) // multiplier] if multiplier > 1 else xp[image, first:last]
            total, product = out[image, first:last], scratch[: last - first]
            for dy in range(kh):
                for dx in range(kw):
                    y, x = dy * dilation[0], dx * dilation[1]
                    tap = inputs[
                        :,
                        y : y + (oh - 1) * strides[0] + 1 : strides[0],
                        x : x + (ow - 1) * strides[1] + 1 : strides[1],
                    ]
                    scale = w[first:last, 0, dy, dx, None, None]
                    if dy == dx == 0:
                        np.multiply(tap, scale, out=total)
                    else:
                        np.add(total, np.multiply(tap, scale, out=product), out=total)


def _by_columns(
    xp: np.ndarray, w: np.ndarray, out: np.ndarray, strides: Sequence[int], dilation: Sequence[int], groups: int
) -> None:
    """One product for several images if they are small, for a band of output rows if one image is large."""
    batch, channels_out, oh, ow = out.shape
    channels, (kh, kw) = xp.shape[1], w.shape[2:]
    depth = channels * kh * kw
    images = min(batch, max(1, SCRATCH_BYTES // (4 * depth * oh * ow)))
    band = oh if images > 1 else min(oh, max(1, SCRATCH_BYTES // (4 * depth * ow)))
    kernel = w.reshape(groups, channels_out // groups, depth // groups)
    scratch = np.empty(depth * images * band * ow, np.float32)
    for first in range(0, batch, images):
        count = min(images, batch - first)
        for row in range(0, oh, band):
            rows = min(band, oh - row)
            columns = scratch[: depth * count * rows * ow].reshape(channels, kh, kw, count, rows, ow)
            for dy in range(kh):
                for dx in range(kw):
                    y, x = row * strides[0] + dy * dilation[0], dx * dilation[1]
                    ys = slice(y, y + (rows - 1) * strides[0] + 1, strides[0])
                    xs = slice(x, x + (ow - 1) * strides[1] + 1, strides[1])
                    columns[:, dy, dx] = xp[first : first + count, :, ys, xs].swapaxes(0, 1)
            product = np.matmul(kernel, columns.reshape(groups, depth // groups, count * rows * ow))
            product = product.reshape(channels_out, count, rows, ow).swapaxes(0, 1)
            out[first : first + count, :, row : row + rows] = product
