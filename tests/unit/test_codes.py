"""Packing of ternary matrices: what goes in comes out, in few bits; no int16 sum overflows in the segments."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import shapes
from tvm_ffn.kernels.codes import (
    INT16_MAX,
    MOST_GROUP,
    Segments,
    column_bounds,
    pack_groups,
    pack_masks,
    segments,
    unpack_groups,
    unpack_masks,
    zero_code,
)
from tvm_ffn.kernels.lut import LUTS

LIMITS = st.sampled_from([1, 127, 511, 2047])
GROUPS = st.integers(2, MOST_GROUP)


@st.composite
def ternary(draw: st.DrawFn, largest: int = 400) -> np.ndarray:
    """A ternary matrix of any density, some rows much denser than others."""
    rows, columns = draw(st.integers(1, 70)), draw(st.integers(1, largest))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    density = rng.random((rows, 1)) ** draw(st.sampled_from([0.0, 0.5, 4.0]))
    signs = rng.choice(np.array([-1, 1], np.int8), (rows, columns))
    return np.where(rng.random((rows, columns)) < density, signs, 0).astype(np.int8)


def largest_sum(matrix: np.ndarray, columns: int, limit: int) -> int:
    """Largest sum of inputs up to ``limit`` in any row and any run of ``columns``, run by run."""
    starts = range(0, matrix.shape[1], columns)
    return max(int(np.abs(matrix[:, start : start + columns]).sum(1).max()) * limit for start in starts)


@given(ternary(), LIMITS, GROUPS, st.integers(1, 20))
def test_groups_come_back(matrix: np.ndarray, limit: int, step: int, chunk: int) -> None:
    cut = segments(matrix, limit, step=step, chunk=chunk)
    codes = pack_groups(matrix, cut)
    assert codes.shape == (cut.segments, cut.chunks, len(matrix), cut.words)
    assert codes.dtype == f"uint{8 * cut.word_bytes}"
    np.testing.assert_array_equal(unpack_groups(codes, cut, matrix.shape[1]), matrix)


@given(ternary(60), GROUPS, st.integers(1, 20))
def test_a_code_is_the_number_of_its_digits(matrix: np.ndarray, size: int, chunk: int) -> None:
    cut = segments(matrix, 127, step=size, chunk=chunk)
    codes = pack_groups(matrix, cut)
    for row, digits in enumerate(matrix.tolist()):
        for step in range(cut.steps):
            group = (digits[step * size : (step + 1) * size] + [0] * size)[:size]
            segment, rest = divmod(step, cut.chunks * cut.length)
            word, byte = divmod(rest % cut.length, cut.word_bytes)
            code = int(codes[segment, rest // cut.length, row, word]) >> (8 * byte) & 0xFF
            assert code == sum((digit + 1) * 3**i for i, digit in enumerate(group))
            assert step * size < len(digits) or code == zero_code(size)


@given(ternary(), LIMITS, st.integers(1, MOST_GROUP), st.integers(1, 40))
def test_no_segment_overflows(matrix: np.ndarray, limit: int, step: int, chunk: int) -> None:
    cut = segments(matrix, limit, step=step, chunk=chunk)
    assert cut.length <= chunk
    assert cut.steps * step >= matrix.shape[1]
    assert largest_sum(matrix, cut.chunks * cut.length * step, limit) <= INT16_MAX


@settings(max_examples=40)
@given(ternary(150), st.sampled_from([511, 2047, 10000]), st.integers(1, MOST_GROUP), st.integers(1, 20))
def test_no_cut_is_cheaper(matrix: np.ndarray, limit: int, step: int, chunk: int) -> None:
    """Against all cuts of at most twice the chunks needed; more only add to the cost."""
    step = min(step, INT16_MAX // limit)

    def cost(cut: Segments) -> int:
        stored = cut.words * cut.word_bytes
        assert cut.length <= stored < cut.length + 4
        return cut.segments * (cut.chunks * (stored + 1) + 2)

    steps = -(-matrix.shape[1] // step)
    possible = []
    for count in range(1, steps + 1):
        needed = -(-steps // (count * chunk))
        for chunks in range(needed, 2 * needed + 1):
            length = -(-steps // (count * chunks))
            if largest_sum(matrix, chunks * length * step, limit) <= INT16_MAX:
                possible.append(Segments(count, chunks, length, step))
    found = segments(matrix, limit, step=step, chunk=chunk)
    assert cost(found) == min(map(cost, possible))
    assert found.segments == min(cut.segments for cut in possible if cost(cut) == cost(found))


def test_the_bound_is_sharp() -> None:
    fits, too_many = np.ones((1, 258), np.int8), np.ones((1, 259), np.int8)
    assert segments(fits, 127, step=1, chunk=1000).segments == 1
    assert segments(too_many, 127, step=1, chunk=1000).segments == 2
    with pytest.raises(ValueError, match="overflow int16 within one group"):
        segments(fits, 10923, step=3, chunk=16)
    assert segments(fits, 10922, step=3, chunk=16).segments == 86


@given(ternary(), LIMITS)
def test_column_bounds_cover_all_inputs(matrix: np.ndarray, limit: int) -> None:
    bounds = column_bounds(matrix, limit)
    runs = np.diff(bounds)
    assert bounds[0] == 0
    assert bounds[-1] == matrix.shape[1]
    assert (runs > 0).all()
    assert (runs[:-1] == runs[0]).all()
    assert runs[-1] <= runs[0]
    assert largest_sum(matrix, int(runs[0]), limit) <= INT16_MAX


@pytest.mark.parametrize("zeros", [0.3, 0.5, 0.6])
@pytest.mark.parametrize("ratio", [1.0, 1.5])
def test_resnet18_takes_less_than_2_7_bits_an_entry(ratio: float, zeros: float) -> None:
    """Its nineteen convolutions after the first, as they are stored; short rows need padding, but hold few entries."""
    rng = np.random.default_rng(0)
    kinds = [(64, 64, 9, 4), (64, 128, 9, 1), (128, 128, 9, 3), (128, 256, 9, 1), (256, 256, 9, 3), (256, 512, 9, 1)]
    kinds += [(512, 512, 9, 3), (64, 128, 1, 1), (128, 256, 1, 1), (256, 512, 1, 1)]
    bits = entries = 0
    for channels, outputs, taps, count in kinds:
        inputs = channels * taps
        terms = int(ratio * min(inputs, outputs))
        for rows, columns, limit in ((terms, inputs, 127), (outputs, terms, 511)):
            matrix = (rng.random((rows, columns)) >= zeros).astype(np.int8)
            bits += count * 8 * pack_groups(matrix, segments(matrix, limit, step=3, chunk=16)).nbytes
            entries += count * matrix.size
    assert bits / entries <= 2.7


@pytest.mark.parametrize("columns", [192, 576, 1152, 2304, 4608, 6912])
def test_long_rows_that_divide_by_three_take_two_and_two_thirds(columns: int) -> None:
    matrix = (np.random.default_rng(columns).random((64, columns)) < 0.5).astype(np.int8)
    codes = pack_groups(matrix, segments(matrix, 127, step=3, chunk=16))
    assert codes.nbytes * 8 / matrix.size <= 2.7


@given(ternary(120), st.sampled_from([16, 32, 64]))
def test_masks_come_back(matrix: np.ndarray, lanes: int) -> None:
    masks = pack_masks(matrix, lanes)
    assert masks.shape == (-(-len(matrix) // lanes), matrix.shape[1], 2, lanes // 16)
    assert masks.dtype == np.uint16
    assert not (masks[:, :, 0] & masks[:, :, 1]).any()
    np.testing.assert_array_equal(unpack_masks(masks, len(matrix)), matrix)


@settings(max_examples=30)
@given(ternary(40))
def test_a_mask_bit_is_one_entry(matrix: np.ndarray) -> None:
    lanes = 32
    masks = pack_masks(matrix, lanes)
    for row in range(len(masks) * lanes):
        block, lane = divmod(row, lanes)
        words = masks[block, :, :, lane // 16] >> (lane % 16) & 1
        expected = matrix[row] if row < len(matrix) else np.zeros(matrix.shape[1])
        np.testing.assert_array_equal(words[:, 0].astype(int) - words[:, 1], expected)


def test_masks_of_64_outputs_take_two_bits_an_entry() -> None:
    matrix = np.ones((128, 77), np.int8)
    assert pack_masks(matrix, 64).nbytes * 8 == 2 * matrix.size


@given(ternary(120), st.sampled_from(sorted(LUTS)), st.integers(1, 3))
def test_words_come_back(matrix: np.ndarray, isa: str, vectors: int) -> None:
    form = LUTS[isa].words
    cut = segments(matrix, 127, step=form.step, chunk=matrix.shape[1])
    words = form.pack(matrix, cut, vectors * form.lanes)
    assert words.shape == (-(-len(matrix) // (vectors * form.lanes)), cut.steps, vectors * form.lanes)
    np.testing.assert_array_equal(form.unpack(words, *matrix.shape), matrix)


def test_words_hold_the_codes_of_neighbours() -> None:
    matrix = np.zeros((64, 12), np.int8)
    matrix[1, :5] = [1, 0, -1, 0, 1]  # the second of the even lanes on AVX2; codes of 13 and 4 are zeros
    cut = segments(matrix, 127, step=9, chunk=12)
    assert LUTS["avx512"].words.pack(matrix, cut, 32)[0, 0, 1] == (2 + 3 * 1) | (1 + 3 * 2 + 9 * 1) << 5 | 13 << 10
    cut = segments(matrix, 127, step=4, chunk=12)
    assert LUTS["avx2"].words.pack(matrix, cut, 32)[0, 0, 2] == (2 + 3 * 1) | (0 + 3 * 1) << 4


def test_the_table_has_rows_longer_than_one_segment() -> None:
    long = [s for s in shapes.tested() if isinstance(s, shapes.TernaryConv) and s.geometry.inputs * (1 - s.zeros) > 258]
    assert len(long) >= 2
