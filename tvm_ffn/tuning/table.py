"""The outcome of tuning that compilation uses: for each task the decisions that won, one small JSON file a target."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
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
    def choice(self) -> str:
        """For people."""
        return ", ".join(f"{name} {value}" for name, value in self.decisions.items())

    @property
    def gain(self) -> float:
        """How many times as fast as the default."""
        return self.default_seconds / self.seconds


@dataclass(frozen=True)
class TunedOperator:
    """An operator, the trace of its fastest schedule (None: the default one), and seconds as of a `TunedTask`."""

    key: str
    name: str
    trace: Any
    seconds: float
    default_seconds: float

    @property
    def choice(self) -> str:
        """For people."""
        return "default schedule" if self.trace is None else "MetaSchedule's rules"

    @property
    def gain(self) -> float:
        """How many times as fast as the default."""
        return self.default_seconds / self.seconds


class TunedTable:
    """Entries by task, ``operators`` by their key."""

    def __init__(self, entries: Iterable[TunedTask] = (), operators: Iterable[TunedOperator] = ()) -> None:
        self.entries = {entry.task: entry for entry in entries}
        self.operators = {entry.key: entry for entry in operators}

    def find(self, task: Task) -> TunedTask | None:
        """The entry of the task, or of the one that differs from it least: in density only, by `NEAREST` at most."""
        near = [entry for entry in self.entries.values() if entry.task.key == task.key]
        best = min(near, key=lambda entry: abs(entry.task.density - task.density), default=None)
        return best if best is not None and abs(best.task.density - task.density) <= NEAREST + 1e-9 else None

    def add(self, entry: TunedTask | TunedOperator) -> None:
        """Add or replace the task's or operator's entry."""
        if isinstance(entry, TunedTask):
            self.entries[entry.task] = entry
        else:
            self.operators[entry.key] = entry

    @classmethod
    def read(cls, path: Path) -> TunedTable:
        """The table in a file, empty if there is none; a damaged one is a ConfigError."""
        if not path.exists():
            return cls()
        values = read_object(path, "table of tuned layers")
        if values.get("format") != FORMAT:
            raise ConfigError(f"{path} has the format {values.get('format')!r}; this version reads {FORMAT}")
        try:
            operators = [TunedOperator(**item) for item in values.get("operators", [])]
            return cls(map(_entry, values["layers"]), operators)
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
        operators = [asdict(entry) for entry in self.operators.values()]
        write_json(path, {"format": FORMAT, "layers": layers, "operators": operators})


def _entry(item: Mapping[str, Any]) -> TunedTask:
    decisions = {str(name): int(value) for name, value in item["decisions"].items()}
    unknown = decisions.keys() - {field.name for field in fields(KernelPlan)}
    if unknown:
        raise ValueError(f"unknown decisions {sorted(unknown)}")
    return TunedTask(Task.from_dict(item["task"]), decisions, float(item["seconds"]), float(item["default_seconds"]))
