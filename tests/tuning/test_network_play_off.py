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


OTHERS = {"digit_vectors": 2, "table_kb": 24}


def outcome(density: float, *decisions: dict[str, int]) -> TaskOutcome:
    """A task whose finalists have these ``decisions``, the first of which won alone."""
    finalists = [TunedTask(planes(density), own, 1e-5, 2e-5) for own in decisions]
    return TaskOutcome(planes(density), 2, 9, 0, finalists[0] if finalists else None, finalists)


def test_what_is_fastest_in_the_network_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = [
        outcome(0.6, DECISIONS, OTHERS),
        outcome(0.7, DECISIONS, OTHERS),
        outcome(0.8, DECISIONS),  # its only finalist is in both networks
        outcome(0.9, DECISIONS, OTHERS),
        outcome(0.3),
    ]
    seconds = {
        outcomes[0].task: [4e-5, 5e-5, 3e-5],
        outcomes[1].task: [3e-5, 4e-5, 5e-5],
        outcomes[2].task: [3e-5, 2.5e-5, 2e-5],
    }
    monkeypatch.setattr(network_play_off, "layer_seconds", lambda *_: seconds)
    TunedTable(o.tuned for o in outcomes if isinstance(o.tuned, TunedTask)).write(tmp_path / TABLE_FILE)
    found = [o.tuned for o in play_off(MODEL, TARGET, FFNConfig(), tmp_path, outcomes, 1)]
    assert found[0] == TunedTask(planes(0.6), OTHERS, 3e-5, 4e-5)
    default = space_of(planes(0.7), default_plan(TARGET)).default
    assert found[1] == TunedTask(planes(0.7), default, 3e-5, 3e-5) and default != DECISIONS
    assert found[2] == TunedTask(planes(0.8), DECISIONS, 2e-5, 3e-5)
    assert found[3] == outcomes[3].tuned and found[4] is None
    assert list(TunedTable.read(tmp_path / TABLE_FILE).entries.values()) == found[:4]


def test_layers_are_timed_with_all_decisions() -> None:
    c = run(random_compilation(MODEL, TARGET, FFNConfig()), start_at="choose", stop_after="choose")
    tasks = {task for task in c.tasks.values() if task.form == "planes"}
    tables = [TunedTable(TunedTask(task, own, 1.0, 1.0) for task in tasks) for own in (DECISIONS, OTHERS)]
    seconds = layer_seconds(MODEL, TARGET, FFNConfig(), [TunedTable(), *tables], 1)
    assert seconds.keys() == set(c.tasks.values())
    assert all(len(values) == 3 and all(0 < value < 1 for value in values) for values in seconds.values())
