"""The outcome of tuning that compilation uses: for each task the decisions that won, one small JSON file a target."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tvm_ffn.errors import ConfigError
from tvm_ffn.json_file import read_object, write_json
from tvm_ffn.kernel_plan import KernelPlan
from tvm_ffn.tuning.task import Task

TABLE_FILE = "tuned.json"
FORMAT = 1
NEAREST = 0.25  # difference of densities up to which a task's decisions are taken for another's


@dataclass(frozen=True)
class TunedTask:
    """A task, the fastest decisions, and the seconds of these and of the default ones, measured in turn."""

    task: Task
    decisions: Mapping[str, int]
    seconds: float
    default_seconds: float

    @property
    def gain(self) -> float:
        """How many times as fast as the default."""
        return self.default_seconds / self.seconds


class TunedTable:
    """Entries by task."""

    def __init__(self, entries: Iterable[TunedTask] = ()) -> None:
        self.entries = {entry.task: entry for entry in entries}

    def find(self, task: Task) -> TunedTask | None:
        """The entry of the task, or of the one that differs from it least: in density only, by `NEAREST` at most."""
        near = [entry for entry in self.entries.values() if entry.task.key == task.key]
        best = min(near, key=lambda entry: abs(entry.task.density - task.density), default=None)
        return best if best is not None and abs(best.task.density - task.density) <= NEAREST + 1e-9 else None

    def add(self, entry: TunedTask) -> None:
        """Add or replace the task's entry."""
        self.entries[entry.task] = entry

    @classmethod
    def read(cls, path: Path) -> TunedTable:
        """The table in a file, empty if there is none; a damaged one is a ConfigError."""
        if not path.exists():
            return cls()
        values = read_object(path, "table of tuned layers")
        if values.get("format") != FORMAT:
            raise ConfigError(f"{path} has the format {values.get('format')!r}; this version reads {FORMAT}")
        try:
            return cls(_entry(item) for item in values["layers"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"the table of tuned layers {path} is damaged: {error!r}; tune again") from error

    def write(self, path: Path) -> None:
        """Replace the file."""
        layers = [
            {
                "task": entry.task.to_dict(),
                "decisions": dict(entry.decisions),
                "seconds": entry.seconds,
                "default_seconds": entry.default_seconds,
            }
            for entry in self.entries.values()
        ]
        write_json(path, {"format": FORMAT, "layers": layers})


def _entry(item: Mapping[str, Any]) -> TunedTask:
    decisions = {str(name): int(value) for name, value in item["decisions"].items()}
    unknown = decisions.keys() - {field.name for field in fields(KernelPlan)}
    if unknown:
        raise ValueError(f"unknown decisions {sorted(unknown)}")
    return TunedTask(Task.from_dict(item["task"]), decisions, float(item["seconds"]), float(item["default_seconds"]))
