"""The search, on made-up latencies."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tvm_ffn.tuning.search import FAILED, Search
from tvm_ffn.tuning.space import Point, Space

SMALL = Space({"a": [1, 2, 3, 4], "b": [10, 20]}, {"a": 3, "b": 10})
LARGE = Space({name: list(range(8)) for name in "abcd"}, dict.fromkeys("abcd", 5))


def latency(point: Point) -> float:
    return 1.0 + sum((value - 2) ** 2 for value in point.values())


def rank(points: Sequence[Point]) -> list[float]:
    return [-latency(point) for point in points]


def no_rank(points: Sequence[Point]) -> list[float]:
    return [0.0] * len(points)


def drive(search: Search, trials: int, batch: int = 8, ranking=rank) -> list[Point]:  # type: ignore[no-untyped-def]
    asked = []
    while len(search.seconds) < trials:
        points = search.ask(min(batch, trials - len(search.seconds)), ranking)
        if not points:
            break
        for point in points:
            asked.append(point)
            search.tell(point, latency(point))
    return asked


@pytest.mark.parametrize("space", [SMALL, LARGE])
def test_the_default_comes_first_and_nothing_twice(space: Space) -> None:
    asked = drive(Search(space, 0), 64)
    assert asked[0] == space.default
    assert len(asked) == min(64, space.size) == len({tuple(point.items()) for point in asked})
    assert all(space.has(point) for point in asked)


def test_a_small_space_is_exhausted() -> None:
    search = Search(SMALL, 0)
    assert len(drive(search, 100)) == SMALL.size
    assert search.ask(8, rank) == []


def test_a_good_model_finds_the_best_of_thousands() -> None:
    search = Search(LARGE, 0)
    drive(search, 96)
    assert search.best(1) == [dict.fromkeys("abcd", 2)]


def test_ranks_lead_the_search() -> None:
    led, blind = Search(LARGE, 0), Search(LARGE, 0)
    drive(led, 48)
    drive(blind, 48, ranking=no_rank)
    assert sum(led.seconds.values()) < 0.8 * sum(blind.seconds.values())


def test_an_interrupted_search_goes_on_as_if_nothing_had_happened() -> None:
    whole, first = Search(LARGE, 7), Search(LARGE, 7)
    asked = drive(whole, 64)
    begun = drive(first, 24)
    second = Search(LARGE, 7)
    for key, seconds in reversed(first.seconds.items()):  # a database has no order
        second.tell(dict(zip(LARGE.choices, key, strict=True)), seconds)
    assert begun + drive(second, 64) == asked
    assert second.seconds == whole.seconds
    assert drive(Search(LARGE, 8), 64) != asked


def test_failures_are_counted_and_never_best() -> None:
    search = Search(SMALL, 0)
    search.tell({"a": 1, "b": 10}, FAILED)
    search.tell({"a": 2, "b": 10}, 1e10)
    assert search.failures == 2 and search.best(3) == [] and search.default_seconds is None
    search.tell(SMALL.default, 0.5)
    assert search.best(3) == [SMALL.default] and search.default_seconds == 0.5
