"""The form of a layer's weights where nobody chose one: what its kernel makes the best of.

A list of digits pays where every digit works on many positions at a time. A dense layer on few rows has no such kernel:
it takes factors of any form, in two bits an entry and without multiplies, and int8 where solving for them takes too
long or the network loses more with them than it may.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tvm_ffn.config import FFNConfig, LayerConfig
from tvm_ffn.graph import Network, Unit
from tvm_ffn.kernels.layer_kernel import FEW_ROWS
from tvm_ffn.unit_rows import positions

LARGEST = 1 << 21  # weights of a layer that is solved in some seconds
DENSE = LayerConfig(rank_ratio=1.0, precision="ternary", method="response")
"""Four tenths of int8's bytes where outputs and inputs are about as many. The object itself marks what nobody chose."""


def has_few_rows(unit: Unit) -> bool:
    """Whether vectors over a dense layer's rows would be too short, so that they run over its outputs."""
    return unit.kind == "dense" and positions(unit) < FEW_ROWS


def with_forms(
    network: Network, settings: Mapping[str, LayerConfig | None], config: FFNConfig
) -> dict[str, LayerConfig | None]:
    """The resolved ``settings`` with depthwise layers in int8, and with another form for ternary dense layers on few
    rows, unless ``config`` names a method, planes or a penalty for them."""
    found = dict(settings)
    for unit in network.linear:
        own, (_, given) = found[unit.name], config.given(unit.name)
        if own is None or given is None or own.precision != "ternary":
            continue
        if unit.is_depthwise:
            found[unit.name] = replace(own, precision="int8")
        chosen = config.method or given.method or given.planes or own.penalty is not None
        if has_few_rows(unit) and own.method == "planes" and not chosen:
            found[unit.name] = DENSE if unit.weight.size <= LARGEST else replace(own, precision="int8")
    return found


def without_factors(settings: Mapping[str, LayerConfig | None], config: FFNConfig) -> dict[str, LayerConfig | None]:
    """The ``settings`` of `with_forms` with int8 for the layers that it gave factors."""
    exact = LayerConfig(precision="int8", method="planes", planes=config.planes)
    return {name: exact if own is DENSE else own for name, own in settings.items()}
