"""What a compilation can be told: global settings and settings of single layers.

``rank`` is k, the number of ternary terms of ``W ~ X diag(d) Y^T``; ``rank_ratio`` is k / min(m, n) for an
m x n weight matrix. Settings reach a layer at two levels: the fields of :class:`FFNConfig`, and, above them,
the entry of ``FFNConfig.layers`` whose key is the layer's exact name or else the first ``"re:pattern"`` that
matches the whole name. The entry ``None`` keeps a layer in fp32.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tvm_ffn.errors import ConfigError
from tvm_ffn.json_file import read_object
from tvm_ffn.suggest import did_you_mean

METHODS = ("planes", "response", "sdd")
MOST_PLANES = 7
RANK_RATIO = 1.5
PRECISIONS = ("ternary", "int8")
OPTIMIZE = ("size", "speed")
BUDGETS = ("max_drop", "adds", "bytes")


@dataclass(frozen=True)
class LayerConfig:
    """Settings of one layer; ``None`` means "as the whole model".

    A rank, planes or a penalty given for an exact name makes that layer ternary even where the model's first or last
    layer is int8.
    """

    # Number of ternary terms k; excludes rank_ratio.
    rank: int | None = None
    # k / min(m, n).
    rank_ratio: float | None = None
    # "ternary" or "int8".
    precision: str | None = None
    # "planes", "response" or "sdd", see FFNConfig.method.
    method: str | None = None
    # "planes" only, see FFNConfig.
    planes: int | None = None
    penalty: float | None = None

    def __post_init__(self) -> None:
        if self.rank is not None:
            _integer("rank", self.rank, 1)
        if self.planes is not None:
            _integer("planes", self.planes, 1, MOST_PLANES)
        if self.penalty is not None:
            _number("penalty", self.penalty, least=0.0)
        if self.rank_ratio is not None:
            _number("rank_ratio", self.rank_ratio, above=0.0)
        if self.rank is not None and self.rank_ratio is not None:
            raise ConfigError("give a layer either rank or rank_ratio, not both")
        if self.precision is not None:
            _choice("precision", self.precision, PRECISIONS)
        if self.method is not None:
            _choice("method", self.method, METHODS)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LayerConfig:
        """Build from a mapping; an unknown key is a ConfigError."""
        _known_keys(cls, values, "layer setting")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings that are not ``None``."""
        return {key: value for key, value in dataclasses.asdict(self).items() if value is not None}

    def rank_for(self, m: int, n: int) -> int:
        """Return k for an m x n weight matrix (at least 1); needs ``rank`` or ``rank_ratio``."""
        if self.rank is not None:
            return self.rank
        if self.rank_ratio is None:
            raise ConfigError("a layer configuration without rank and rank_ratio has no rank; resolve it first")
        return max(1, round(self.rank_ratio * min(m, n)))


