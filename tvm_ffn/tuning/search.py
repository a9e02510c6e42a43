"""The search of one task: the default decisions first, then what the cost model thinks best, and some by chance.

What is tried next depends on the seed and on the records so far only, so that a search that was ended by anything goes
on as if nothing had happened.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from itertools import islice

from tvm import s_tir
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms

from tvm_ffn.tuning.features import WARM, cost_model
from tvm_ffn.tuning.space import Point, Space
from tvm_ffn.tuning.workload import decide, point_of

BY_CHANCE = 0.25  # part of a batch
POOL = 192  # points that the cost model ranks at a time
BEST = 3  # whose neighbours are in the pool
FAILED = 1e9  # seconds from which on a record is of a failed candidate


class Search:
    """Points of a space, measured and to be measured."""

    def __init__(self, space: Space, seed: int) -> None:
        self.space, self.seed = space, seed
        self.seconds: dict[tuple[int, ...], float] = {}

    def tell(self, point: Point, seconds: float) -> None:
        """A measurement; `FAILED` or more is a failure."""
        self.seconds[self._key(point)] = seconds

    @property
    def failures(self) -> int:
        """Candidates that failed."""
        return sum(seconds >= FAILED for seconds in self.seconds.values())

    @property
    def default_seconds(self) -> float | None:
        """Of the default decisions, once measured."""
        return self.seconds.get(self._key(self.space.default))

    @property
    def best_seconds(self) -> float | None:
        """Of the fastest point so far."""
        best = min(self.seconds.values(), default=FAILED)
        return best if best < FAILED else None

    def best(self, count: int) -> list[Point]:
        """The fastest points so far."""
        good = [key for key, seconds in self.seconds.items() if seconds < FAILED]
        return [self._point(key) for key in sorted(good, key=lambda key: (self.seconds[key], key))[:count]]

    def ask(self, count: int, rank: Callable[[Sequence[Point]], Sequence[float]]) -> list[Point]:
        """At most ``count`` points to measure; ``rank`` gives higher numbers to what may be faster."""
        rng = random.Random(f"{self.seed} {len(self.seconds)}")
        chosen = [] if self._key(self.space.default) in self.seconds else [self._key(self.space.default)]
        pool = [key for key in self._pool(rng) if key not in self.seconds and key not in chosen]
        by_chance = len(self.seconds) < WARM or len(pool) <= count
        wanted = 0 if by_chance else round((count - len(chosen)) * (1 - BY_CHANCE))
        if wanted:
            scores = rank([self._point(key) for key in pool])
            ranked = sorted(zip(scores, pool, strict=True), key=lambda item: (-item[0], item[1]))
            chosen += [key for _, key in ranked[:wanted]]
        rest = [key for key in pool if key not in chosen]
        rng.shuffle(rest)
        return [self._point(key) for key in (chosen + rest)[:count]]

    def _pool(self, rng: random.Random) -> list[tuple[int, ...]]:
        """Points in a fixed order: all of a small space, else neighbours of the best and some by chance."""
        values = list(self.space.choices.values())
        if self.space.size <= POOL:
            keys: list[tuple[int, ...]] = [()]
            for choices in values:
                keys = [(*key, value) for key in keys for value in choices]
            return keys
        near = {
            (*key[:place], value, *key[place + 1 :])
            for key in map(self._key, self.best(BEST))
            for place, choices in enumerate(values)
            for value in choices
        }
        drawn = (tuple(rng.choice(choices) for choices in values) for _ in range(4 * POOL))
        return sorted(near) + list(islice(dict.fromkeys(key for key in drawn if key not in near), POOL))

    def _key(self, point: Point) -> tuple[int, ...]:
        return tuple(point[name] for name in self.space.choices)

    def _point(self, key: tuple[int, ...]) -> dict[str, int]:
        return dict(zip(self.space.choices, key, strict=True))


@derived_object
class Strategy(ms.search_strategy.PySearchStrategy):
    """MetaSchedule's view of a `Search`; ends after the trials it is allowed, known records included, or at
    ``deadline`` (of ``time.monotonic``)."""

    def __init__(self, search: Search, deadline: float) -> None:
        super().__init__()
        self.search, self.deadline = search, deadline

    def _initialize_with_tune_context(self, context: ms.TuneContext) -> None:
        self.context = context
        self.arguments = ms.arg_info.ArgInfo.from_entry_func(context.mod)

    def pre_tuning(self, max_trials, num_trials_per_iter, design_spaces, database=None, model=None):  # type: ignore[no-untyped-def]
        self.trials, self.batch = max_trials, num_trials_per_iter

    def post_tuning(self) -> None:
        pass

    def generate_measure_candidates(self) -> list[ms.MeasureCandidate] | None:
        """The next batch, None at the end."""
        left = self.trials - len(self.search.seconds)
        if left <= 0 or time.monotonic() > self.deadline:
            return None
        points = self.search.ask(min(left, self.batch), self._rank)
        return [self._candidate(point) for point in points] or None

    def notify_runner_results(
        self, candidates: Sequence[ms.MeasureCandidate], results: Sequence[ms.runner.RunnerResult]
    ) -> None:
        """Tell the search."""
        for candidate, result in zip(candidates, results, strict=True):
            seconds = FAILED if result.run_secs is None else float(result.run_secs[0])
            self.search.tell(point_of(candidate.sch.mod), seconds)

    def clone(self) -> Strategy:
        """A search is of one task."""
        raise NotImplementedError

    def _candidate(self, point: Point) -> ms.MeasureCandidate:
        return ms.MeasureCandidate(decide(s_tir.Schedule(self.context.mod), self.search.space, point), self.arguments)

    def _rank(self, points: Sequence[Point]) -> Sequence[float]:
        """Scores by a cost model that learns from this task's records, in their points' order."""
        model = cost_model()
        known = sorted(self.search.seconds.items())
        results = [ms.runner.RunnerResult([min(seconds, FAILED)], None) for _, seconds in known]
        model.update(self.context, [self._candidate(self.search._point(key)) for key, _ in known], results)
        return [float(score) for score in model.predict(self.context, [self._candidate(point) for point in points])]
