"""One pass of the fp32 network over the calibration data: samples of every int8 tensor, responses of every layer.

Positions are drawn once, with the configuration's seed; the quantised network is later read at the same positions, so
that the two can be compared row by row without keeping any whole activation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

from tvm_ffn.errors import DataError
from tvm_ffn.graph import Network, Unit
from tvm_ffn.interpreter import Interpreter
from tvm_ffn.ranges import stored_as_int8

VALUES_A_TENSOR = 200_000  # sampled for the choice of a scale


@dataclass(frozen=True)
class Rows:
    """Sampled output positions of one layer over all calibration samples.

    ``index``: sorted flat positions (sample * positions a sample + position), ``response``: float32 (rows, M), the fp32
    network's output there before the activation, a residual included.
    """

    index: np.ndarray
    response: np.ndarray


@dataclass(frozen=True)
class Observation:
    """What the fp32 pass saw."""

    samples: dict[relax.Var, list[np.ndarray]]
    rows: dict[Unit, Rows]
    count: int


def rows_of(response: np.ndarray, kind: str) -> np.ndarray:
    """A layer's output as (positions, channels): NCHW for a convolution, features last for a dense layer. A view."""
    if kind == "conv2d":
        return response.transpose(0, 2, 3, 1).reshape(-1, response.shape[1])
    return response.reshape(-1, response.shape[-1])


def observe(
    mod: tvm.IRModule,
    network: Network,
    batches: Iterable[dict[str, np.ndarray]],
    *,
    count: int,
    rows: int,
    seed: int,
) -> Observation:
    """Run the fp32 graph on ``batches`` of together ``count`` samples; about ``rows`` positions are kept a layer."""
    interpreter = Interpreter(mod)
    rng = np.random.default_rng(seed)
    wanted = stored_as_int8(network)
    layers = {unit.response: unit for unit in network.linear}
    samples: dict[relax.Var, list[np.ndarray]] = {var: [] for var in wanted}
    index: dict[Unit, list[np.ndarray]] = {unit: [] for unit in layers.values()}
    response: dict[Unit, list[np.ndarray]] = {unit: [] for unit in layers.values()}
    seen: dict[Unit, int] = dict.fromkeys(layers.values(), 0)
    part = 0.0  # of all samples, in the current run of the graph
    for batch in batches:
        for var, value in interpreter.values(batch):
            if var.same_as(network.parameters[0]):
                part = len(value) / count
            if var in wanted:
                if not np.isfinite(value).all():
                    raise DataError(f"the model computes NaN or infinity on the calibration data, at '{var.name}'")
                flat = value.reshape(-1)
                size = max(1, min(flat.size, round(VALUES_A_TENSOR * part)))
                samples[var].append(flat[rng.integers(0, flat.size, size)].astype(np.float32))
            if var in layers:
                unit = layers[var]
                positions = rows_of(value, unit.kind)
                size = max(1, min(len(positions), round(rows * part)))
                chosen = np.sort(rng.choice(len(positions), size, replace=False))
                index[unit].append(chosen + seen[unit])
                response[unit].append(positions[chosen])
                seen[unit] += len(positions)
    kept = {unit: Rows(np.concatenate(index[unit]), np.concatenate(response[unit])) for unit in layers.values()}
    return Observation(samples, kept, count)
