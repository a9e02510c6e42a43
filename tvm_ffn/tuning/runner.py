"""Candidates measured on a board; what computes anything else than it should is an error, however fast it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms

from tvm_ffn.tuning.boards import Boards
from tvm_ffn.tuning.builder import Built

ENTRY = "main"
REPEAT = 7
LEAST_MS = 8  # of one repetition
QUANTILE = 0.25  # of the repetitions: other processes only ever add to a time


class WrongOutputError(Exception):
    """A candidate does not compute what it should."""


Measure = Callable[[Any, Sequence[Built]], list[float]]  # an RPC session and libraries to the seconds of each


@dataclass(frozen=True)
class Measured:
    """Seconds of each library; none, and an error, if one of them failed."""

    seconds: list[float]
    error: str


class Bench:
    """Runs libraries on boards, as many at a time as there are boards."""

    def __init__(self, boards: Boards, measure: Measure) -> None:
        self.boards, self.measure = boards, measure
        self.pool = ThreadPoolExecutor(boards.count, thread_name_prefix="board")

    def submit(self, built: Sequence[Built]) -> Future[Measured]:
        """Measure libraries in turn in one session."""
        return self.pool.submit(self._measure, built)

    def close(self) -> None:
        """Wait for what is running and start nothing else."""
        self.pool.shutdown(cancel_futures=True)

    def _measure(self, built: Sequence[Built]) -> Measured:
        """An exception ends here: its traceback would keep the session, and the board, busy."""
        try:
            return Measured(self.measure(self.boards.session(), built), "")
        except Exception as error:  # a crash, a time limit or a wrong result is the candidate's fault
            measured = Measured([], f"{type(error).__name__}: {error}")
        self.boards.failed()
        return measured


def measure(session: Any, built: Sequence[Built]) -> list[float]:
    """Check and time kernels on a board, interleaved. The session ends when the last name of it here is gone."""
    device = session.cpu()
    timers = [_loaded(session, device, item, f"kernel{number}.so") for number, item in enumerate(built)]
    rounds = [[timer() for timer in timers] for _ in range(REPEAT)]
    return [float(value) for value in np.quantile(np.array(rounds), QUANTILE, axis=0)]


def _loaded(session: Any, device: Any, built: Built, name: str) -> Callable[[], float]:
    """Upload a library, compare its output, and return what times it."""
    session.upload(built.path, name)
    library = session.load_module(name)
    tensors = [tvm.runtime.tensor(value, device) for value in built.case.arguments]
    library[ENTRY](*tensors)
    difference = built.case.difference([tensors[place].numpy() for place in built.case.outputs])
    if difference:
        raise WrongOutputError(difference)
    evaluator = library.time_evaluator(ENTRY, device, number=1, repeat=1, min_repeat_ms=LEAST_MS)
    return lambda: float(evaluator(*tensors).mean)


@derived_object
class _Result(ms.runner.PyRunnerFuture):
    def __init__(self, future: Future[Measured]) -> None:
        super().__init__()
        self.future = future

    def done(self) -> bool:
        return self.future.done()

    def result(self) -> ms.runner.RunnerResult:
        measured = self.future.result()
        return ms.runner.RunnerResult(measured.seconds or None, measured.error or None)


@derived_object
class Runner(ms.runner.PyRunner):
    """MetaSchedule's view of a `Bench`; ``built`` is the builder's."""

    def __init__(self, bench: Bench, built: dict[str, Built]) -> None:
        super().__init__()
        self.bench, self.built = bench, built

    def run(self, inputs: Sequence[ms.runner.RunnerInput]) -> list[ms.runner.RunnerFuture]:
        """Start to measure the libraries."""
        return [_Result(self.bench.submit([self.built.pop(str(item.artifact_path))])) for item in inputs]
