"""Tuned layers against default ones inside the network they are for: where they lose there, the default stays.

A kernel that is timed alone finds its weights in the caches and, as lists of digits, the ends of all lists predicted;
between the other kernels of a network it does not (on a Sapphire Rapids, tiles of two vectors that were 1.16x as fast
alone took 1.3x as long in squeezenet).
"""

from __future__ import annotations

import contextlib
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import tvm

from tvm_ffn.bench import kernel_times
from tvm_ffn.compiler import finish
from tvm_ffn.config import FFNConfig
from tvm_ffn.kernel_plan import default_plan
from tvm_ffn.pipeline import for_target, run
from tvm_ffn.progress import progress
from tvm_ffn.synthetic import random_compilation
from tvm_ffn.tuning.session import LEAST_GAIN, TaskOutcome
from tvm_ffn.tuning.space import space_of
from tvm_ffn.tuning.table import TABLE_FILE, TunedTable, TunedTask
from tvm_ffn.tuning.task import Task

ROUNDS = 7  # both modules in turn
RUNS = 5  # of a module a round


def play_off(
    model: Any,
    target: tvm.target.Target,
    config: FFNConfig,
    folder: Path,
    outcomes: Sequence[TaskOutcome],
    threads: int,
) -> list[TaskOutcome]:
    """The outcomes with the seconds of their layers in the network, the default decisions where these are as fast;
    the ``folder``'s table is written anew."""
    table = TunedTable.read(folder / TABLE_FILE)
    seconds = layer_seconds(model, target, config, table, threads)
    found = [replace(o, tuned=_settled(o.tuned, seconds, target)) for o in outcomes]
    for outcome in found:
        if outcome.tuned is not None:
            table.add(outcome.tuned)
    table.write(folder / TABLE_FILE)
    return found


def _settled(entry: Any, seconds: dict[Task, tuple[float, float]], target: tvm.target.Target) -> Any:
    if not isinstance(entry, TunedTask) or entry.task not in seconds:
        return entry
    default, tuned = seconds[entry.task]
    if tuned * LEAST_GAIN < default:
        return replace(entry, seconds=tuned, default_seconds=default)
    decisions = space_of(entry.task, default_plan(target)).default
    return replace(entry, decisions=decisions, seconds=default, default_seconds=default)


def layer_seconds(
    model: Any, target: tvm.target.Target, config: FFNConfig, table: TunedTable, threads: int
) -> dict[Task, tuple[float, float]]:
    """For each task of the model that the table has exactly: seconds of its layers with the default decisions and with
    the table's, medians of kernels timed in both networks in turn."""
    solved = random_compilation(model, target, config)
    tuned = [run(for_target(solved, target, known), start_at="choose") for known in (TunedTable(), table)]
    modules = [finish(c) for c in tuned]
    times: list[dict[str, list[float]]] = [defaultdict(list), defaultdict(list)]
    with _threads(threads):
        for _ in progress(range(ROUNDS), "timing in the network"):
            for module, of_layers in zip(modules, times, strict=True):
                for kernel in kernel_times(module, repeat=RUNS):
                    of_layers[kernel.layer].append(kernel.median_ms / 1e3)
    found: dict[Task, tuple[float, float]] = {}
    for unit, task in tuned[1].tasks.items():
        if task in table.entries:
            before = found.get(task, (0.0, 0.0))
            medians = [statistics.median(of_layers[unit.name]) for of_layers in times]
            found[task] = before[0] + medians[0], before[1] + medians[1]
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
