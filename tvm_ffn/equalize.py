"""A ratio for every channel of an int8 tensor, so that channels of small values use the whole range too.

    x[c] = scale * ratio[c] * (q[c] - zero)

Ratios cost nothing where the tensor is written and read by layers: a layer's epilogue has a scale an output anyway, and
the weights that read it take the ratio of their input, W' = W diag(ratio), before they are quantised. (Equalisation
across layers, Nagel et al., arXiv 1906.04721, for activations instead of weights, and for any number of readers.)
Sums, maxima and activations keep the ratios of what they read, a concatenation strings them together; a tensor that
anything else reads or writes has none. Not even one that is averaged: its channels are often the classes themselves,
most of which are silent on the calibration data.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from tvm import relax

from tvm_ffn.graph import Network, Unit, shape_of

_SAME_CHANNELS = ("add", "max_pool2d", "activation")
SMALLEST = 1 / 16
"""Of the largest ratio of a tensor: a channel that the calibration data hardly moves may be another's loudest."""


class ChannelRatios:
    """The ratios of a network's int8 tensors (N, C, H, W), equal where channels are passed on."""

    def __init__(self, network: Network, stored: Collection[relax.Var], sizes: Mapping[relax.Var, np.ndarray]) -> None:
        """``sizes`` (C,) are the channels' largest magnitudes in real units, for every tensor of ``stored`` with four
        axes."""
        self._network = network
        classes = _Classes([var for var in stored if len(shape_of(var)) == 4])
        for unit in network.units:
            _join(classes, unit)
        fixed = {var for unit in network.units for var in _fixed_by(unit)} | _bounded_sums(network)
        fixed |= {*network.parameters, *(out for out in network.outputs if isinstance(out, relax.Var))}
        self._classes = classes.without(fixed)
        self._values = np.zeros(classes.total, np.float32)
        for var, own in self._classes.items():
            np.maximum.at(self._values, own, sizes[var].astype(np.float32))
        least = np.zeros_like(self._values)
        for own in self._classes.values():
            np.maximum.at(least, own, SMALLEST * self._values[own].max())
        self._values = np.maximum(self._values, least)
        self._values[self._values == 0] = 1.0

    def of(self, var: relax.Var) -> np.ndarray | None:
        """The ratios of a tensor, float32 (C,), or None."""
        return self._values[self._classes[var]] if var in self._classes else None

    def bound(self, scales: Mapping[relax.Var, float], limits: Mapping[relax.Var, int]) -> None:
        """Make ratios so small that the tensor's limit of steps is no more than the upper bound of the activation that
        writes it, in every channel: then all of them are clipped there."""
        for unit in self._network.units:
            own = self._classes.get(unit.output)
            if own is not None and np.isfinite(unit.activation.hi):
                most = unit.activation.hi / (limits[unit.output] * scales[unit.output])
                np.minimum.at(self._values, own, np.float32(most))


def _join(classes: _Classes, unit: Unit) -> None:
    if unit.residual is not None:
        classes.join(unit.residual, unit.output)
    if unit.kind in _SAME_CHANNELS:
        for var in unit.inputs:
            classes.join(var, unit.output)
    elif unit.kind == "concat" and _strings_channels(unit):
        start = 0
        for field in unit.call.args[0].fields:
            classes.join(field, unit.output, start)
            start += shape_of(field)[1]


def _strings_channels(unit: Unit) -> bool:
    """Whether a concatenation is one along the channels."""
    axis = unit.call.attrs.axis
    return axis is not None and int(axis) % len(shape_of(unit.output)) == 1


def _bounded_sums(network: Network) -> set[relax.Var]:
    """Operands and results of sums in which a tensor has an upper bound: `bound` would make all their ratios small."""
    bounded: set[relax.Var] = set()
    found: set[relax.Var] = set()
    for unit in network.units:
        passed_on = unit.kind in ("max_pool2d", "concat", "view") and not bounded.isdisjoint(unit.inputs)
        if np.isfinite(unit.activation.hi) or passed_on:
            bounded.add(unit.output)
        operands = {*unit.inputs} if unit.kind in ("add", "activation") else set()
        operands |= {unit.residual} if unit.residual is not None else set()
        if operands and not bounded.isdisjoint({*operands, unit.output}):
            found |= {*operands, unit.output}
    return found


def _fixed_by(unit: Unit) -> set[relax.Var]:
    """Tensors that cannot have ratios because of how the unit reads or writes them."""
    touched = {*unit.reads, unit.output}
    odd = unit.activation.lo not in (0.0, -np.inf) or unit.activation.hi <= 0
    if unit.kind == "concat":
        return set() if _strings_channels(unit) else touched
    if unit.kind in _SAME_CHANNELS or unit.kind in ("conv2d", "affine"):
        return {unit.output} if odd else set()
    return touched


class _Classes:
    """Channels of tensors, joined where they must share a ratio; a channel is named by a number."""

    def __init__(self, tensors: Collection[relax.Var]) -> None:
        self.total = 0
        self._names: dict[relax.Var, np.ndarray] = {}
        for var in tensors:
            channels = shape_of(var)[1]
            self._names[var] = np.arange(self.total, self.total + channels)
            self.total += channels
        self._pairs: list[tuple[np.ndarray, np.ndarray]] = []

    def join(self, var: relax.Expr, other: relax.Var, start: int = 0) -> None:
        """Channel c of ``var`` is channel ``start + c`` of ``other``; without effect for tensors that have no names."""
        if var in self._names and other in self._names:
            own = self._names[var]
            self._pairs.append((own, self._names[other][start : start + len(own)]))

    def without(self, fixed: Collection[relax.Var]) -> dict[relax.Var, np.ndarray]:
        """The class of each channel of the tensors that share none, directly or not, with a ``fixed`` one."""
        root = self._representatives()
        classes = {var: root[names] for var, names in self._names.items()}
        while True:
            taken = {name for var, own in classes.items() if var in fixed for name in own.tolist()}
            more = {v for v, own in classes.items() if v not in fixed and not taken.isdisjoint(own.tolist())}
            if not more:
                return {var: own for var, own in classes.items() if var not in fixed}
            fixed = {*fixed, *more}

    def _representatives(self) -> np.ndarray:
        """The smallest number of the class of every channel."""
        root, before = np.arange(self.total), None
        while before is None or (root != before).any():
            before = root.copy()
            for first, second in self._pairs:
                least = np.minimum(root[first], root[second])
                root[first], root[second] = least, least
        return root
