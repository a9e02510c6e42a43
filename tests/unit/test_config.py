"""Configuration: what is accepted, what is refused with a useful message, how layers get theirs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tvm_ffn.config import FFNConfig, LayerConfig
from tvm_ffn.errors import ConfigError

NAMES = ["stem.conv", "block1.conv1", "block1.conv2", "head.fc"]


def test_defaults_of_each_layer() -> None:
    resolved = FFNConfig().resolve(NAMES)
    assert [layer.precision for layer in resolved.values() if layer] == ["ternary", "ternary", "ternary", "int8"]
    assert resolved["block1.conv1"] == LayerConfig(precision="ternary", method="planes", planes=6)


def test_a_rank_asks_for_factors_of_any_form() -> None:
    resolved = FFNConfig(rank_ratio=2.0).resolve(NAMES)
    assert [layer.precision for layer in resolved.values() if layer] == ["int8", "ternary", "ternary", "int8"]
    assert resolved["block1.conv1"] == LayerConfig(rank_ratio=2.0, precision="ternary", method="response")
    assert FFNConfig(method="sdd").resolve(NAMES)["block1.conv1"] == LayerConfig(
        rank_ratio=1.5, precision="ternary", method="sdd"
    )
    mixed = FFNConfig(penalty=0.01, layers={"block1.conv1": LayerConfig(rank=7)}).resolve(NAMES)
    assert mixed["block1.conv1"] == LayerConfig(rank=7, precision="ternary", method="response")
    assert mixed["block1.conv2"] == LayerConfig(precision="ternary", method="planes", planes=6, penalty=0.01)


def test_exact_name_goes_before_pattern_and_first_pattern_before_later_ones() -> None:
    layers = {
        "re:block1.*": LayerConfig(rank_ratio=2.0),
        "re:.*conv2": LayerConfig(rank_ratio=3.0),
        "block1.conv1": LayerConfig(rank=7, method="sdd"),
    }
    resolved = FFNConfig(layers=layers).resolve(NAMES)
    assert resolved["block1.conv1"] == LayerConfig(rank=7, precision="ternary", method="sdd")
    assert resolved["block1.conv2"] == LayerConfig(rank_ratio=2.0, precision="ternary", method="response")


def test_none_keeps_fp32() -> None:
    assert FFNConfig(layers={"block1.conv1": None}).resolve(NAMES)["block1.conv1"] is None


def test_first_layer_is_ternary_only_if_named() -> None:
    by_pattern = FFNConfig(layers={"re:.*": LayerConfig(rank_ratio=2.0)}).resolve(NAMES)["stem.conv"]
    by_name = FFNConfig(layers={"stem.conv": LayerConfig(rank_ratio=2.0)}).resolve(NAMES)["stem.conv"]
    assert by_pattern is not None and by_pattern.precision == "int8"
    assert by_name is not None and by_name.precision == "ternary"


def test_single_layer_model() -> None:
    assert FFNConfig(last_layer="ternary", rank_ratio=1.0).resolve(["fc"])["fc"] == LayerConfig(
        rank_ratio=1.0, precision="int8", method="response"
    )


@pytest.mark.parametrize(("layer", "k"), [(LayerConfig(rank=5), 5), (LayerConfig(rank_ratio=1.5), 96)])
def test_rank(layer: LayerConfig, k: int) -> None:
    assert layer.rank_for(64, 576) == k
    assert LayerConfig(rank_ratio=0.01).rank_for(8, 8) == 1


def test_round_trip_and_file(tmp_path: Path) -> None:
    config = FFNConfig(rank_ratio=1.0, layers={"a": None, "re:b.*": LayerConfig(rank=3)}, threads=2)
    text = json.dumps(config.to_dict())
    assert FFNConfig.from_dict(json.loads(text)) == config
    path = tmp_path / "config.json"
    path.write_text(text)
    assert FFNConfig.from_file(path) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rank_ration": 1}, "did you mean 'rank_ratio'"),
        ({"layers": {"a": {"rnak": 1}}}, "did you mean 'rank'"),
        ({"rank_ratio": 0}, "above 0"),
        ({"rank_ratio": float("nan")}, "finite"),
        ({"rank_ratio": "1.5"}, "finite number"),
        ({"rank_ratio": True}, "finite number"),
        ({"method": "sd"}, "did you mean 'sdd'"),
        ({"mid_bits": 16}, "from 2 to 15"),
        ({"seed": 1.0}, "integer"),
        ({"threads": 0}, "at least 1"),
        ({"first_layer": "fp32"}, "'ternary' or 'int8'"),
        ({"layers": ["a"]}, "must map"),
        ({"layers": {"re:(": None}}, "no regular expression"),
        ({"layers": {"a": 3}}, "must be a LayerConfig"),
        ({"layers": {"a": {"rank": 3, "rank_ratio": 1.0}}}, "not both"),
    ],
)
def test_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FFNConfig.from_dict(values)


@pytest.mark.parametrize("key", ["block1.conv3", "re:block9.*"])
def test_pattern_that_matches_nothing(key: str) -> None:
    with pytest.raises(ConfigError, match="matches no layer"):
        FFNConfig(layers={key: None}).resolve(NAMES)
    with pytest.raises(ConfigError, match=r"did you mean 'block1\.conv"):
        FFNConfig(layers={"block1.conv3": None}).resolve(NAMES)


@pytest.mark.parametrize("content", ["hello", "[1]", ""])
def test_unreadable_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"config\.json"):
        FFNConfig.from_file(path)
    with pytest.raises(ConfigError, match="missing"):
        FFNConfig.from_file(tmp_path / "missing.json")
