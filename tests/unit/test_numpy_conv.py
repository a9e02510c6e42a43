"""NumPy convolutions and pooling against their definitions, over shapes that do not divide."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tvm_ffn import numpy_conv
from tvm_ffn.numpy_conv import conv2d, im2col_rows, pool_windows

# batch, channels in, channels out, height, width, kernel, strides, padding (t, l, b, r), dilation, groups
CASES = (
    (2, 3, 5, 9, 7, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    (1, 4, 6, 8, 11, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    (3, 4, 6, 9, 8, (1, 1), (2, 3), (0, 0, 0, 0), (1, 1), 2),
    (2, 2, 4, 8, 8, (1, 1), (1, 1), (1, 0, 1, 2), (1, 1), 1),
    (2, 6, 4, 10, 9, (3, 2), (2, 1), (0, 1, 2, 0), (1, 1), 2),
    (1, 5, 5, 9, 9, (3, 3), (1, 1), (2, 2, 2, 2), (2, 2), 5),
    (2, 3, 6, 7, 8, (5, 3), (2, 2), (2, 1, 2, 1), (1, 1), 3),
    (1, 3, 2, 12, 5, (7, 3), (3, 1), (3, 1, 0, 1), (1, 2), 1),
)


def naive(
    x: np.ndarray,
    w: np.ndarray,
    strides: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
) -> np.ndarray:
    """The definition: one dot product an output."""
    top, left, bottom, right = padding
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    (count, _, height, width), (outs, per_group, kh, kw) = x.shape, w.shape
    oh = (height - (kh - 1) * dilation[0] - 1) // strides[0] + 1
    ow = (width - (kw - 1) * dilation[1] - 1) // strides[1] + 1
    out = np.zeros((count, outs, oh, ow))
    for o, i, j in itertools.product(range(outs), range(oh), range(ow)):
        group = o // (outs // groups)
        rows, cols = i * strides[0] + np.arange(kh) * dilation[0], j * strides[1] + np.arange(kw) * dilation[1]
        patch = x[:, group * per_group : (group + 1) * per_group][:, :, rows][:, :, :, cols]
        out[:, o, i, j] = (patch * w[o]).sum((1, 2, 3))
    return out


@pytest.mark.parametrize("scratch", [numpy_conv.SCRATCH_BYTES, 2048], ids=["whole", "bands"])
@pytest.mark.parametrize("case", CASES)
def test_conv2d(case: tuple, scratch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, channels, outs, height, width, kernel, strides, padding, dilation, groups = case
    monkeypatch.setattr(numpy_conv, "SCRATCH_BYTES", scratch)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, channels, height, width), dtype=np.float32)
    w = rng.standard_normal((outs, channels // groups, *kernel), dtype=np.float32)
    result = conv2d(x, w, strides=strides, padding=padding, dilation=dilation, groups=groups)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, naive(x, w, strides, padding, dilation, groups), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", [case for case in CASES if case[-1] == 1])
def test_im2col_rows_are_the_operands_of_the_convolution(case: tuple) -> None:
    batch, channels, outs, height, width, kernel, strides, padding, dilation, _ = case
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, channels, height, width), dtype=np.float32)
    w = rng.standard_normal((outs, channels, *kernel), dtype=np.float32)
    geometry = {"strides": strides, "padding": padding, "dilation": dilation}
    expected = conv2d(x, w, **geometry).transpose(0, 2, 3, 1).reshape(-1, outs)
    rows = rng.permutation(len(expected))[: len(expected) // 2 + 1]
    columns = im2col_rows(x, rows, kernel=kernel, **geometry)
    assert columns.shape == (len(rows), channels * kernel[0] * kernel[1])
    np.testing.assert_allclose(columns @ w.reshape(outs, -1).T, expected[rows], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("size", "ceiling"), [((8, 8), False), ((9, 10), False), ((8, 9), True)])
def test_pooling(size: tuple[int, int], ceiling: bool) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, *size)).astype(np.float32)
    output = [(length + 2 - 3 + ceiling) // 2 + 1 for length in size]
    geometry = {"kernel": (3, 3), "strides": (2, 2), "padding": (1, 1, 1, 1), "dilation": (1, 1), "output": output}
    high = pool_windows(x, np.maximum, -np.inf, **geometry)
    total = pool_windows(x, np.add, 0.0, **geometry)
    for i, j in itertools.product(range(output[0]), range(output[1])):
        window = x[:, :, max(2 * i - 1, 0) : 2 * i + 2, max(2 * j - 1, 0) : 2 * j + 2]
        np.testing.assert_array_equal(high[:, :, i, j], window.max((2, 3)))
        np.testing.assert_allclose(total[:, :, i, j], window.sum((2, 3)), rtol=1e-5, atol=1e-6)
