"""A layer of ours in a session: decisions are searched."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import tvm
from tvm import s_tir
from tvm.s_tir import meta_schedule as ms

from tvm_ffn.kernel_plan import KernelPlan
from tvm_ffn.tuning.search import Search, Strategy
from tvm_ffn.tuning.space import Point, space_of
from tvm_ffn.tuning.subject import Entrant
from tvm_ffn.tuning.table import TunedTask
from tvm_ffn.tuning.task import Task
from tvm_ffn.tuning.workload import decide, workload


@dataclass(frozen=True)
class LayerSubject:
    """A task of ``count`` layers and its search."""

    task: Task
    count: int
    search: Search

    @staticmethod
    def of(task: Task, count: int, plan: KernelPlan, seed: int, known: Iterable[tuple[Point, float]]) -> LayerSubject:
        """With a space around ``plan`` and the measurements ``known``."""
        search = Search(space_of(task, plan), seed)
        for point, seconds in known:
            if search.space.has(point):
                search.tell(point, seconds)
        return LayerSubject(task, count, search)

    @property
    def size(self) -> float:
        return self.search.space.size

    @property
    def tried(self) -> int:
        return len(self.search.seconds)

    @property
    def failures(self) -> int:
        return self.search.failures

    @property
    def best_seconds(self) -> float | None:
        return self.search.best_seconds

    @property
    def default_seconds(self) -> float | None:
        return self.search.default_seconds

    def context(self, target: tvm.target.Target, deadline: float, seed: int) -> ms.TuneContext:
        space = self.search.space
        return ms.TuneContext(
            workload(self.task),
            target=target,
            space_generator=ms.space_generator.ScheduleFn(
                lambda sch: decide(sch, space), sch_rules=[], postprocs=[], mutator_probs={}
            ),
            search_strategy=Strategy(self.search, deadline),
            task_name=self.task.name,
            rand_state=seed + 1,
            num_threads=1,
        )

    def entrants(self, count: int) -> list[Entrant]:
        space, best = self.search.space, self.search.best(count)
        points = [space.default, *(point for point in best if point != space.default)] if best else []
        return [Entrant(decide(s_tir.Schedule(workload(self.task)), space, point).mod, dict(point)) for point in points]

    def entry(self, winner: Entrant, seconds: float, default_seconds: float) -> TunedTask:
        return TunedTask(self.task, winner.decisions, seconds, default_seconds)