@dataclass(frozen=True)
class FFNConfig:
    """Settings of a whole compilation; every field has a usable default."""

    # "planes": weights in signed binary digits (X block-identity), one ternary plane a digit; "response": X, d and Y of
    # any form, rank k; both fit the layer's responses on calibration data. "sdd": the paper's semidiscrete
    # decomposition. None: "response" where a rank is given, else "planes".
    method: str | None = None
    # What the digits of "planes" may cost, one of {"max_drop": points of top-1}, judged by the answers to held-out
    # calibration samples; {"adds": digits executed a multiply-accumulate}; {"bytes": packed weights, as a part of
    # int8's, and what code may take unless code_bytes says otherwise}.
    budget: Mapping[str, float] = field(default_factory=lambda: {"max_drop": 1.0})
    # "planes" only: the price of a digit that is not zero, the same in all layers (0.005: accurate, 0.05: sparse);
    # None: planned for each layer within the budget.
    penalty: float | None = None
    # "planes" only: most digits a weight.
    planes: int = 6
    # "response" and "sdd" only: ternary terms k as a multiple of min(m, n) of each weight matrix: more terms, more
    # accuracy, more additions. None: 1.5.
    rank_ratio: float | None = None
    # Significant bits of the requantised middle t = d * (Y^T x), kept in int16.
    mid_bits: int = 10
    # Precision of the first and of the last layer: "int8" or "ternary". None: ternary for "planes", whose digits reach
    # int8's precision, int8 for "response" and "sdd".
    first_layer: str | None = None
    last_layer: str = "int8"
    # "speed": weights as machine code where that is fastest (x86-64 with AVX2 or AVX-512; 2.5 bytes an entry, 4 a
    # digit; a quarter of that on disk, as artefacts with code are saved compressed). "size": packed weights (2.7 bits
    # an entry, 4 where outputs are few) at a half to four fifths of the speed.
    optimize: str = "speed"
    # "speed" only: what all weights together may take in memory, as a multiple of int8's bytes; None: any size, or
    # what a budget of bytes says.
    code_bytes: float | None = None
    # Settings of single layers by exact name or "re:pattern"; None keeps the layer in fp32.
    layers: Mapping[str, LayerConfig | None] = field(default_factory=dict)
    # Ridge of the input statistics, relative to their mean diagonal.
    ridge: float = 0.05
    # Ridge of the response target W*, relative to the mean diagonal; None: chosen for each layer by held-out samples.
    target_ridge: float | None = None
    # Input rows (pixels or samples) gathered per layer from the calibration data.
    calibration_rows: int = 80000
    # Outer rounds and inner sweeps of the solver.
    rounds: int = 3
    sweeps: int = 5
    # Seed of every random choice: same seed, same factors.
    seed: int = 0
    # Threads of the solver; None uses all processors. The result does not depend on it.
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.rank_ratio is not None:
            _number("rank_ratio", self.rank_ratio, above=0.0)
        if self.method is not None:
            _choice("method", self.method, METHODS)
        _integer("planes", self.planes, 1, MOST_PLANES)
        if self.penalty is not None:
            _number("penalty", self.penalty, least=0.0)
        _checked_budget(self.budget)
        _integer("mid_bits", self.mid_bits, 2, 15)
        if self.first_layer is not None:
            _choice("first_layer", self.first_layer, PRECISIONS)
        _choice("last_layer", self.last_layer, PRECISIONS)
        _choice("optimize", self.optimize, OPTIMIZE)
        if self.code_bytes is not None:
            _number("code_bytes", self.code_bytes, above=0.0)
        _number("ridge", self.ridge, least=0.0)
        if self.target_ridge is not None:
            _number("target_ridge", self.target_ridge, above=0.0)
        _integer("calibration_rows", self.calibration_rows, 1)
        _integer("rounds", self.rounds, 0)
        _integer("sweeps", self.sweeps, 0)
        _integer("seed", self.seed, 0)
        if self.threads is not None:
            _integer("threads", self.threads, 1)
        object.__setattr__(self, "layers", _checked_layers(self.layers))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FFNConfig:
        """Build from a (JSON) mapping; an unknown key or a value of the wrong kind is a ConfigError."""
        _known_keys(cls, values, "setting")
        return cls(**values)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> FFNConfig:
        """Read a JSON file; a file that is missing or no JSON object is a ConfigError."""
        return cls.from_dict(read_object(path, "configuration"))

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able dict that :meth:`from_dict` reads back."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values["budget"] = dict(self.budget)
        values["layers"] = {name: None if layer is None else layer.to_dict() for name, layer in self.layers.items()}
        return values

    def replace(self, **changes: Any) -> FFNConfig:
        """Return a copy with some fields changed; an unknown field is a ConfigError."""
        _known_keys(type(self), changes, "setting")
        return dataclasses.replace(self, **changes)

    def resolve(self, layer_names: Sequence[str]) -> dict[str, LayerConfig | None]:
        """Settle the configuration of each layer of a model.

        ``layer_names`` are in topological order. The results have ``precision`` and ``method`` set, and ``planes``
        (with ``penalty`` None where it is to be planned), ``rank`` or ``rank_ratio``; ``None`` is a layer to keep in
        fp32. A key of ``layers`` that matches no layer is a ConfigError.
        """
        for key in self.layers:
            if not any(_matches(key, name) for name in layer_names):
                hint = did_you_mean(key.removeprefix("re:"), layer_names)
                raise ConfigError(f"the layer configuration {key!r} matches no layer of the model{hint}")
        last = len(layer_names) - 1
        return {name: self._resolve_one(name, index == 0, index == last) for index, name in enumerate(layer_names)}

    def given(self, name: str) -> tuple[str | None, LayerConfig | None]:
        """The key of ``layers`` that is meant for a layer and its settings; without one, None and empty settings."""
        key = name if name in self.layers else next((key for key in self.layers if _matches(key, name)), None)
        return key, LayerConfig() if key is None else self.layers[key]

    def _resolve_one(self, name: str, first: bool, last: bool) -> LayerConfig | None:
        key, layer = self.given(name)
        if layer is None:
            return None
        ranked = layer.rank is not None or layer.rank_ratio is not None
        fallback = self.method or ("planes" if self.rank_ratio is None else "response")
        method = layer.method or ("response" if ranked else fallback)
        if key == name and (ranked or layer.planes is not None or layer.penalty is not None):
            precision = "ternary"
        elif first:
            precision = self.first_layer or ("ternary" if method == "planes" else "int8")
        else:
            precision = self.last_layer if last else "ternary"
        if method == "planes":
            penalty = self.penalty if layer.penalty is None else layer.penalty
            size: dict[str, Any] = {"planes": layer.planes or self.planes, "penalty": penalty}
        else:
            size = {"rank": layer.rank, "rank_ratio": layer.rank_ratio}
            if not ranked:
                size["rank_ratio"] = RANK_RATIO if self.rank_ratio is None else self.rank_ratio
        return LayerConfig(precision=layer.precision or precision, method=method, **size)


