"""A solved network as plain arrays and back, for the cache. Units and variables are named by their place."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from tvm import relax

from tvm_ffn.comparison import Verification
from tvm_ffn.factorize import Factors
from tvm_ffn.graph import Network
from tvm_ffn.plan import Plan
from tvm_ffn.ranges import Ranges
from tvm_ffn.solution import LayerSolution, QuantizedNetwork

_FACTORS = tuple(f.name for f in dataclasses.fields(Factors))
_ARRAYS = ("bias", "weight", "weight_scale")  # of a LayerSolution; the others are numbers and text


def to_arrays(quantized: QuantizedNetwork) -> dict[str, np.ndarray]:
    """All that `from_arrays` needs beside the network itself."""
    place = {unit: index for index, unit in enumerate(quantized.network.units)}
    ranges, variables = quantized.ranges, list(enumerate(_variables(quantized.network)))
    scaled = [(index, ranges.scales[var]) for index, var in variables if var in ranges.scales]
    arrays = {"scaled": np.array(scaled, np.float64).reshape(-1, 2)}
    arrays["zeros"] = np.array([ranges.zero(var) for _, var in variables], np.int8)
    arrays |= {f"ratio.{index}": ranges.ratios[var] for index, var in variables if var in ranges.ratios}
    layers = {}
    for unit, solution in quantized.layers.items():
        values = {f.name: getattr(solution, f.name) for f in dataclasses.fields(solution)}
        factors = values.pop("factors")
        own = {name: values.pop(name) for name in _ARRAYS}
        layers[place[unit]] = values | {"groups": len(factors)}
        arrays |= {f"{place[unit]}.{name}": value for name, value in own.items() if value is not None}
        arrays |= {f"{place[unit]}.{g}.{key}": getattr(f, key) for g, f in enumerate(factors) for key in _FACTORS}
    held_out = None if quantized.held_out is None else dataclasses.asdict(quantized.held_out)
    whole = {"middle_bits": quantized.middle_bits, "plan": quantized.plan.to_json(), "held_out": held_out}
    head = json.dumps({**whole, "layers": layers})
    return arrays | {"head": np.frombuffer(head.encode(), np.uint8)}


def from_arrays(arrays: Mapping[str, np.ndarray], network: Network) -> QuantizedNetwork:
    """The solution of ``network``. Raises KeyError, ValueError, TypeError or IndexError for arrays that are not its."""
    head = json.loads(arrays["head"].tobytes())
    variables = _variables(network)
    scales = {variables[int(index)]: float(scale) for index, scale in arrays["scaled"]}
    ratios = {var: arrays[f"ratio.{i}"] for i, var in enumerate(variables) if f"ratio.{i}" in arrays}
    zeros = {variables[i]: int(zero) for i, zero in enumerate(arrays["zeros"]) if zero}
    layers = {}
    for key, values in head["layers"].items():
        groups = values.pop("groups")
        factors = tuple(Factors(**{name: arrays[f"{key}.{g}.{name}"] for name in _FACTORS}) for g in range(groups))
        own: dict[str, Any] = {name: arrays[f"{key}.{name}"] for name in _ARRAYS if f"{key}.{name}" in arrays}
        layers[network.units[int(key)]] = LayerSolution(**values, **own, factors=factors)
    shapes = {unit: solution.effective_weight.shape for unit, solution in layers.items()}
    if shapes != {unit: unit.weight.shape for unit in network.linear}:
        raise ValueError("it solves other layers than this network's")
    held_out = None if head["held_out"] is None else Verification(**head["held_out"])
    return QuantizedNetwork(
        network, Ranges(scales, ratios, zeros), layers, head["middle_bits"], Plan.from_json(head["plan"]), held_out
    )


def _variables(network: Network) -> list[relax.Var]:
    """Parameters, then what the units read and write, each once."""
    every = [var for unit in network.units for var in (*unit.reads, unit.output)]
    return list(dict.fromkeys([*network.parameters, *every]))
