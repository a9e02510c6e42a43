"""The progress of a session on a terminal: the task at work, its trials, best latency and gain; time left for all."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms

from tvm_ffn.tuning.search import FAILED, Search
from tvm_ffn.tuning.task import Task


class Display:
    """A bar over the trials of all tasks; also collects the first error of each kind into ``errors``."""

    def __init__(self, searches: Mapping[Task, Search], trials: int, errors: list[str]) -> None:
        from tqdm import tqdm

        self.tasks, self.errors = list(searches.items()), errors
        ends = [min(trials, search.space.size) for search in searches.values()]
        done = sum(min(len(s.seconds), end) for s, end in zip(searches.values(), ends, strict=True))
        self.bar = tqdm(total=sum(ends), initial=done, desc="tuning", file=sys.stderr, disable=None, leave=False)

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def callback(self) -> ms.measure_callback.MeasureCallback:
        """For MetaSchedule."""
        return _Callback(self)

    def show(self, number: int, failures: Sequence[str], count: int) -> None:
        """``count`` candidates of a task were measured."""
        for message in failures:
            kind = message.split(":")[0]
            if not any(known.startswith(kind) for known in self.errors):
                self.errors.append(message)
        task, search = self.tasks[number]
        best = min(search.seconds.values(), default=FAILED)
        self.bar.set_postfix_str(f"{task.name}: {_latency(best, search.default_seconds)}", refresh=False)
        self.bar.update(count)


def _latency(best: float, default: float | None) -> str:
    if best >= FAILED:
        return "nothing runs yet"
    gain = f", {default / best:.2f}x" if default is not None and default < FAILED else ""
    return f"{best * 1e3:.3f} ms{gain}"


@derived_object
class _Callback(ms.measure_callback.PyMeasureCallback):
    def __init__(self, display: Display) -> None:
        super().__init__()
        self.display = display

    def apply(
        self,
        task_scheduler: Any,
        task_id: int,
        measure_candidates: Any,
        builder_results: Sequence[Any],
        runner_results: Sequence[Any],
    ) -> None:
        texts = [b.error_msg or r.error_msg for b, r in zip(builder_results, runner_results, strict=True)]
        self.display.show(int(task_id), [str(text) for text in texts if text], len(texts))
