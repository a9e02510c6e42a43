"""Parts of a layer's outputs: as many as threads need, no more."""

from __future__ import annotations

import itertools

import pytest

from tvm_ffn.kernels.split import BUSY, output_parts


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


def test_keeps_threads_busy_where_divisors_allow() -> None:
    for tiles, threads in itertools.product(range(1, 40), range(1, 17)):
        parts = output_parts(tiles, threads, 5040)
        rounds = -(-tiles * parts // threads)
        assert tiles * parts / (rounds * threads) >= BUSY
        assert 5040 % parts == 0
