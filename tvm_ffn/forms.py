"""The form of a layer's weights where nobody chose one: what its kernel makes the best of.

A list of digits pays where every digit works on many positions at a time. A dense layer on few rows has no such kernel:
it takes factors of any form, in two bits an entry and without multiplies, and int8 where solving for them takes too
long.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tvm_ffn.config import LayerConfig
from tvm_ffn.graph import Network, Unit
from tvm_ffn.unit_rows import positions

FEW_ROWS = 8  # below this many rows the vectors of a dense layer's kernels run over outputs
LARGEST = 1 << 21  # weights of a layer that is solved in some seconds
RANK_RATIO = 1.0  # four tenths of int8's bytes where outputs and inputs are about as many


def has_few_rows(unit: Unit) -> bool:
    """Whether vectors over a dense layer's rows would be too short, so that they run over its outputs."""
    return unit.kind == "dense" and positions(unit) < FEW_ROWS


def with_forms(network: Network, settings: Mapping[str, LayerConfig | None]) -> dict[str, LayerConfig | None]:
    """The settings with another form for ternary dense layers on few rows that have digit planes without a price."""
    found = dict(settings)
    for unit in network.linear:
        own = found[unit.name]
        if own is None or own.precision != "ternary" or own.method != "planes" or own.penalty is not None:
            continue
        if has_few_rows(unit):
            small = unit.weight.size <= LARGEST
            ranked = LayerConfig(rank_ratio=RANK_RATIO, precision="ternary", method="response")
            found[unit.name] = ranked if small else replace(own, precision="int8")
    return found
