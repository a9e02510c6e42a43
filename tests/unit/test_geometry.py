"""Flat pixel planes: every tap of every output finds its input, and no run of pixels leaves the planes."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from tvm_ffn.kernels.geometry import ConvGeometry
from tvm_ffn.kernels.planes import im2col_numpy

PADDING_OF_ANOTHER = 101  # what unwritten elements hold: a value that no image has


@st.composite
def geometries(draw: st.DrawFn) -> ConvGeometry:
    """Any convolution with at least one output pixel."""
    small, pair = st.integers(1, 4), st.tuples(st.integers(1, 4), st.integers(1, 4))
    groups, per_group = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    kernel, strides, dilation = draw(pair), draw(pair), draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    top, left, bottom, right = (draw(st.integers(0, 3)) for _ in range(4))
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    assume(height + top + bottom > (kernel[0] - 1) * dilation[0])
    assume(width + left + right > (kernel[1] - 1) * dilation[1])
    batch = draw(small) if groups == 1 else 1
    padding = (top, left, bottom, right)
    return ConvGeometry(batch, groups * per_group, height, width, kernel, strides, padding, dilation, groups)


def padded_image(x: np.ndarray, g: ConvGeometry) -> np.ndarray:
    top, left, bottom, right = g.padding
    return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))


def planes(padded: np.ndarray, g: ConvGeometry, lanes: int) -> np.ndarray:
    """One channel's planes as the module describes them: phase after phase, rows at the pitch, zeros past the image."""
    flat = np.full(g.span(lanes), PADDING_OF_ANOTHER)
    for fh, fw in product(range(g.phases[0]), range(g.phases[1])):
        for row, column in product(range(g.plane_rows(lanes)), range(g.pitch)):
            h, w = row * g.strides[0] + fh, column * g.strides[1] + fw
            inside = h < padded.shape[0] and w < padded.shape[1]
            place = (fh * g.phases[1] + fw) * g.plane_size(lanes) + row * g.pitch + column
            flat[place] = padded[h, w] if inside else 0
    return flat


def positions(size: int, reach: int, stride: int) -> int:
    """Windows that lie wholly within ``size``, counted."""
    return sum(1 for start in range(0, size, stride) if start + reach < size)


@given(geometries(), st.integers(1, 80))
def test_every_tap_of_every_output_finds_its_input(g: ConvGeometry, extra: int) -> None:
    padded = padded_image(np.arange(1, g.height * g.width + 1).reshape(1, 1, g.height, g.width), g)[0, 0]
    lanes = g.pixels + extra
    flat = planes(padded, g, lanes)
    for dy, dx in product(range(g.kernel[0]), range(g.kernel[1])):
        offset = g.tap_offset(dy, dx, lanes)
        assert offset + lanes <= g.span(lanes)
        for h, w in product(range(g.out_height), range(g.out_width)):
            expected = padded[h * g.strides[0] + dy * g.dilation[0], w * g.strides[1] + dx * g.dilation[1]]
            assert flat[offset + h * g.pitch + w] == expected


@given(geometries())
def test_sizes_are_counts(g: ConvGeometry) -> None:
    reach = [(g.kernel[axis] - 1) * g.dilation[axis] for axis in (0, 1)]
    assert g.out_height == positions(g.height + g.padding[0] + g.padding[2], reach[0], g.strides[0])
    assert g.out_width == positions(g.width + g.padding[1] + g.padding[3], reach[1], g.strides[1])
    assert g.pitch >= g.out_width, "two outputs would have one place"
    assert g.pixels == (g.out_height - 1) * g.pitch + g.out_width
    assert g.inputs == g.channels // g.groups * len(list(product(range(g.kernel[0]), range(g.kernel[1]))))


@given(geometries(), st.integers(0, 2**32 - 1))
def test_im2col_gathers_the_padded_image(g: ConvGeometry, seed: int) -> None:
    x = np.random.default_rng(seed).integers(-127, 128, (g.batch, g.channels, g.height, g.width)).astype(np.int8)
    padded, per_group = padded_image(x, g), g.channels // g.groups
    columns = im2col_numpy(x, g)
    assert columns.shape == (g.batch, g.groups, g.inputs, g.out_height * g.out_width)
    for n, j, c in product(range(g.batch), range(g.groups), range(per_group)):
        for dy, dx in product(range(g.kernel[0]), range(g.kernel[1])):
            rows = np.arange(g.out_height) * g.strides[0] + dy * g.dilation[0]
            places = np.arange(g.out_width) * g.strides[1] + dx * g.dilation[1]
            expected = padded[n, j * per_group + c][np.ix_(rows, places)].reshape(-1)
            np.testing.assert_array_equal(columns[n, j, (c * g.kernel[0] + dy) * g.kernel[1] + dx], expected)


def test_padding_is_shared_by_rows_of_stride_one_only() -> None:
    assert ConvGeometry(1, 1, 5, 8, (3, 3), (1, 1), (1, 1, 1, 1)).pitch == 8 + 1
    assert ConvGeometry(1, 1, 5, 8, (3, 3), (1, 1), (1, 1, 1, 0)).pitch == 7 + 2
    assert ConvGeometry(1, 1, 5, 8, (3, 3), (2, 2), (1, 1, 1, 1)).pitch == 4 + 1
