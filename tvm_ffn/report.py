"""What became of each layer: one row a layer, totals against fp32 and int8, as a table and as JSON.

Counts are for one sample. ``macs`` are the multiply-accumulates of the original layer; ``adds`` and ``multiplies``
what is executed instead, requantisation included. Bytes are of the weights as stored, and as int8 and fp32 would
store them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tvm_ffn.text_table import aligned, shortened

SUMS = ("macs", "adds", "multiplies", "weight_bytes", "int8_bytes", "fp32_bytes")


@dataclass(frozen=True)
class LayerRow:
    """One convolution or dense layer of the model."""

    name: str
    op: str  # "conv2d" or "matmul"
    shape: tuple[int, ...]  # of the weight, as the model has it
    output_shape: tuple[int, ...]
    kind: str  # "ternary", "int8" or "fp32"
    rank: int | None  # k, factorised layers only
    density_x: float | None  # share of non-zero entries
    density_y: float | None
    response_error: float | None  # ||(W - X diag(d) Y^T) H^1/2|| / ||W H^1/2||
    macs: int
    adds: int
    multiplies: int
    weight_bytes: int
    int8_bytes: int
    fp32_bytes: int
    kernel: str  # what runs
    reason: str = ""  # why it is not ternary
    groups: int = 1  # of a convolution; rank and densities are of one
    planes: int | None = None  # digits a weight can have, where X is identities side by side
    accumulated_error: float | None = None  # of the layer's response in the quantised network, relative
    damage: float | None = None  # expected of the layer alone, nats of KL divergence (outputs that are classes)
    task: Mapping[str, Any] | None = None  # what tuning would measure for it
    call: int = 0  # place among the calls of layers that are not fp32: one may wait for its residual
    packed_bytes: int | None = None  # of weights that are machine code, if they were not
    tuned: str = ""  # whether tuning had decided: "hit", "near" (for another density of the weights), "miss"

    @property
    def form(self) -> str:
        """What the weights are, in a word."""
        if self.planes:
            return f"{self.planes} planes"
        return "-" if self.rank is None else f"rank {self.rank}"

    @property
    def nonzeros(self) -> float | None:
        """Non-zero entries of the factors for each weight: X of digit planes is not counted, it costs nothing."""
        if self.rank is None or self.density_x is None or self.density_y is None:
            return None
        m, n = self.outputs_and_inputs
        entries = self.density_y * n * self.rank + (0 if self.planes else self.density_x * m * self.rank)
        return entries / (m * n)

    @property
    def outputs_and_inputs(self) -> tuple[int, int]:
        """m and n of one group's weight matrix."""
        if self.op == "matmul":
            return self.shape[-1], self.shape[-2]
        inputs = 1
        for extent in self.shape[1:]:
            inputs *= extent
        return self.shape[0] // self.groups, inputs

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LayerRow:
        """Build from one entry of a report's ``layers``."""
        known = {f.name for f in dataclasses.fields(cls)}
        row = {key: value for key, value in values.items() if key in known}
        row["shape"], row["output_shape"] = tuple(row["shape"]), tuple(row["output_shape"])
        return cls(**row)


