"""Plans as data: read back, edited, applied, refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tvm_ffn.config import FFNConfig, LayerConfig
from tvm_ffn.errors import ConfigError
from tvm_ffn.plan import Plan, PlannedLayer

PLANES = LayerConfig(precision="ternary", method="planes", planes=6, penalty=0.01)
PLAN = Plan(
    {
        "stem": PlannedLayer(PLANES, 1000, 0.5, 0.06, 0.002),
        "body": PlannedLayer(LayerConfig(precision="ternary", method="response", rank=12)),
        "odd": PlannedLayer(None),
        "head": PlannedLayer(LayerConfig(precision="int8", method="planes", planes=6)),
    },
    {"adds": 0.6},
)


def test_round_trip(tmp_path: Path) -> None:
    assert Plan.from_json(json.loads(json.dumps(PLAN.to_json()))) == PLAN
    PLAN.save(tmp_path / "plan.json")
    assert Plan.from_file(tmp_path / "plan.json") == PLAN
    assert [file.name for file in tmp_path.iterdir()] == ["plan.json"]


def test_an_edit_reaches_the_layer() -> None:
    values = PLAN.to_json()
    values["layers"]["stem"]["penalty"] = 0.05
    values["layers"]["body"] = None
    edited = Plan.from_json(values).applied_to(FFNConfig(seed=3))
    assert edited.seed == 3 and edited.budget == PLAN.budget
    settled = edited.resolve(list(PLAN.layers))
    stem = settled["stem"]
    assert stem is not None and (stem.method, stem.planes, stem.penalty) == ("planes", 6, 0.05)
    assert settled["body"] is None and settled["odd"] is None
    head = settled["head"]
    assert head is not None and head.precision == "int8"


def test_settings_of_a_plan_are_what_they_were() -> None:
    settled = PLAN.applied_to(FFNConfig()).resolve(list(PLAN.layers))
    assert settled == {name: layer.settings for name, layer in PLAN.layers.items()}


def test_totals_and_table() -> None:
    assert PLAN.adds == 0.5 and PLAN.damage == 0.002
    lines = PLAN.table().splitlines()
    assert lines[2].split() == ["stem", "planes", "6", "at", "0.0100", "0.5000", "0.0600", "0.0020"]
    assert lines[3].split()[:4] == ["body", "response", "rank", "12"]
    assert lines[4].split()[1] == "fp32" and lines[5].split()[1] == "int8"
    assert lines[-1].startswith("budget: adds 0.6;")
    assert Plan({}).adds == 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 1"),
        ({"layers": []}, "object of layers"),
        ({"layers": {"a": 3}}, "'a' must be an object or null"),
        ({"layers": {"a": {"penlty": 0.1}}}, "did you mean 'penalty'"),
        ({"layers": {"a": {"penalty": -1}}}, "penalty must be"),
        ({"layers": {"a": {"planes": 9}}}, "planes must be an integer from 1 to 7"),
    ],
)
def test_what_is_no_plan(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Plan.from_json({**PLAN.to_json(), **change})


@pytest.mark.parametrize("content", [None, "", "[1]", "{", "\xff\xfe"])
def test_files_that_hold_none(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "plan.json"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match="plan"):
        Plan.from_file(path)


def test_a_plan_of_another_model() -> None:
    with pytest.raises(ConfigError, match="'stem' matches no layer"):
        PLAN.applied_to(FFNConfig()).resolve(["stem1", "body", "odd", "head"])