def _matches(key: str, name: str) -> bool:
    return re.fullmatch(key[3:], name) is not None if key.startswith("re:") else key == name


def _checked_layers(layers: Any) -> dict[str, LayerConfig | None]:
    if not isinstance(layers, Mapping):
        raise ConfigError(f"layers must map layer names to settings, not {type(layers).__name__}")
    checked: dict[str, LayerConfig | None] = {}
    for key, value in layers.items():
        if not isinstance(key, str):
            raise ConfigError(f"a layer is named by a string, not {key!r}")
        if key.startswith("re:"):
            try:
                re.compile(key[3:])
            except re.error as error:
                raise ConfigError(f"the layer pattern {key!r} is no regular expression: {error}") from error
        if isinstance(value, Mapping):
            value = LayerConfig.from_dict(value)
        if value is not None and not isinstance(value, LayerConfig):
            raise ConfigError(f"the settings of layer {key!r} must be a LayerConfig, an object or null")
        checked[key] = value
    return checked


def _checked_budget(budget: Any) -> None:
    if not isinstance(budget, Mapping) or len(budget) != 1:
        raise ConfigError(f"budget must be one of {', '.join(BUDGETS)} with its amount, not {budget!r}")
    ((key, amount),) = budget.items()
    _choice("budget", key, BUDGETS)
    _number(f"budget {key}", amount, above=0.0)


def _known_keys(cls: type, values: Mapping[str, Any], what: str) -> None:
    names = [f.name for f in dataclasses.fields(cls)]
    for key in values:
        if key not in names:
            raise ConfigError(f"unknown {what} {key!r}{did_you_mean(str(key), names)}; known: {', '.join(names)}")


def _choice(name: str, value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        hint = did_you_mean(value, choices) if isinstance(value, str) else ""
        raise ConfigError(f"{name} must be {' or '.join(map(repr, choices))}, not {value!r}{hint}")


def _integer(name: str, value: Any, least: int, most: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        bounds = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ConfigError(f"{name} must be an integer {bounds}, not {value!r}")


def _number(name: str, value: Any, *, least: float | None = None, above: float | None = None) -> None:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not good or (least is not None and value < least) or (above is not None and value <= above):
        bounds = f"at least {least:g}" if least is not None else f"above {above:g}"
        raise ConfigError(f"{name} must be a finite number {bounds}, not {value!r}")
