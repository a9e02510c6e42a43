"""``tvm_ffn.tune``: find the fastest decisions for a model's layers by measuring, here or on boards."""

from __future__ import annotations

import contextlib
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvm_ffn import targets
from tvm_ffn.config import FFNConfig
from tvm_ffn.errors import ArtifactError, ConfigError, TargetError
from tvm_ffn.json_file import read_object
from tvm_ffn.kernel_plan import KernelPlans, default_plan
from tvm_ffn.manifest import REPORT_NAME, read_manifest, verify_files
from tvm_ffn.network_play_off import play_off
from tvm_ffn.pipeline import run
from tvm_ffn.synthetic import random_compilation
from tvm_ffn.text_table import aligned
from tvm_ffn.tuning.boards import Boards, TrackedBoards, local_board
from tvm_ffn.tuning.operator import Operator, operators_of
from tvm_ffn.tuning.session import Session, TaskOutcome
from tvm_ffn.tuning.task import Task

if TYPE_CHECKING:
    import onnx
    import tvm.target


@dataclass(frozen=True)
class TuningResult:
    """What a session found, a row a task; ``errors`` are the first failures of each kind."""

    outcomes: Sequence[TaskOutcome]
    errors: Sequence[str]

    @property
    def gain(self) -> float:
        """Geometric mean of the tasks' gains over their default decisions, 1.0 where nothing was measured."""
        gains = [outcome.tuned.gain for outcome in self.outcomes if outcome.tuned is not None]
        return math.exp(sum(map(math.log, gains)) / len(gains)) if gains else 1.0

    def table(self) -> str:
        """Text: a row a task, failures, the mean gain."""
        head = ("task", "layers", "trials", "failed", "default ms", "tuned ms", "gain", "decisions")
        lines = aligned([head, *map(_cells, self.outcomes)], left=(0, len(head) - 1))
        lines += [f"failed: {error.splitlines()[0]}" for error in self.errors]
        lines.append(f"geometric mean of the gains: {self.gain:.2f}x")
        return "\n".join(lines)


def tune(
    model: str | os.PathLike[str] | onnx.ModelProto,
    target: str | Mapping[str, Any] | tvm.target.Target | None = None,
    *,
    work_dir: str | os.PathLike[str],
    config: FFNConfig | None = None,
    trials: int = 64,
    time_budget: float | None = None,
    rpc_tracker: str | None = None,
    rpc_key: str | None = None,
    threads: int = 1,
    seed: int = 0,
) -> TuningResult:
    """Measure candidates for each kind of layer of ``model`` and keep the best decisions in ``work_dir``.

    ``model``: an ONNX file or ModelProto, whose weights are replaced by random ones of the usual density (latency does
    not depend on their values), or the folder of a compiled module, whose own densities and target are used; that
    knows its layers only, no other operators.
    ``target``: as for `compile`; it must run here, or on the boards that register under ``rpc_key`` at the RPC
    ``rpc_tracker`` ("host:port"). ``trials``: candidates of each task, those recorded in ``work_dir`` before included;
    ``time_budget``: seconds of search, after which what is known is played off: each task's best against its default,
    and on this machine the layers of an ONNX model once more inside the network. ``threads``: of a kernel, on this
    machine. What was recorded survives any interruption; the same call goes on from there.
    Pass ``work_dir`` to ``compile(..., tuning_dir=...)``. Raises ConfigError, TargetError, ModelError or OutputError.
    """
    if trials < 1:
        raise ConfigError(f"trials must be at least 1, not {trials}")
    if time_budget is not None and not time_budget > 0:
        raise ConfigError(f"time_budget must be a positive number of seconds, not {time_budget}")
    if (rpc_tracker is None) != (rpc_key is None):
        raise ConfigError("an RPC tracker and the key of its boards are given together")
    config = config or FFNConfig()
    parsed, tasks, operators = _tasks(model, target, config)
    if rpc_tracker is None and not targets.runs_here(parsed):
        raise TargetError(f"{targets.describe(parsed)} does not run here: measure it on boards, by an RPC tracker")
    plan = default_plan(parsed)
    if rpc_tracker is None:
        plan = replace(plan, threads=threads)
    with _boards(rpc_tracker, rpc_key, threads) as boards:
        session = Session(
            tasks,
            parsed,
            plan,
            Path(work_dir),
            boards,
            trials,
            math.inf if time_budget is None else time_budget,
            seed,
            operators=operators,
        )
        outcomes: Sequence[TaskOutcome] = session.run()
    if rpc_tracker is None and not _is_folder(model):
        outcomes = play_off(model, parsed, config, Path(work_dir), outcomes, threads)
    return TuningResult(outcomes, session.errors)


def _is_folder(model: Any) -> bool:
    """Whether that is a compiled module, whose network is not known here."""
    return isinstance(model, (str, os.PathLike)) and Path(model).is_dir()


def _tasks(
    model: str | os.PathLike[str] | onnx.ModelProto,
    target: str | Mapping[str, Any] | tvm.target.Target | None,
    config: FFNConfig,
) -> tuple[tvm.target.Target, Mapping[Task, int], Mapping[Operator, int]]:
    """The target, how many layers of each task there are, and how many calls of each other operator."""
    if _is_folder(model):
        return (*_tasks_of_artefact(Path(model), target), {})
    parsed = targets.parse_target("llvm" if target is None else target)
    c = run(random_compilation(model, parsed, config), start_at="choose", stop_after="choose")
    c.kernels = KernelPlans(c.kernels.default)  # other operators are the same where no layer is code
    return parsed, Counter(c.tasks.values()), operators_of(run(c, start_at="rewrite", stop_after="lower").mod)


def _tasks_of_artefact(
    folder: Path, target: str | Mapping[str, Any] | tvm.target.Target | None
) -> tuple[tvm.target.Target, Mapping[Task, int]]:
    manifest = read_manifest(folder)
    verify_files(folder, manifest)
    parsed = targets.parse_target(manifest.target if target is None else target)
    rows = read_object(folder / REPORT_NAME, "report of a compiled model")["layers"]
    try:
        tasks = Counter(Task.from_dict(row["task"]) for row in rows if row.get("task") is not None)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{folder / REPORT_NAME} holds no tasks that this version knows: {error!r}") from error
    if not tasks:
        raise ArtifactError(f"{folder} was compiled by a version that noted no tasks: tune the ONNX model instead")
    return parsed, tasks


@contextlib.contextmanager
def _boards(tracker: str | None, key: str | None, threads: int) -> Iterator[Boards]:
    if tracker is not None and key is not None:
        yield TrackedBoards(tracker, key)
        return
    with local_board(threads) as board:
        yield board


def _cells(outcome: TaskOutcome) -> tuple[str, ...]:
    counts = (outcome.task.name, str(outcome.layers), str(outcome.trials), str(outcome.failures))
    if outcome.tuned is None:
        return (*counts, "-", "-", "-", "one choice only" if not outcome.trials else "nothing ran")
    tuned = outcome.tuned
    times = (f"{tuned.default_seconds * 1e3:.3f}", f"{tuned.seconds * 1e3:.3f}", f"{tuned.gain:.2f}x")
    return (*counts, *times, tuned.choice)
