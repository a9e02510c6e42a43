"""A tuning session: MetaSchedule's task scheduler over all tasks, then a play-off for each, which fills the table."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tvm
from tvm.s_tir import meta_schedule as ms

from tvm_ffn.errors import FFNError
from tvm_ffn.kernel_plan import KernelPlan
from tvm_ffn.schedules.rules import apply_schedules
from tvm_ffn.tuning.boards import Boards
from tvm_ffn.tuning.builder import Builder, CandidateBuilder
from tvm_ffn.tuning.database import history, open_database, operator_history
from tvm_ffn.tuning.display import Display
from tvm_ffn.tuning.layer_subject import LayerSubject
from tvm_ffn.tuning.operator import Operator
from tvm_ffn.tuning.operator_case import OperatorCase
from tvm_ffn.tuning.operator_subject import OperatorSubject
from tvm_ffn.tuning.quick_import import import_intrinsics
from tvm_ffn.tuning.runner import Bench, Measure, Runner, measure
from tvm_ffn.tuning.subject import Subject, Tuned
from tvm_ffn.tuning.table import TABLE_FILE, TunedTable
from tvm_ffn.tuning.task import Task

log = logging.getLogger("tvm_ffn")

BATCH = 8  # candidates built before they are measured and recorded, and again for every further board
FINALISTS = 3  # of the search, against the default
LEAST_GAIN = 1.01  # below this the default decisions stay
LEAST_SHARE = 0.01  # of all the time: an operator below it is left alone
OPERATORS_TIME = 0.25  # of the time budget, where there are operators


@dataclass(frozen=True)
class TaskOutcome:
    """What became of a task or operator: ``tuned`` is None where nothing was measured, ``finalists`` are all that were
    played off against the default, the fastest of the search first."""

    task: Task | Operator
    layers: int
    trials: int
    failures: int
    tuned: Tuned | None
    finalists: Sequence[Tuned] = ()


@dataclass
class Session:
    """All that a session needs; ``weights`` counts the layers of each task, ``operators`` the calls of each operator,
    ``trials`` are for each, those of earlier sessions in the same folder included, ``seconds`` bounds the search of
    all."""

    weights: Mapping[Task, int]
    target: tvm.target.Target
    plan: KernelPlan
    folder: Path
    boards: Boards
    trials: int
    seconds: float
    seed: int
    measure: Measure = measure
    operators: Mapping[Operator, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)  # of failed candidates of this session, the first of each kind

    def run(self) -> list[TaskOutcome]:
        """Search, play off, write the table; one outcome a task."""
        start = time.monotonic()
        cases = {operator.key: OperatorCase(operator) for operator in self.operators}
        candidates = CandidateBuilder(self.target, self.plan, cases)
        with (
            open_database(self.folder, self.target) as database,
            contextlib.closing(Bench(self.boards, self.measure)) as bench,
        ):
            known = history(database)
            layers = [
                LayerSubject.of(task, count, self.plan, self.seed, known.get(task, ()))
                for task, count in self.weights.items()
            ]
            work = _Work(self, database, candidates, bench, TunedTable.read(self.folder / TABLE_FILE))
            share = 1 - OPERATORS_TIME * bool(self.operators)
            outcomes = work.tune(layers, start + share * self.seconds, ms.task_scheduler.RoundRobin())
            outcomes += work.tune(
                self._operators(layers, work), start + self.seconds, ms.task_scheduler.GradientBased(seed=self.seed + 1)
            )
        return outcomes

    def _operators(self, layers: Sequence[LayerSubject], work: _Work) -> list[OperatorSubject]:
        """The operators that take time, with what is known of them."""
        known = operator_history(work.database)
        subjects = []
        for operator, count in self.operators.items():
            with self.target:
                default = apply_schedules(self.target)(operator.module)
            [seconds] = work.measured([default], operator.name)
            subjects.append(OperatorSubject(operator, count, known.get(operator.key, ()), default, seconds))
        everything: list[Subject] = [*layers, *subjects]
        total = sum(subject.count * (subject.default_seconds or 0.0) for subject in everything)
        return [subject for subject in subjects if subject.count * subject.default_seconds >= LEAST_SHARE * total]


@dataclass
class _Work:
    """What searching and playing off need."""

    session: Session
    database: ms.database.Database
    candidates: CandidateBuilder
    bench: Bench
    table: TunedTable

    def tune(
        self, subjects: Sequence[Subject], deadline: float, scheduler: ms.task_scheduler.TaskScheduler
    ) -> list[TaskOutcome]:
        """Search, then play off, those that have a choice."""
        chosen = [subject for subject in subjects if subject.size > 1]
        unfinished = [subject for subject in chosen if subject.tried < min(self.session.trials, subject.size)]
        if unfinished:
            import_intrinsics()
            with _quiet():
                self._search(unfinished, deadline, scheduler)
        played = {subject.task: self._play_off(subject) for subject in chosen}
        return [TaskOutcome(s.task, s.count, s.tried, s.failures, *played.get(s.task, (None, ()))) for s in subjects]

    def measured(self, mods: Sequence[tvm.IRModule], name: str) -> list[float]:
        """Seconds of scheduled workloads, in turn in one session; a failure is an error of ours."""
        built = [self.candidates.build(mod) for mod in mods]
        try:
            measured = self.bench.submit(built).result()
        finally:
            for item in built:
                ms.utils.remove_build_dir(self.candidates.built.pop(item.path).path)
        if measured.error:
            raise FFNError(f"measuring {name} failed, the records are kept: {measured.error.splitlines()[0]}")
        return measured.seconds

    def _search(self, subjects: Sequence[Subject], deadline: float, scheduler: ms.task_scheduler.TaskScheduler) -> None:
        session = self.session
        with Display(subjects, session.trials, session.errors) as display:
            ms.tune_tasks(
                tasks=[subject.context(session.target, deadline, session.seed) for subject in subjects],
                task_weights=[float(subject.count) for subject in subjects],
                work_dir=str(session.folder),
                max_trials_global=session.trials * len(subjects),
                max_trials_per_task=session.trials,
                num_trials_per_iter=min(BATCH * session.boards.count, session.trials),
                builder=Builder(self.candidates),
                runner=Runner(self.bench, self.candidates.built),
                database=self.database,
                cost_model="none",  # each search has its own
                measure_callbacks=[
                    ms.measure_callback.AddToDatabase(),
                    display.callback(),
                    ms.measure_callback.RemoveBuildArtifact(),
                ],
                task_scheduler=scheduler,
            )

    def _play_off(self, subject: Subject) -> tuple[Tuned | None, Sequence[Tuned]]:
        """The fastest candidates against the default, measured in turn in one session: what won the search by a lucky
        measurement does not win here. Returns the winner, None where nothing was measured, and all candidates."""
        entrants = subject.entrants(FINALISTS)
        if not entrants:
            return None, ()
        seconds = self.measured([entrant.mod for entrant in entrants], subject.task.name)
        best = min(range(len(entrants)), key=seconds.__getitem__)
        if seconds[0] < seconds[best] * LEAST_GAIN:
            best = 0
        entries = [subject.entry(entrant, taken, seconds[0]) for entrant, taken in zip(entrants, seconds, strict=True)]
        self.table.add(entries[best])
        self.table.write(self.session.folder / TABLE_FILE)
        return entries[best], entries[1:]


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
