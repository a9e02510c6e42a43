"""A tuning session: MetaSchedule's task scheduler over all tasks, then a play-off for each, which fills the table."""

from __future__ import annotations

import contextlib
import inspect
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import tvm
from tvm import s_tir
from tvm.s_tir import meta_schedule as ms

from tvm_ffn.errors import FFNError
from tvm_ffn.kernel_plan import KernelPlan
from tvm_ffn.tuning.boards import Boards
from tvm_ffn.tuning.builder import Builder, CandidateBuilder
from tvm_ffn.tuning.database import history, open_database
from tvm_ffn.tuning.display import Display
from tvm_ffn.tuning.runner import Bench, Measure, Runner, measure
from tvm_ffn.tuning.search import Search, Strategy
from tvm_ffn.tuning.space import Point, space_of
from tvm_ffn.tuning.table import TABLE_FILE, TunedTable, TunedTask
from tvm_ffn.tuning.task import Task
from tvm_ffn.tuning.workload import decide, workload

log = logging.getLogger("tvm_ffn")

BATCH = 8  # candidates built before they are measured and recorded, and again for every further board
FINALISTS = 3  # of the search, against the default
LEAST_GAIN = 1.01  # below this the default decisions stay


@dataclass(frozen=True)
class TaskOutcome:
    """What became of a task: ``tuned`` is None where nothing was measured."""

    task: Task
    layers: int
    trials: int
    failures: int
    tuned: TunedTask | None


@dataclass
class Session:
    """All that a session needs; ``weights`` counts the layers of each task, ``trials`` are for each, those of earlier
    sessions in the same folder included, ``seconds`` bounds the search of all."""

    weights: Mapping[Task, int]
    target: tvm.target.Target
    plan: KernelPlan
    folder: Path
    boards: Boards
    trials: int
    seconds: float
    seed: int
    measure: Measure = measure
    errors: list[str] = field(default_factory=list)  # of failed candidates of this session, the first of each kind

    def run(self) -> list[TaskOutcome]:
        """Search, play off, write the table; one outcome a task."""
        searches = {task: Search(space_of(task, self.plan), self.seed) for task in self.weights}
        open_tasks = {task: search for task, search in searches.items() if search.space.size > 1}
        candidates = CandidateBuilder(self.target, self.plan)
        with open_database(self.folder, self.target) as database:
            known = history(database)
            for task, search in open_tasks.items():
                for point, seconds in known.get(task, ()):
                    if search.space.has(point):
                        search.tell(point, seconds)
            table = TunedTable.read(self.folder / TABLE_FILE)
            with contextlib.closing(Bench(self.boards, self.measure)) as bench:
                if open_tasks:
                    self._search(open_tasks, database, candidates, bench)
                for task, search in open_tasks.items():
                    entry = play_off(task, search, candidates, bench)
                    if entry is not None:
                        table.add(entry)
                        table.write(self.folder / TABLE_FILE)
        return [
            TaskOutcome(task, count, len(searches[task].seconds), searches[task].failures, table.entries.get(task))
            for task, count in self.weights.items()
        ]

    def _search(
        self,
        searches: Mapping[Task, Search],
        database: ms.database.Database,
        candidates: CandidateBuilder,
        bench: Bench,
    ) -> None:
        deadline = time.monotonic() + self.seconds
        quick_import()
        with _quiet():
            contexts = [
                ms.TuneContext(
                    workload(task),
                    target=self.target,
                    space_generator=ms.space_generator.ScheduleFn(
                        lambda sch, space=search.space: decide(sch, space), sch_rules=[], postprocs=[], mutator_probs={}
                    ),
                    search_strategy=Strategy(search, deadline),
                    task_name=task.name,
                    rand_state=self.seed + 1,
                    num_threads=1,
                )
                for task, search in searches.items()
            ]
            with Display(searches, self.trials, self.errors) as display:
                ms.tune_tasks(
                    tasks=contexts,
                    task_weights=[float(self.weights[task]) for task in searches],
                    work_dir=str(self.folder),
                    max_trials_global=self.trials * len(searches),
                    max_trials_per_task=self.trials,
                    num_trials_per_iter=BATCH * self.boards.count,
                    builder=Builder(candidates),
                    runner=Runner(bench, candidates.built),
                    database=database,
                    cost_model="none",  # each `Strategy` has its own
                    measure_callbacks=[
                        ms.measure_callback.AddToDatabase(),
                        display.callback(),
                        ms.measure_callback.RemoveBuildArtifact(),
                    ],
                    task_scheduler="round-robin",
                )


def play_off(task: Task, search: Search, candidates: CandidateBuilder, bench: Bench) -> TunedTask | None:
    """The fastest candidates against the default, measured in turn in one session: what won the search by a lucky
    measurement does not win here. None where nothing was measured."""
    points = search.best(FINALISTS)
    if not points:
        return None
    default = search.space.default
    entrants: list[Point] = [default, *(point for point in points if point != default)]
    built = [candidates.build(decide(s_tir.Schedule(workload(task)), search.space, point).mod) for point in entrants]
    try:
        measured = bench.submit(built).result()
    finally:
        for item in built:
            ms.utils.remove_build_dir(candidates.built.pop(item.path).path)
    if measured.error:
        raise FFNError(f"the play-off of {task.name} failed, the records are kept: {measured.error.splitlines()[0]}")
    seconds = measured.seconds
    best = min(range(len(entrants)), key=seconds.__getitem__)
    if seconds[0] < seconds[best] * LEAST_GAIN:
        best = 0
    return TunedTask(task, dict(entrants[best]), seconds[best], seconds[0])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """MetaSchedule's tables of progress off: there is one of ours."""
    logger = logging.getLogger("tvm.s_tir.meta_schedule")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def quick_import() -> None:
    """TVM's tensor intrinsics, which a TuneContext imports, call ``inspect.stack`` hundreds of times; it reads source
    files for lines that nobody looks at: 15 seconds, without them 2."""

    def stack(context: int = 1) -> list[inspect.FrameInfo]:
        frames, frame = [], sys._getframe(1)
        while frame is not None:
            code = frame.f_code
            frames.append(inspect.FrameInfo(frame, code.co_filename, frame.f_lineno, code.co_name, None, None))
            frame = frame.f_back  # type: ignore[assignment]
        return frames

    with mock.patch.object(inspect, "stack", stack):
        import tvm.s_tir.tensor_intrin  # noqa: F401
