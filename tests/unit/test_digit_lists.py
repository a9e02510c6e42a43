"""Lists of signed digits: what goes in comes out, in about a byte a digit; no int16 sum of a chunk overflows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_ffn.kernels.codes import INT16_MAX
from tvm_ffn.kernels.digit_lists import (
    LONGEST_CHUNK,
    DigitCut,
    cut_inputs,
    fold_rare_planes,
    integer_weights,
    pack_digits,
    plane_runs,
    unpack_digits,
)
from tvm_ffn.kernels.digit_sum import digit_adds, tile_for

LIMIT = 127


@st.composite
def digit_planes(draw: st.DrawFn) -> np.ndarray:
    """Digits (groups, planes, m, n) of any density, some outputs much denser than others, some beyond +-1."""
    groups, planes, outputs, inputs = (draw(st.integers(1, most)) for most in (3, 7, 9, 600))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (groups, planes, outputs, inputs)
    density = rng.random((groups, 1, outputs, 1)) ** draw(st.sampled_from([0.0, 0.5, 4.0]))
    signs = rng.choice(np.array([-1, 1], np.int8), shape)
    digits = np.where(rng.random(shape) < density, signs, 0).astype(np.int8)
    if planes > 1 and draw(st.booleans()):
        digits[:, 0] *= rng.choice(np.array([1, 2, 3], np.int8), digits[:, 0].shape)
    return digits


def chunk_sums(digits: np.ndarray, length: int, together: int) -> int:
    """The largest sum of inputs up to ``LIMIT`` in any output, run of planes and chunk of ``length``."""
    largest = 0
    for run in plane_runs(digits.shape[1], together):
        weights = np.abs(integer_weights(digits[:, run.start : run.stop]).astype(int))
        starts = range(0, weights.shape[2], length)
        largest = max(largest, *(int(weights[..., start : start + length].sum(2).max()) for start in starts))
    return largest * LIMIT


@given(digit_planes(), st.integers(1, 300))
def test_digits_come_back(digits: np.ndarray, longest: int) -> None:
    cut = cut_inputs(digits, LIMIT, longest)
    counts, codes = pack_digits(digits, cut)
    assert counts.dtype == codes.dtype == np.uint8
    assert counts.shape == (len(digits), cut.chunks, digits.shape[2], 2 * cut.planes)
    assert counts.sum(dtype=int) == np.abs(digits).sum(dtype=int)
    np.testing.assert_array_equal(unpack_digits(counts, codes, cut), digits)


@given(digit_planes(), st.integers(1, 300))
def test_no_chunk_overflows_and_none_is_longer_than_asked(digits: np.ndarray, longest: int) -> None:
    cut = cut_inputs(digits, LIMIT, longest)
    inputs = digits.shape[3]
    assert (cut.planes, cut.inputs) == (digits.shape[1], inputs)
    assert (cut.chunks - 1) * cut.length < inputs <= cut.chunks * cut.length
    assert cut.length <= min(longest, LONGEST_CHUNK)
    assert chunk_sums(digits, cut.length, cut.together) <= INT16_MAX
    fewer = next((c for c in range(cut.chunks - 1, 0, -1) if -(-inputs // c) > cut.length), 0)
    if fewer and -(-inputs // fewer) <= min(longest, LONGEST_CHUNK):
        length = -(-inputs // fewer)
        starts = np.arange(0, inputs, length)
        entries = np.add.reduceat(np.abs(digits[:, 0].astype(int)), starts, axis=2).max()  # of a list: one byte
        overflows = chunk_sums(digits, length, cut.together) > INT16_MAX
        assert overflows or entries > LONGEST_CHUNK, "one chunk less would do"


@pytest.mark.parametrize(
    ("planes", "most", "fewer"),
    [(1, 255, 0), (2, 86, 1), (3, 36, 2), (4, 86, 1), (5, 36, 2), (6, 36, 2), (7, 36, 2)],
)
def test_the_largest_weights_fill_int16(planes: int, most: int, fewer: int) -> None:
    """All digits +1: 258 steps of the largest value of a run are what fits; one more, and fewer planes
    are summed together, or a list outgrows its byte."""
    digits = np.ones((1, planes, 2, most), np.int8)
    assert cut_inputs(digits, LIMIT, 1000) == DigitCut(planes, most, 1, most)
    longer = cut_inputs(np.ones((1, planes, 2, most + 1), np.int8), LIMIT, 1000)
    assert longer == (DigitCut(planes, most + 1, 1, most + 1, fewer) if fewer else DigitCut(1, 256, 2, 128))


def test_fewer_planes_are_summed_together_where_that_saves_chunks() -> None:
    digits = np.ones((1, 6, 2, 86), np.int8)
    assert cut_inputs(digits, LIMIT, 1000) == DigitCut(6, 86, 1, 86, together=2)
    assert cut_inputs(digits[:, :1], LIMIT, 1000) == DigitCut(1, 86, 1, 86)


def test_activations_that_no_run_can_hold() -> None:
    with pytest.raises(ValueError, match="overflow int16 within one weight"):
        cut_inputs(np.ones((1, 5, 1, 1), np.int8), 2**15, 10)


@given(digit_planes(), st.integers(1, 255))
def test_folding_keeps_the_weights(digits: np.ndarray, longest: int) -> None:
    folded = fold_rare_planes(digits, longest)
    np.testing.assert_array_equal(integer_weights(folded), integer_weights(digits))
    cut = cut_inputs(folded, LIMIT, longest)
    np.testing.assert_array_equal(unpack_digits(*pack_digits(folded, cut), cut), folded)


def test_no_list_outgrows_its_length() -> None:
    """Ones written as 2 - 1, and one 3 as 4 - 1 with its 4 folded: 256 entries of the larger power in 255 inputs."""
    digits = np.tile(np.array([1, -1], np.int8)[None, :, None, None], (1, 1, 1, 255))
    digits[0, 0, 0, 0] = 2
    cut = cut_inputs(digits, LIMIT, 255)
    np.testing.assert_array_equal(unpack_digits(*pack_digits(digits, cut), cut), digits)
    assert cut.chunks == 2


def test_only_rare_digits_are_folded() -> None:
    digits = np.zeros((1, 5, 8, 100), np.int8)
    digits[:, 1:, :, ::2] = 1
    digits[:, 0, :, :3] = -1
    folded = fold_rare_planes(digits, 100)
    assert folded.shape[1] == 4
    np.testing.assert_array_equal(folded[0, 0, :, :3], np.tile([-1, -2, -1], (8, 1)))
    digits[:, 0, :, :4] = -1
    assert fold_rare_planes(digits, 100) is digits
    assert fold_rare_planes(np.zeros((2, 7, 3, 9), np.int8), 9).shape[1] == 2


@pytest.mark.parametrize("planes", range(1, 8))
def test_runs_hold_all_planes_once(planes: int) -> None:
    runs = plane_runs(planes)
    assert [plane for run in runs for plane in run] == list(range(planes))
    assert max(map(len, runs)) <= 3
    assert max(map(len, runs)) - min(map(len, runs)) <= 1


def test_weights_are_the_digits_by_powers_of_two() -> None:
    digits = np.array([[[1, 0, -1]], [[0, 1, 1]], [[-1, -1, 0]]], np.int8)
    np.testing.assert_array_equal(integer_weights(digits), [[3, 1, -2]])
    np.testing.assert_array_equal(integer_weights(np.ones((2, 7, 1, 1), np.int8)), [[[127]], [[127]]])


def test_a_typical_layer_takes_little_more_than_a_byte_a_digit() -> None:
    rng = np.random.default_rng(0)
    digits = np.where(rng.random((1, 5, 64, 576)) < 0.13, rng.choice([-1, 1], (1, 5, 64, 576)), 0).astype(np.int8)
    cut = cut_inputs(digits, LIMIT, 192)
    counts, codes = pack_digits(digits, cut)
    assert counts.nbytes + codes.nbytes < min(1.1 * np.count_nonzero(digits), digits[:, 0].size)


def test_additions() -> None:
    """Digits, two doublings of the upper three planes and one of the lower two, a join, and the total: 5 a chunk."""
    assert digit_adds(1000, DigitCut(5, 300, 2, 150), 64) == 1000 + 64 * 2 * (3 + 1 + 1)


@given(st.integers(1, 20000), st.sampled_from([(8, 8), (8, 16), (16, 8), (32, 4)]))
def test_tiles_cover_the_pixels(pixels: int, vectors: tuple[int, int]) -> None:
    lanes, most = vectors
    tile = tile_for(pixels, lanes, most, 48 << 10)
    assert tile.vectors * lanes == tile.pixels <= lanes * most
    wasted = -pixels % tile.pixels
    assert wasted < max(tile.pixels, 64)
    assert tile.longest_chunk >= 96
