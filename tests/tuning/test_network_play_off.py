"""What loses inside the network does not stay in the table."""

from __future__ import annotations

from pathlib import Path

import pytest
from tasks import planes

from tvm_ffn import network_play_off, targets
from tvm_ffn.config import FFNConfig
from tvm_ffn.kernel_plan import default_plan
from tvm_ffn.network_play_off import layer_seconds, play_off
from tvm_ffn.pipeline import run
from tvm_ffn.synthetic import random_compilation
from tvm_ffn.tuning.session import TaskOutcome
from tvm_ffn.tuning.space import space_of
from tvm_ffn.tuning.table import TABLE_FILE, TunedTable, TunedTask

MODEL = Path(__file__).parents[2] / "examples" / "digits.onnx"
TARGET = targets.parse_target("llvm")
DECISIONS = {"digit_vectors": 1, "table_kb": 12}


def outcome(entry: TunedTask | None) -> TaskOutcome:
    return TaskOutcome(planes(0.6) if entry is None else entry.task, 2, 9, 0, entry)


def test_losers_get_the_default_decisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    winner, loser, elsewhere = (TunedTask(planes(density), DECISIONS, 1e-5, 2e-5) for density in (0.6, 0.7, 0.8))
    seconds = {winner.task: (4e-5, 3e-5), loser.task: (3e-5, 4e-5)}
    monkeypatch.setattr(network_play_off, "layer_seconds", lambda *_: seconds)
    TunedTable([winner, loser, elsewhere]).write(tmp_path / TABLE_FILE)
    outcomes = [outcome(entry) for entry in (winner, loser, elsewhere, None)]
    found = [o.tuned for o in play_off(MODEL, TARGET, FFNConfig(), tmp_path, outcomes, 1)]
    assert found[0] == TunedTask(winner.task, DECISIONS, 3e-5, 4e-5)
    default = space_of(loser.task, default_plan(TARGET)).default
    assert found[1] == TunedTask(loser.task, default, 3e-5, 3e-5) and default != DECISIONS
    assert found[2] == elsewhere and found[3] is None
    assert list(TunedTable.read(tmp_path / TABLE_FILE).entries.values()) == found[:3]


def test_layers_are_timed_with_both_decisions() -> None:
    c = run(random_compilation(MODEL, TARGET, FFNConfig()), start_at="choose", stop_after="choose")
    tasks = {task for task in c.tasks.values() if task.form == "planes"}
    table = TunedTable(TunedTask(task, DECISIONS, 1.0, 1.0) for task in tasks)
    seconds = layer_seconds(MODEL, TARGET, FFNConfig(), table, 1)
    assert seconds.keys() == tasks
    assert all(0 < value < 1 for pair in seconds.values() for value in pair)
