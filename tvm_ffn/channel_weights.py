"""How much an error in each output channel of a layer is heard behind it.

To first order, and with errors of different channels independent, a squared error g passes a layer backwards as

    g_in[c] = sum_o  g_out[o] active[o] sum_taps W[o, c, tap]^2

with ``active`` the share of positions at which the activation lets output o through. Residual sums, poolings and moves
pass it on. Only the ratios within a layer are used: what the layers mean to each other is measured (`sensitivity`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from tvm import relax

from tvm_ffn.graph import Network, Unit, shape_of
from tvm_ffn.observation import Rows

FLOOR = 1e-4  # of a layer's mean: no channel is given up


def channel_weights(network: Network, rows: Mapping[Unit, Rows]) -> dict[Unit, np.ndarray]:
    """For every linear unit the weights of its outputs (M,), of mean 1 over the outputs that carry energy."""
    heard: dict[relax.Var, np.ndarray] = {}
    found: dict[Unit, np.ndarray] = {}
    for unit in reversed(network.units):
        out = heard.get(unit.output)
        if out is None:
            out = np.ones(_channels(unit.output))
        if unit.is_linear:
            response = rows[unit].response
            out = out * _active(unit, response)
            found[unit] = _normalized(out, response)
            _add(heard, unit.inputs[0], _through(unit, out))
            if unit.residual is not None:
                _add(heard, unit.residual, out)
        elif unit.kind == "concat":
            start = 0
            for var in unit.inputs:
                _add(heard, var, out[start : start + _channels(var)])
                start += _channels(var)
        else:
            for var in unit.inputs:
                _add(heard, var, _spread(out, _channels(var)))
    return found


def _channels(var: relax.Var) -> int:
    shape = shape_of(var)
    return shape[1] if len(shape) in (3, 4) else shape[-1]


def _active(unit: Unit, response: np.ndarray) -> np.ndarray:
    a = unit.activation
    inside = (response > a.lo) & (response < a.hi)
    slope = np.where(response < 0, a.slope**2, 1.0) if a.slope != 1.0 else 1.0
    return (inside * slope).mean(0)


def _normalized(weights: np.ndarray, response: np.ndarray) -> np.ndarray:
    energy = response.var(0)
    mean = float((weights * energy).sum() / max(float(energy.sum()), np.finfo(np.float32).tiny))
    return np.maximum(weights / mean, FLOOR) if mean > 0 else np.ones_like(weights)


def _through(unit: Unit, out: np.ndarray) -> np.ndarray:
    groups, m, _ = unit.weight.shape
    passed = np.einsum("gmn,gm->gn", np.square(unit.weight, dtype=np.float64), out.reshape(groups, m))
    if unit.kind == "dense":
        return passed[0]
    taps = int(np.prod(shape_of(unit.call.args[1])[2:]))
    return passed.reshape(-1, taps).sum(1)


def _spread(out: np.ndarray, channels: int) -> np.ndarray:
    """To a tensor of another number of channels: flattened ones are summed, others heard alike."""
    if len(out) == channels:
        return out
    if channels and len(out) % channels == 0:
        return out.reshape(channels, -1).sum(1)
    return np.ones(channels)


def _add(heard: dict[relax.Var, np.ndarray], var: relax.Var, weights: np.ndarray) -> None:
    heard[var] = heard[var] + weights if var in heard else weights
