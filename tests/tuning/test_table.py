"""The table of winning decisions, and what a damaged or foreign one says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tasks import TASKS, planes

from tvm_ffn import targets
from tvm_ffn.errors import ConfigError
from tvm_ffn.tuning.database import open_database
from tvm_ffn.tuning.shipped import tuned_table
from tvm_ffn.tuning.table import TABLE_FILE, TunedTable, TunedTask

ENTRY = TunedTask(planes(0.6), {"digit_vectors": 5, "table_kb": 24}, 1e-5, 2e-5)


def test_tables_are_read_back(tmp_path: Path) -> None:
    table = TunedTable([ENTRY, replace(ENTRY, task=TASKS[2], decisions={"pixel_block": 64})])
    table.write(tmp_path / "t.json")
    assert TunedTable.read(tmp_path / "t.json").entries == table.entries
    assert TunedTable.read(tmp_path / "absent.json").entries == {}
    assert ENTRY.gain == 2.0


def test_the_nearest_density_is_found() -> None:
    table = TunedTable([ENTRY, replace(ENTRY, task=planes(0.9))])
    assert table.find(planes(0.6)) == ENTRY
    assert table.find(planes(0.7)) == ENTRY
    found = table.find(planes(1.1))
    assert found is not None and found.task.density == 0.9
    assert table.find(planes(0.3)) is None
    assert table.find(planes(0.6, outputs=9)) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 9}, "format 9"),
        ({"layers": None}, "damaged"),
        ({"layers": [{"task": {}}]}, "damaged"),
    ],
)
def test_a_damaged_table_says_so(tmp_path: Path, change: dict, message: str) -> None:
    path = tmp_path / TABLE_FILE
    TunedTable([ENTRY]).write(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ConfigError, match=message):
        TunedTable.read(path)


def test_unknown_decisions_are_refused(tmp_path: Path) -> None:
    path = tmp_path / TABLE_FILE
    TunedTable([replace(ENTRY, decisions={"digit_vektors": 5})]).write(path)
    with pytest.raises(ConfigError, match="digit_vektors"):
        TunedTable.read(path)


def test_a_folder_is_of_one_target(tmp_path: Path) -> None:
    own, other = (targets.parse_target(f"llvm -mtriple=x86_64 -mcpu={cpu}") for cpu in ("x86-64-v3", "znver3"))
    with open_database(tmp_path / "d", own):
        TunedTable([ENTRY]).write(tmp_path / "d" / TABLE_FILE)
    assert tuned_table(own, tmp_path / "d").find(ENTRY.task) == ENTRY
    with pytest.raises(ConfigError, match=r"x86-64-v3.*znver3.*another folder"):
        tuned_table(other, tmp_path / "d")
    with pytest.raises(ConfigError, match="another folder"), open_database(tmp_path / "d", other):
        pass
    with pytest.raises(ConfigError, match="does not exist"):
        tuned_table(own, tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"target\.json"):
        tuned_table(own, tmp_path)


def test_two_sessions_do_not_write_to_one_folder(tmp_path: Path) -> None:
    target = targets.parse_target("llvm -mtriple=x86_64 -mcpu=x86-64-v3")
    with open_database(tmp_path, target):
        with pytest.raises(ConfigError, match="another process"), open_database(tmp_path, target):
            pass
    with open_database(tmp_path, target):
        pass


def test_shipped_tables_are_good() -> None:
    """Whatever ships is read, and its decisions are of the spaces that its tasks have."""
    for path in (Path(tuned_table.__code__.co_filename).parent / "shipped").glob("*.json"):
        table = TunedTable.read(path)
        assert table.entries
        assert all(entry.seconds <= entry.default_seconds for entry in table.entries.values())
