"""Parts of a layer's outputs: as many as threads need, no more."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from tvm_ffn.kernels.code_conv2d import code_conv2d
from tvm_ffn.kernels.epilogue import Epilogue
from tvm_ffn.kernels.geometry import ConvGeometry
from tvm_ffn.kernels.split import BUSY, output_parts
from tvm_ffn.kernels.straight_line import AVX2
from tvm_ffn.kernels.ternary_code import CodeStyle


@pytest.mark.parametrize(
    ("tiles", "threads", "rows", "parts"),
    [
        (1, 1, (64,), 1),
        (1, 2, (64,), 2),
        (2, 2, (64,), 1),
        (3, 2, (64, 128), 2),
        (98, 2, (64,), 1),
        (1, 4, (64, 96), 4),
        (5, 4, (12,), 3),
        (1, 4, (64, 7), 1),  # nothing divides both
        (1, 3, (64,), 8),  # three rounds for eight parts: no divisor comes closer
    ],
)
def test_known(tiles: int, threads: int, rows: tuple[int, ...], parts: int) -> None:
    assert output_parts(tiles, threads, *rows) == parts


@pytest.mark.parametrize(
    ("threads", "rows", "least", "parts"),
    [(1, (64,), 3, 4), (2, (64,), 3, 4), (4, (64,), 2, 4), (1, (64, 96), 5, 8), (1, (7,), 3, 1), (1, (13,), 9, 13)],
)
def test_least(threads: int, rows: tuple[int, ...], least: int, parts: int) -> None:
    assert output_parts(1, threads, *rows, least=least) == parts


@pytest.mark.parametrize(
    ("size", "batch", "sums_kb", "cut"),
    [(7, 1, 192, True), (7, 1, 24, True), (7, 1, 0, False), (7, 8, 192, False), (28, 1, 192, False)],
)
def test_the_sums_of_a_single_tile_stay_in_the_caches(size: int, batch: int, sums_kb: int, cut: bool) -> None:
    rng = np.random.default_rng(0)
    y, x = rng.integers(-1, 2, (1, 512, 1152), np.int8), rng.integers(-1, 2, (1, 512, 512), np.int8)
    geometry = ConvGeometry(batch, 128, size, size, (3, 3), (1, 1), (1, 1, 1, 1))
    style = CodeStyle(sums_kb=sums_kb)
    operator = code_conv2d(geometry, y, x, (127, 511), Epilogue(), AVX2, style, threads=1)
    whole = replace(operator, split=1)
    assert whole.sum_bytes == 2 * operator.tile * 512 * max(whole.code_y.segments, whole.code_x.segments)
    assert whole.sum_bytes > sums_kb << 10
    assert (operator.split > 1) == cut
    assert not cut or operator.sum_bytes <= sums_kb << 10


def test_keeps_threads_busy_where_divisors_allow() -> None:
    for tiles, threads in itertools.product(range(1, 40), range(1, 17)):
        parts = output_parts(tiles, threads, 5040)
        rounds = -(-tiles * parts // threads)
        assert tiles * parts / (rounds * threads) >= BUSY
        assert 5040 % parts == 0
