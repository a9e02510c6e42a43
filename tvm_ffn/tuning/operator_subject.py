"""An operator in a session: MetaSchedule's own design space, rules and evolutionary search."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import tvm
import tvm_ffi
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms

from tvm_ffn.targets import target_dict
from tvm_ffn.tuning.operator import Operator
from tvm_ffn.tuning.search import FAILED
from tvm_ffn.tuning.subject import Entrant
from tvm_ffn.tuning.table import TunedOperator

WARM = 16  # records below which there is nothing to learn from
POPULATION = (
    64  # of the evolutionary search: with TVM's own 512, thinking of a candidate takes longer than measuring it
)


class OperatorSubject:
    """An operator of ``count`` calls, its ``default`` schedule and its ``records``: seconds and schedules."""

    def __init__(
        self,
        operator: Operator,
        count: int,
        known: Iterable[ms.database.TuningRecord],
        default: tvm.IRModule,
        default_seconds: float,
    ) -> None:
        self.task, self.count, self.size = operator, count, float("inf")
        self.default, self.default_seconds = default, default_seconds
        self.records: list[tuple[float, ms.MeasureCandidate]] = []
        for record in known:
            self.tell(record.as_measure_candidate(), record.run_secs)

    def tell(self, candidate: ms.MeasureCandidate, seconds: Sequence[float] | None) -> None:
        """A measurement; none, or `FAILED`, is a failure."""
        self.records.append((float(seconds[0]) if seconds else FAILED, candidate))

    @property
    def tried(self) -> int:
        return len(self.records)

    @property
    def failures(self) -> int:
        return sum(seconds >= FAILED for seconds, _ in self.records)

    @property
    def best_seconds(self) -> float | None:
        best = min((seconds for seconds, _ in self.records), default=FAILED)
        return best if best < FAILED else None

    def context(self, target: tvm.target.Target, deadline: float, seed: int) -> ms.TuneContext:
        # MetaSchedule's rules ask for the number of cores; what is parallel stays so on any other number.
        return ms.TuneContext(
            self.task.module,
            target=tvm.target.Target({"num-cores": 1, **target_dict(target)}),
            space_generator="post-order-apply",
            search_strategy=_Strategy(self, deadline),
            task_name=self.task.name,
            rand_state=seed + 1,
            num_threads=1,
        )

    def entrants(self, count: int) -> list[Entrant]:
        good = sorted((r for r in self.records if r[0] < FAILED), key=lambda record: record[0])[:count]
        best = [Entrant(candidate.sch.mod, candidate.sch.trace) for _, candidate in good]
        return [Entrant(self.default, None), *best] if best else []

    def entry(self, winner: Entrant, seconds: float, default_seconds: float) -> TunedOperator:
        trace = None if winner.decisions is None else _plain(winner.decisions.as_json())
        return TunedOperator(self.task.key, self.task.name, trace, seconds, default_seconds)


@derived_object
class _Strategy(ms.search_strategy.PySearchStrategy):
    """MetaSchedule's evolutionary search with a cost model of the operator's own, which knows the records of earlier
    sessions; ends after the trials it is allowed, these included, or at ``deadline``."""

    def __init__(self, subject: OperatorSubject, deadline: float) -> None:
        super().__init__()
        self.subject, self.deadline = subject, deadline
        self.search = ms.search_strategy.EvolutionarySearch(population_size=POPULATION)
        self.model = ms.cost_model.XGBModel(
            config=ms.cost_model.xgb_model.XGBConfig(nthread=1, seed=0),
            num_warmup_samples=WARM,
            adaptive_training=False,
        )

    def _initialize_with_tune_context(self, context: ms.TuneContext) -> None:
        self.context = context
        self.search._initialize_with_tune_context(context)

    def pre_tuning(self, max_trials, num_trials_per_iter, design_spaces, database=None, model=None):  # type: ignore[no-untyped-def]
        self.trials = int(max_trials)
        if self.subject.records:
            seconds, candidates = zip(*self.subject.records, strict=True)
            self.model.update(self.context, candidates, [ms.runner.RunnerResult([s], None) for s in seconds])
        left = max(1, self.trials - self.subject.tried)
        self.search.pre_tuning(left, int(num_trials_per_iter), design_spaces, database, self.model)

    def post_tuning(self) -> None:
        self.search.post_tuning()

    def generate_measure_candidates(self) -> list[ms.MeasureCandidate] | None:
        """The next batch; None at the end, or where the rules have nothing new."""
        if self.subject.tried >= self.trials or time.monotonic() > self.deadline:
            return None
        return list(self.search.generate_measure_candidates() or ()) or None

    def notify_runner_results(
        self, candidates: Sequence[ms.MeasureCandidate], results: Sequence[ms.runner.RunnerResult]
    ) -> None:
        """Tell the search, the cost model and the session."""
        self.search.notify_runner_results(candidates, results)
        self.model.update(self.context, candidates, results)
        for candidate, result in zip(candidates, results, strict=True):
            self.subject.tell(candidate, result.run_secs)

    def clone(self) -> Any:
        """A search is of one operator."""
        raise NotImplementedError


def _plain(value: Any) -> Any:
    """Of JSON's types."""
    if isinstance(value, (list, tuple, tvm_ffi.Array)):
        return [_plain(item) for item in value]
    return value.value if isinstance(value, (tvm.tirx.IntImm, tvm.tirx.FloatImm)) else value
