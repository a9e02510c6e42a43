"""MetaSchedule's database in a folder of one target's own.

target.json                     the target; another one is refused
database_workload.json          MetaSchedule's: the tasks
database_tuning_record.json     MetaSchedule's: the records, one line each, written as they come
tuned.json                      the decisions to compile with (`tuning.table`)
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import tvm
from tvm.s_tir import meta_schedule as ms

from tvm_ffn import targets
from tvm_ffn.atomic import output_errors
from tvm_ffn.errors import ConfigError
from tvm_ffn.json_file import read_object, write_json
from tvm_ffn.tuning.operator import OPERATOR_ATTRIBUTE
from tvm_ffn.tuning.search import FAILED
from tvm_ffn.tuning.task import Task
from tvm_ffn.tuning.workload import TASK_ATTRIBUTE, point_of, task_of

log = logging.getLogger("tvm_ffn")

TARGET_FILE = "target.json"
WORKLOADS, RECORDS = "database_workload.json", "database_tuning_record.json"
FORMAT = 1


@contextlib.contextmanager
def open_database(folder: Path, target: tvm.target.Target) -> Iterator[ms.database.Database]:
    """Open or make the database; a ConfigError if it is another target's, or another process writes to it."""
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".lock", "w")  # noqa: SIM115
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f"another process is tuning in {folder}; give it a folder of its own") from error
        if (folder / TARGET_FILE).exists():
            check_target(folder, target)
        else:
            write_json(folder / TARGET_FILE, {"format": FORMAT, "target": targets.target_dict(target)})
        for name in (WORKLOADS, RECORDS):
            _mend(folder / name)
        try:
            yield ms.database.JSONDatabase(str(folder / WORKLOADS), str(folder / RECORDS))
        except ValueError as error:
            raise ConfigError(f"the tuning database {folder} is damaged: {error}") from error


def check_target(folder: Path, target: tvm.target.Target) -> None:
    """Raise ConfigError unless the folder's records are of this target."""
    known = read_object(folder / TARGET_FILE, "target of a tuning database")
    if known.get("format") != FORMAT:
        raise ConfigError(f"{folder / TARGET_FILE} has the format {known.get('format')!r}; this version reads {FORMAT}")
    own = targets.target_dict(target)
    if known.get("target") != own:
        raise ConfigError(
            f"{folder} was tuned for {known.get('target')}, not for {own}: tune for this target in another folder"
        )


def history(database: ms.database.Database) -> dict[Task, list[tuple[dict[str, int], float]]]:
    """The records of each layer's task: decisions and seconds (`FAILED` or more: it failed)."""
    found: dict[Task, list[tuple[dict[str, int], float]]] = {}
    for record in database.get_all_tuning_records():
        mod = record.workload.mod
        if TASK_ATTRIBUTE in mod["main"].attrs:
            seconds = float(record.run_secs[0]) if record.run_secs else FAILED
            found.setdefault(task_of(mod), []).append((point_of(record.as_measure_candidate().sch.mod), seconds))
    return found


def operator_history(database: ms.database.Database) -> dict[str, list[ms.database.TuningRecord]]:
    """The records of each operator, by its key."""
    found: dict[str, list[ms.database.TuningRecord]] = {}
    for record in database.get_all_tuning_records():
        attributes = record.workload.mod["main"].attrs
        if OPERATOR_ATTRIBUTE in attributes:
            found.setdefault(str(attributes[OPERATOR_ATTRIBUTE]), []).append(record)
    return found


def _mend(path: Path) -> None:
    """Cut off a last line that was not written to its end."""
    if not path.exists():
        return
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        try:
            json.loads(content[end:])
        except ValueError:
            log.warning("%s: the last record was not written to its end and is dropped", path)
            with output_errors(path):
                os.truncate(path, end)
