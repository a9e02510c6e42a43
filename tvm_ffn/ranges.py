"""Scales of int8 tensors, chosen by the error they make and not by the largest value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from tvm import relax

from tvm_ffn.equalize import ChannelRatios
from tvm_ffn.graph import Network, Unit
from tvm_ffn.zero_points import may_have_zero_point

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


def choose_range(values: np.ndarray) -> tuple[float, int]:
    """The scale s and the integer z for 0 that minimise the mean squared error of ``s * (q - z)``,
    ``q = clip(rint(v / s) + z, -127, 127)``: the largest value is clipped as in `choose_scale`, then the smallest, then
    the largest again. (1.0, 0) if all values are zero."""
    ends = [float(min(values.min(initial=0.0), 0.0)), float(max(values.max(initial=0.0), 0.0))]
    if ends[0] == ends[1]:
        return 1.0, 0
    chosen = [1.0, 1.0]
    for side in (1, 0, 1) if ends[0] and ends[1] else (1 if ends[1] else 0,):
        errors = []
        for fraction in _FRACTIONS:
            chosen[side] = float(fraction)
            scale, zero = _spread(ends[0] * chosen[0], ends[1] * chosen[1])
            counts = np.clip(np.rint(values / np.float32(scale)), -INT8_LIMIT - zero, INT8_LIMIT - zero)
            errors.append(float(np.square(counts * np.float32(scale) - values, dtype=np.float32).mean()))
        chosen[side] = float(_FRACTIONS[int(np.argmin(errors))])
    return _spread(ends[0] * chosen[0], ends[1] * chosen[1])


def _spread(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point of the range from ``low`` to ``high``."""
    scale = (high - low) / (2 * INT8_LIMIT)
    return scale, round(-INT8_LIMIT - low / scale)


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
    have ratios."""

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
    """Ratios from the channels' ``peaks``, then the scale and zero point of every int8 variable from ``samples`` of its
    values; ``takes_offset`` see `zero_points`."""
    classes = scale_classes(network)
    free = may_have_zero_point(network, classes, takes_offset)
    sizes = {var: _sizes(both, classes[var] in free) for var, both in peaks.items()}
    ratios = ChannelRatios(network, stored_as_int8(network), sizes)
    pooled: dict[relax.Var, list[np.ndarray]] = {}
    for var, representative in classes.items():
        ratio = ratios.of(var)
        parts = [s.values if ratio is None else s.values / ratio[s.channels] for s in samples[var]]
        pooled.setdefault(representative, []).extend(parts)
    chosen = {var: _choose(np.concatenate(parts), var in free) for var, parts in pooled.items()}
    scales = {var: chosen[representative][0] for var, representative in classes.items()}
    zeros = {var: chosen[representative][1] for var, representative in classes.items()}
    ratios.bound(scales, {var: INT8_LIMIT - zero for var, zero in zeros.items()})
    found = {var: ratios.of(var) for var in scales}
    return Ranges(scales, {var: ratio for var, ratio in found.items() if ratio is not None}, zeros)


def _choose(values: np.ndarray, is_free: bool) -> tuple[float, int]:
    return choose_range(values) if is_free else (choose_scale(values, INT8_LIMIT), 0)


def _sizes(peaks: np.ndarray, is_free: bool) -> np.ndarray:
    """Of each channel (C,): its largest magnitude, or where positive and negative values have ranges of their own the
    larger part of the two that it fills, in units of the larger range."""
    ranges = peaks.max(1, keepdims=True)
    if is_free:
        peaks = peaks * (ranges.max() / np.where(ranges > 0, ranges, 1))
    return peaks.max(0)
