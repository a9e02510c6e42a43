"""Sessions that really build and measure, with candidates that lie, crash or hang, and sessions that are killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from tasks import TASKS, planes

from tvm_ffn import targets
from tvm_ffn.kernel_plan import default_plan
from tvm_ffn.tuning import builder as builder_module
from tvm_ffn.tuning.boards import LocalBoard, local_board
from tvm_ffn.tuning.builder import Built, CandidateBuilder
from tvm_ffn.tuning.database import RECORDS, history, open_database
from tvm_ffn.tuning.problem import Problem
from tvm_ffn.tuning.session import Session, TaskOutcome
from tvm_ffn.tuning.space import space_of
from tvm_ffn.tuning.table import TABLE_FILE, TunedTable
from tvm_ffn.tuning.task import Task

TARGET = targets.parse_target("llvm")
PLAN = default_plan(TARGET)


@pytest.fixture(scope="module")
def board() -> Iterator[LocalBoard]:
    with local_board(1) as board:
        yield board


def session(tasks: dict[Task, int], folder: Path, board: LocalBoard, trials: int, **more: object) -> Session:
    return Session(tasks, TARGET, PLAN, folder, board, trials, 600.0, 0, **more)  # type: ignore[arg-type]


def test_every_family_is_tuned_for_real(tmp_path: Path, board: LocalBoard) -> None:
    tasks = {task: 1 for task in TASKS if not task.code or PLAN.isa}
    own = session(tasks, tmp_path, board, 3)
    outcomes = own.run()
    assert own.errors == [] and [outcome.task for outcome in outcomes] == list(tasks)
    table = TunedTable.read(tmp_path / TABLE_FILE)
    for outcome in outcomes:
        space = space_of(outcome.task, PLAN)
        if space.size == 1:
            assert outcome == TaskOutcome(outcome.task, 1, 0, 0, None)
            continue
        assert outcome.trials == min(3, space.size) and outcome.failures == 0
        assert outcome.tuned is not None and outcome.tuned == table.find(outcome.task)
        assert space.has(outcome.tuned.decisions) and 0 < outcome.tuned.seconds <= outcome.tuned.default_seconds
    before = (tmp_path / RECORDS).read_bytes()
    assert [outcome.trials for outcome in session(tasks, tmp_path, board, 3).run()] == [o.trials for o in outcomes]
    assert (tmp_path / RECORDS).read_bytes() == before  # nothing is measured twice


class LyingBuilder(CandidateBuilder):
    """Every kernel but that of the default decisions expects other numbers than it computes."""

    def build(self, mod):  # type: ignore[no-untyped-def]
        built = super().build(mod)
        if builder_module.point_of(mod) == space_of(builder_module.task_of(mod), self.plan).default:
            return built
        other = Problem(built.case.problem.task)
        wrong = built.case.problem.expected.copy()
        wrong.flat[7] += 1
        other.__dict__["expected"] = wrong
        self.built[built.path] = replace(built, case=replace(built.case, problem=other))
        return self.built[built.path]


def test_a_wrong_candidate_never_wins(tmp_path: Path, board: LocalBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvm_ffn.tuning.session.CandidateBuilder", LyingBuilder)
    own = session({planes(): 1}, tmp_path, board, 5)
    [outcome] = own.run()
    assert outcome.trials == 5 and outcome.failures == 4
    assert outcome.tuned is not None and outcome.tuned.gain == 1.0
    assert outcome.tuned.decisions == space_of(planes(), PLAN).default
    [error] = own.errors
    assert "1 of 1568 outputs differ from the oracle's" in error


class CrashingBuilder(CandidateBuilder):
    """The libraries of all but the default decisions end the process that calls them."""

    def build(self, mod):  # type: ignore[no-untyped-def]
        built = super().build(mod)
        if builder_module.point_of(mod) != space_of(builder_module.task_of(mod), self.plan).default:
            source = Path(built.path).with_suffix(".c")
            source.write_text(
                "int __tvm_ffi_main(void* s, void* a, int n, void* r) { *(volatile int*)0 = 1; return 0; }"
            )
            subprocess.run(["cc", "-shared", "-fPIC", "-o", built.path, str(source)], check=True)
        return built


def test_a_crash_is_a_failure_of_its_candidate(
    tmp_path: Path, board: LocalBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tvm_ffn.tuning.session.CandidateBuilder", CrashingBuilder)
    own = session({planes(): 1}, tmp_path, board, 4)
    [outcome] = own.run()
    assert (outcome.trials, outcome.failures) == (4, 3)
    assert outcome.tuned is not None and outcome.tuned.decisions == space_of(planes(), PLAN).default
    assert len(own.errors) == 1


def made_up(remote: object, built: list[Built]) -> list[float]:
    """Latencies that depend on the decisions only."""
    time.sleep(0.02)
    operators = [item.case.kernel.operator for item in built]  # type: ignore[attr-defined]
    tiles = [(operator.tile.pixels, operator.cut.length) for operator in operators]
    return [1e-3 + 1e-6 * abs(pixels - 48) + 1e-6 * abs(length - 40) for pixels, length in tiles]


def test_a_killed_session_goes_on_where_it_was(tmp_path: Path, board: LocalBoard) -> None:
    task = replace(planes(), geometry=replace(planes().geometry, height=40, width=40))  # type: ignore[type-var]
    [whole] = session({task: 1}, tmp_path / "whole", board, 24, measure=made_up).run()

    folder = tmp_path / "killed"
    script = "import sys; from test_session import *; run_until_killed(*sys.argv[1:])"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    arguments = [sys.executable, "-c", script, str(folder), json.dumps(task.to_dict())]
    process = subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL)
    records = folder / RECORDS
    while process.poll() is None and (not records.exists() or records.read_bytes().count(b"\n") < 8):
        time.sleep(0.05)
    servers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it was killed"
    for server in servers:
        with contextlib.suppress(psutil.NoSuchProcess):
            server.kill()
    known = records.read_bytes()
    with records.open("ab") as stream:  # as if the last record had been on its way
        stream.write(known.splitlines()[-1][:50])
    with open_database(folder, TARGET) as database:
        kept = history(database)[task]
    assert len(kept) == known.count(b"\n") < 24

    [resumed] = session({task: 1}, folder, board, 24, measure=made_up).run()
    assert resumed == whole
    assert records.read_bytes().startswith(known)
    for place in ("whole", "killed"):
        with open_database(tmp_path / place, TARGET) as database:
            found = {json.dumps(point): seconds for point, seconds in history(database)[task]}
        assert len(found) == 24
    assert np.isclose(resumed.tuned.seconds, min(found.values()))  # type: ignore[union-attr]


def run_until_killed(folder: str, task: str) -> None:
    """In a process of its own: a session that is slow enough to be killed in the middle."""

    def slow(remote: object, built: list[Built]) -> list[float]:
        time.sleep(0.1)
        return made_up(remote, built)

    own = Task.from_dict(json.loads(task))
    with local_board(1) as board:
        session({own: 1}, Path(folder), board, 24, measure=slow).run()
