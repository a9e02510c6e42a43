"""What every layer is to become, as data: printed, stored as JSON, edited by hand and accepted back.

A plan gives each layer its settings, and says what was expected of them. Only the settings count when it is used:
the expectations may be stale after an edit.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tvm_ffn.config import FFNConfig, LayerConfig
from tvm_ffn.errors import ConfigError
from tvm_ffn.json_file import read_object, write_json
from tvm_ffn.suggest import did_you_mean
from tvm_ffn.text_table import aligned, shortened

FORMAT = 1


@dataclass(frozen=True)
class PlannedLayer:
    """Settings of one layer (None: fp32) and what is expected of them.

    ``macs`` of one sample; ``digits`` a weight, ``error`` the relative response error, ``damage`` what the layer costs
    the answers (nats of KL divergence for class outputs, as far as `planner` trusts what was measured); None where the
    layer was not planned.
    """

    settings: LayerConfig | None
    macs: int | None = None
    digits: float | None = None
    error: float | None = None
    damage: float | None = None


@dataclass(frozen=True)
class Plan:
    """The layers in topological order, and the budget they were planned for."""

    layers: Mapping[str, PlannedLayer]
    budget: Mapping[str, float] = field(default_factory=dict)

    def applied_to(self, config: FFNConfig) -> FFNConfig:
        """``config`` with every layer's settings taken from the plan, and its budget where it has one."""
        layers = {name: layer.settings for name, layer in self.layers.items()}
        return config.replace(layers=layers, budget=self.budget or config.budget)

    @property
    def damage(self) -> float:
        """Expected damage of all planned layers together."""
        return sum(layer.damage or 0.0 for layer in self.layers.values())

    @property
    def adds(self) -> float:
        """Expected digits executed a multiply-accumulate of the planned layers (0.0 without such)."""
        planned = [layer for layer in self.layers.values() if layer.digits is not None and layer.macs]
        macs = sum(layer.macs or 0 for layer in planned)
        return sum((layer.macs or 0) * (layer.digits or 0.0) for layer in planned) / macs if macs else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict that :meth:`from_json` reads back."""
        layers = {}
        for name, layer in self.layers.items():
            expected = {f.name: getattr(layer, f.name) for f in dataclasses.fields(layer) if f.name != "settings"}
            known = {key: value for key, value in expected.items() if value is not None}
            layers[name] = None if layer.settings is None else {**layer.settings.to_dict(), **known}
        return {"format": FORMAT, "budget": dict(self.budget), "layers": layers}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Plan:
        """Build from a JSON object; anything that is no plan is a ConfigError."""
        if values.get("format") != FORMAT or not isinstance(values.get("layers"), Mapping):
            raise ConfigError(f"a plan is a JSON object with format {FORMAT} and an object of layers")
        expected = [f.name for f in dataclasses.fields(PlannedLayer) if f.name != "settings"]
        settings = [f.name for f in dataclasses.fields(LayerConfig)]
        layers = {}
        for name, given in values["layers"].items():
            if given is not None and not isinstance(given, Mapping):
                raise ConfigError(f"the plan of layer {name!r} must be an object or null, not {given!r}")
            for key in given or ():
                if key not in (*settings, *expected):
                    hint = did_you_mean(str(key), settings)
                    raise ConfigError(f"unknown key {key!r} in the plan of layer {name!r}{hint}")
            own = None if given is None else {key: value for key, value in given.items() if key in settings}
            rest = {key: value for key, value in (given or {}).items() if key in expected}
            layers[name] = PlannedLayer(None if own is None else LayerConfig.from_dict(own), **rest)
        return cls(layers, dict(values.get("budget") or {}))

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Plan:
        """Read a JSON file; a file that is missing or no plan is a ConfigError."""
        return cls.from_json(read_object(path, "plan"))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the JSON file, whole or not at all."""
        write_json(path, self.to_json())

    def table(self) -> str:
        """Return the plan as text: a row a layer, the budget, the totals expected."""
        head = ("layer", "method", "setting", "digits", "error", "damage")
        rows = [head, *(_row(name, layer) for name, layer in self.layers.items())]
        lines = aligned(rows, left=range(3))
        budget = ", ".join(f"{key} {value:g}" for key, value in self.budget.items()) or "none"
        lines += [f"budget: {budget}; expected: {self.adds:.3f} digits a MAC, damage {self.damage:.4f}"]
        return "\n".join(lines)


def _row(name: str, layer: PlannedLayer) -> tuple[str, ...]:
    s = layer.settings
    if s is None:
        what, setting = "fp32", ""
    elif s.precision == "int8":
        what, setting = "int8", ""
    elif s.method == "planes":
        what, setting = "planes", f"{s.planes}" if s.penalty is None else f"{s.planes} at {s.penalty:.4f}"
    else:
        what, setting = str(s.method), f"rank {s.rank}" if s.rank is not None else f"rank ratio {s.rank_ratio}"
    numbers = (layer.digits, layer.error, layer.damage)
    return (shortened(name), what, setting, *("-" if value is None else f"{value:.4f}" for value in numbers))