@dataclass(frozen=True)
class Report:
    """The rows of all layers in topological order, with where they come from and what to mind."""

    layers: tuple[LayerRow, ...]
    model: str
    target: str
    warnings: tuple[str, ...] = ()
    held_out: dict[str, Any] | None = None  # figures of `comparison.Verification` on held-out calibration samples
    budget: dict[str, float] = dataclasses.field(default_factory=dict)
    operators: dict[str, str] = dataclasses.field(default_factory=dict)  # functions that are no layers: "hit", "miss"

    @property
    def totals(self) -> dict[str, int | float]:
        """Sums over the layers, and the ratios that matter (0.0 where there is nothing to compare with)."""
        sums: dict[str, int | float] = {key: sum(getattr(row, key) for row in self.layers) for key in SUMS}
        sums["layers"] = len(self.layers)
        sums["ternary_layers"] = sum(row.kind == "ternary" for row in self.layers)
        sums["code_bytes"] = sum(row.weight_bytes for row in self._rows_of_code)
        sums["weights_to_int8"] = _ratio(sums["weight_bytes"], sums["int8_bytes"])
        sums["weights_to_fp32"] = _ratio(sums["weight_bytes"], sums["fp32_bytes"])
        sums["adds_to_macs"] = _ratio(sums["adds"], sums["macs"])
        sums["multiplies_to_macs"] = _ratio(sums["multiplies"], sums["macs"])
        return sums

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict with the list ``layers``, ``totals``, ``model``, ``target`` and ``warnings``."""
        rows = [dataclasses.asdict(row) for row in self.layers]
        for row in rows:
            row["shape"], row["output_shape"] = list(row["shape"]), list(row["output_shape"])
        return {
            "model": self.model,
            "target": self.target,
            "layers": rows,
            "totals": self.totals,
            "warnings": list(self.warnings),
            "held_out": self.held_out,
            "budget": self.budget,
            "operators": self.operators,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Report:
        """Build from what :meth:`to_json` returned; the totals are computed anew."""
        rows = tuple(LayerRow.from_json(row) for row in values["layers"])
        known = {key: values[key] for key in ("held_out", "budget", "operators") if key in values}
        return cls(rows, values["model"], values["target"], tuple(values["warnings"]), **known)

    def table(self) -> str:
        """Return the report as text: a row a layer, totals, warnings."""
        head = (
            "layer",
            "op",
            "weight",
            "kind",
            "form",
            "nonzeros",
            "error",
            "MACs",
            "adds",
            "mults",
            "bytes",
            "kernel",
        )
        cells = [head, *(_cells(row) for row in self.layers)]
        lines = aligned(cells, left=(0, 1, 2, 3, len(head) - 1))
        lines += [f"  not ternary: {row.name}: {row.reason}" for row in self.layers if row.reason]
        lines += ["", *self.summary()]
        lines += [f"warning: {warning}" for warning in self.warnings]
        return "\n".join(lines)

    def summary(self) -> list[str]:
        """Lines of text: totals, and the figures of the held-out samples."""
        sums = self.totals
        return [
            f"model {self.model}, target {self.target}",
            f"{sums['ternary_layers']} of {sums['layers']} layers ternary; {_count(sums['macs'])} multiply-accumulates "
            f"became {_count(sums['adds'])} additions ({sums['adds_to_macs']:.2f}x) and {_count(sums['multiplies'])} "
            f"multiplies ({sums['multiplies_to_macs']:.4f}x)",
            f"weights {_count(sums['weight_bytes'])}B: {sums['weights_to_int8']:.2f}x of int8, "
            f"{sums['weights_to_fp32']:.3f}x of fp32",
            *self._code(),
            *self._tuning(),
            *self._held_out(),
        ]

    def _code(self) -> list[str]:
        rows = self._rows_of_code
        if not rows:
            return []
        code, packed = self.totals["code_bytes"], sum(row.packed_bytes or 0 for row in rows)
        return [f"of these {_count(code)}B are machine code of {len(rows)} layers, {_count(packed)}B if packed"]

    @property
    def _rows_of_code(self) -> list[LayerRow]:
        return [row for row in self.layers if row.packed_bytes is not None]

    def _tuning(self) -> list[str]:
        found = [sum(row.tuned == outcome for row in self.layers) for outcome in ("hit", "near", "miss")]
        hits = sum(outcome == "hit" for outcome in self.operators.values())
        if not any(found[:2]) and not hits:
            return []
        layers = f"tuned decisions: {found[0]} layers hit, {found[1]} at a near density, {found[2]} missed"
        return [f"{layers}; other operators: {hits} hit, {len(self.operators) - hits} missed"]

    def _held_out(self) -> list[str]:
        held = self.held_out
        if held is None:
            return ["no held-out calibration samples: the accuracy is not known"]
        figures = f"{held['samples']} held-out calibration samples: "
        if held["agreement"] is None:
            figures += f"relative error {max(held['relative_error'].values()):.4f}"
        else:
            figures += f"agreement with fp32 {100 * held['agreement']:.1f} %, KL {held['divergence']:.4f} nats"
        if held["expected_drop"] is not None:  # maps had none once
            figures += f", expected top-1 drop {held['expected_drop']:.2f} points"
        return [figures]


def _cells(row: LayerRow) -> tuple[str, ...]:
    optional = [
        row.form,
        "-" if row.nonzeros is None else f"{row.nonzeros:.2f}",
        "-" if row.response_error is None else f"{row.response_error:.3f}",
    ]
    counts = [_count(value) for value in (row.macs, row.adds, row.multiplies, row.weight_bytes)]
    return (shortened(row.name), row.op, "x".join(map(str, row.shape)), row.kind, *optional, *counts, row.kernel)


def _ratio(value: float, base: float) -> float:
    return value / base if base else 0.0


def _count(value: float) -> str:
    """Write 1234567 as "1.23 M"."""
    for unit in ("", " k", " M", " G"):
        if value < 1000:
            return f"{value:.0f}" if unit == "" else f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g} T"
