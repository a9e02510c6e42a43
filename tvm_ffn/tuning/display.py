"""The progress of a session on a terminal: the task at work, its trials, best latency and gain; time left for all."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms

from tvm_ffn.tuning.search import FAILED
from tvm_ffn.tuning.subject import Subject


class Display:
    """A bar over the trials of all tasks; also collects the first error of each kind into ``errors``."""

    def __init__(self, subjects: Sequence[Subject], trials: int, errors: list[str]) -> None:
        from tqdm import tqdm

        self.subjects, self.errors = subjects, errors
        ends = [min(trials, subject.size) for subject in subjects]
        done = sum(min(subject.tried, end) for subject, end in zip(subjects, ends, strict=True))
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
        subject = self.subjects[number]
        latency = _latency(subject.best_seconds, subject.default_seconds)
        self.bar.set_postfix_str(f"{subject.task.name}: {latency}", refresh=False)
        self.bar.update(count)


def _latency(best: float | None, default: float | None) -> str:
    if best is None:
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
