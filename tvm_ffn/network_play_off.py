"""The finalists of every task against its default decisions once more, inside the network they are for.

A kernel that is timed alone finds its weights in the caches and, as lists of digits, the ends of all lists predicted;
between the other kernels of a network it does not (on a Sapphire Rapids, tiles of two vectors that were 1.16x as fast
alone took 1.3x as long in squeezenet). So the network is built with the default decisions, with every task's first
finalist, its second, ..., and each layer keeps what was fastest in these.
"""

from __future__ import annotations

import contextlib
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tvm

from tvm_ffn import targets
from tvm_ffn.bench import kernel_times
from tvm_ffn.compiler import finish
from tvm_ffn.config import FFNConfig
from tvm_ffn.kernel_plan import default_plan
from tvm_ffn.pipeline import for_target, run
from tvm_ffn.progress import progress
from tvm_ffn.synthetic import random_compilation
from tvm_ffn.tuning.session import LEAST_GAIN, TaskOutcome
from tvm_ffn.tuning.space import space_of
from tvm_ffn.tuning.subject import Tuned
from tvm_ffn.tuning.table import TABLE_FILE, TunedTable, TunedTask
from tvm_ffn.tuning.task import Task

ROUNDS = 9  # all modules in turn
RUNS = 5  # of a module a round


def play_off(
    model: Any,
    target: tvm.target.Target,
    config: FFNConfig,
    folder: Path,
    outcomes: Sequence[TaskOutcome],
    threads: int,
) -> list[TaskOutcome]:
    """The outcomes with the decisions that were fastest in the network and their seconds, the default ones where no
    others gain; the ``folder``'s table is written anew."""
    table = TunedTable.read(folder / TABLE_FILE)
    finalists = {o.task: [f for f in o.finalists if isinstance(f, TunedTask)] for o in outcomes}
    most = max(map(len, finalists.values()), default=0)
    tables = [TunedTable(f[min(turn, len(f) - 1)] for f in finalists.values() if f) for turn in range(most)]
    seconds = layer_seconds(model, target, config, [TunedTable(), *tables], threads)
    found = [replace(o, tuned=_settled(o, seconds, target)) for o in outcomes]
    for outcome in found:
        if outcome.tuned is not None:
            table.add(outcome.tuned)
    table.write(folder / TABLE_FILE)
    return found


def _settled(outcome: TaskOutcome, seconds: Mapping[Task, Sequence[float]], target: tvm.target.Target) -> Tuned | None:
    """The fastest of the default decisions and the finalists, whose ``seconds`` in the network follow each other."""
    if not isinstance(outcome.task, Task) or outcome.task not in seconds or not outcome.finalists:
        return outcome.tuned
    default, best = seconds[outcome.task][0], int(np.argmin(seconds[outcome.task]))
    fastest = seconds[outcome.task][best]
    if fastest * LEAST_GAIN >= default:
        decisions = space_of(outcome.task, default_plan(target)).default
        return TunedTask(outcome.task, decisions, default, default)
    finalist = outcome.finalists[min(best, len(outcome.finalists)) - 1]
    assert isinstance(finalist, TunedTask)
    return replace(finalist, seconds=fastest, default_seconds=default)


def layer_seconds(
    model: Any, target: tvm.target.Target, config: FFNConfig, tables: Sequence[TunedTable], threads: int
) -> dict[Task, list[float]]:
    """For each task of the model seconds of its layers with the decisions of each table, medians of kernels that are
    timed in all networks in turn, on so many ``threads``."""
    target = targets.with_threads(target, threads)
    solved = random_compilation(model, target, config)
    built = [run(for_target(solved, target, table), start_at="choose") for table in tables]
    modules = [finish(c) for c in built]
    times: list[dict[str, list[float]]] = [defaultdict(list) for _ in tables]
    with _threads(threads):
        for _ in progress(range(ROUNDS), "timing in the network"):
            for module, of_layers in zip(modules, times, strict=True):
                for kernel in kernel_times(module, repeat=RUNS):
                    of_layers[kernel.layer].append(kernel.median_ms / 1e3)
    found: dict[Task, list[float]] = {}
    for unit, task in built[0].tasks.items():
        medians = [statistics.median(of_layers[unit.name]) for of_layers in times]
        found[task] = [sum(pair) for pair in zip(found.get(task, [0.0] * len(tables)), medians, strict=True)]
    return found


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """TVM's thread pool with so many threads."""
    before = tvm.runtime.num_threads()
    configure = tvm.get_global_func("runtime.config_threadpool")
    configure(1, count)
    try:
        yield
    finally:
        configure(1, before)
