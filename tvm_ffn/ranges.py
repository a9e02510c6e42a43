"""Scales of int8 tensors, chosen by the error they make and not by the largest value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from tvm import relax

from tvm_ffn.equalize import ChannelRatios
from tvm_ffn.graph import Network, Unit
from tvm_ffn.zero_points import zero_points

INT8_LIMIT = 127
_FRACTIONS = np.linspace(0.2, 1.0, 41, dtype=np.float32)


def choose_scale(values: np.ndarray, limit: int) -> float:
    """The scale s that minimises the mean squared error of ``s * clip(rint(v / s), -limit, limit)``, searched over
    clipping points from 0.2 to 1 of the largest magnitude. 1.0 if all values are zero."""
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0.0:
        return 1.0
    errors = []
    for fraction in _FRACTIONS:
        scale = fraction * largest / np.float32(limit)
        rounded = np.clip(np.rint(values / scale), -limit, limit) * scale
        errors.append(float(np.square(rounded - values, dtype=np.float32).mean()))
    return float(_FRACTIONS[int(np.argmin(errors))]) * largest / limit


def direct_float(unit: Unit, network: Network) -> bool:
    """Whether the unit's kernel writes fp32 straight from its integer sum, no int8 in between."""
    simple = unit.residual is None and unit.activation.slope == 1.0
    return (unit.is_linear or unit.kind == "avg_pool2d") and simple and unit.output not in network.integer_inputs


def stored_as_int8(network: Network) -> set[relax.Var]:
    """Variables that exist as int8 tensors."""
    written = {u.output for u in network.units if u.is_integer and not direct_float(u, network)}
    return network.integer_inputs | written


def scale_classes(network: Network) -> dict[relax.Var, relax.Var]:
    """Representative of each int8 variable's class: a view, a maximum and a concatenation keep the scale."""
    parent = {var: var for var in stored_as_int8(network)}

    def find(var: relax.Var) -> relax.Var:
        while not parent[var].same_as(var):
            var = parent[var]
        return var

    for unit in network.units:
        if unit.kind in ("view", "concat", "max_pool2d"):
            for var in unit.inputs:
                parent[find(var)] = find(unit.output)
    return {var: find(var) for var in parent}


@dataclass(frozen=True)
class Sample:
    """Some values of a tensor, float32 (n,), and the channels (second axis of four) they are of, int64 (n,)."""

    values: np.ndarray
    channels: np.ndarray


@dataclass(frozen=True)
class Ranges:
    """What the integers of every int8 variable mean: ``x = scale * ratio[channel] * (q - zero)``; not all variables
    have ratios or a zero other than 0."""

    scales: Mapping[relax.Var, float]
    ratios: Mapping[relax.Var, np.ndarray]
    zeros: Mapping[relax.Var, int]

    def zero(self, var: relax.Var) -> int:
        """The integer that stands for 0."""
        return self.zeros.get(var, 0)

    def to_integers(self, var: relax.Var, value: np.ndarray) -> np.ndarray:
        """A real tensor as int8."""
        shifted = np.rint(value / self.step(var)) + np.float32(self.zero(var))
        return np.clip(shifted, -INT8_LIMIT, INT8_LIMIT).astype(np.int8)

    def counts(self, var: relax.Var, integers: np.ndarray) -> np.ndarray:
        """``q - zero`` as float32."""
        return integers.astype(np.float32) - np.float32(self.zero(var))

    def step(self, var: relax.Var) -> np.ndarray:
        """Real value of one step: float32 (1,), or (C, 1, 1) to multiply a tensor (N, C, H, W) with."""
        scale = np.float32(self.scales[var])
        return self.ratios[var][:, None, None] * scale if var in self.ratios else np.array([scale])

    def channel_steps(self, var: relax.Var, channels: int) -> np.ndarray:
        """The same as float64 (channels,)."""
        ratio = self.ratios[var] if var in self.ratios else np.ones(channels)
        return self.scales[var] * ratio.astype(np.float64)

    def weight(self, unit: Unit) -> np.ndarray:
        """A linear unit's fp32 weight (groups, m, n) as it acts on inputs divided by their ratios."""
        ratio = self.ratios.get(unit.inputs[0])
        if ratio is None:
            return unit.weight
        groups, _, n = unit.weight.shape
        return unit.weight * np.repeat(ratio.reshape(groups, -1), n * groups // len(ratio), axis=1)[:, None]


def choose_ranges(
    network: Network,
    samples: Mapping[relax.Var, Iterable[Sample]],
    peaks: Mapping[relax.Var, np.ndarray],
    takes_offset: Callable[[Unit], bool],
) -> Ranges:
    """Ratios from the channels' ``peaks``, then the scale of every int8 variable from ``samples`` of its values;
    ``takes_offset`` see `zero_points`."""
    ratios = ChannelRatios(network, stored_as_int8(network), peaks)
    classes = scale_classes(network)
    zeros = zero_points(network, classes, takes_offset)
    limits = {var: INT8_LIMIT - zeros.get(var, 0) for var in classes}
    pooled: dict[relax.Var, list[np.ndarray]] = {}
    for var, representative in classes.items():
        ratio = ratios.of(var)
        parts = [s.values if ratio is None else s.values / ratio[s.channels] for s in samples[var]]
        pooled.setdefault(representative, []).extend(parts)
    chosen = {var: choose_scale(np.concatenate(parts), limits[var]) for var, parts in pooled.items()}
    scales = {var: chosen[representative] for var, representative in classes.items()}
    ratios.bound(scales, limits)
    found = {var: ratios.of(var) for var in scales}
    return Ranges(scales, {var: ratio for var, ratio in found.items() if ratio is not None}, zeros)
