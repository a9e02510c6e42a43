"""Choose the price of a digit in every layer so that the whole network keeps its answers for the least work.

With ``damage = sum_l s_l e_l^2`` (`sensitivity`) and the work ``sum_l c_l W_l digits_l`` of layers of W_l weights, the
best prices make one more digit worth the same everywhere. The solver minimises ``e^2 / 2 + penalty / W * digits``
(digits of the whole layer, the error relative), so for a common price p of work

    penalty_l = p c_l W_l / (2 s_l)

What was measured of a layer alone is trusted by a quarter: the layers behind it are fitted to what they really see, and
so repair much of what the first ones break. Between one s for all layers, the geometric mean, and s_l as measured lies
s_l^t. (KL to fp32 at .65 digits a MAC for t = 0, about 1/3, about 1/2, 1: cifar10_resnet20 .031 .029 .029 .036;
squeezenet1_1 .049 .049 .050 -; darknet_tiny .079 - .079 .097; resnet18 .029 .030 .036 -. One penalty for all layers,
whatever their positions: cifar10_resnet20 .031, squeezenet1_1 .091, darknet_tiny .116.)

A layer that is heard so well that its digits would take more bytes than int8 becomes int8, except within a budget of
additions. Where a solution has lost more than its budget, the layers behind did not repair so much. Then a layer's own
measure is believed when it chooses between the two forms, and it is int8 also where

    s_l e_l^2 + p c_l W_l digits_l > p c_l W_l INT8_WORK

c_l is the number of output positions where additions are counted (or time, which is proportional to them), 1 where
bytes are. p is found by bisection on the curves, which are monotone in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from tvm_ffn.config import LayerConfig
from tvm_ffn.graph import Unit
from tvm_ffn.plan import Plan, PlannedLayer
from tvm_ffn.sensitivity import PENALTIES, Sensitivity

EXPECTED_A_POINT = 0.04
"""Damage that may be expected for it: what is measured in the end is 0.3 to 0.8 of that, the layers behind repair. At
.05 one answer in twenty changes, and which way is a matter of chance: top-1 moves by .7 points either way."""
BYTES_PER_DIGIT = 1.2
"""In the packed form: a byte, its share of the lengths of lists, and what the solver may exceed the probe by."""
INT8_WORK = 1.1
"""What a multiply-accumulate of int8 counts where a layer chooses by its own measure, an addition counting 1: digits
need no multiply, so they stay where they do about as well. (mobilenet_v2, which is over its budget at first: KL .0227
instead of .0479 at .98 additions a MAC, most of it by its last projection. Chosen so from the first, others lose:
resnet18 .0195 instead of .0141 at .82 and .81 additions, cifar10_resnet20 .0186 instead of .0164 at .76.)"""
TRUST = 0.25
LEAST, MOST = PENALTIES[0], PENALTIES[-1]
_STEPS = 60


def make_plan(
    settings: Mapping[str, LayerConfig | None],
    measured: Mapping[Unit, Sensitivity],
    budget: Mapping[str, float],
    share: float = 1.0,
    *,
    repaired: bool = True,
) -> Plan:
    """Fill in the penalties of the ``measured`` layers for a ``share`` of a budget of one entry (`config.BUDGETS`); the
    settings of all others stay as they are. But for a budget of additions no layer takes more than int8's bytes, and so
    none more than an addition a MAC. ``repaired``: whether later layers are thought to repair where a layer would else
    be int8, within a budget of a drop; digits are always shared out so."""
    if not measured:
        return Plan({name: PlannedLayer(given) for name, given in settings.items()}, budget)
    ((goal, amount),) = budget.items()
    layers = _Layers(measured, by_bytes=goal == "bytes", int8=goal != "adds", alone=goal == "max_drop" and not repaired)
    if goal == "max_drop":
        price = layers.most(layers.damage, amount * share * EXPECTED_A_POINT)
    else:
        price = layers.least(layers.bytes if goal == "bytes" else layers.adds, amount * share)
    chosen = {unit.name: choice for unit, choice in layers.choices(price).items()}
    return Plan({name: _planned(given, chosen.get(name)) for name, given in settings.items()}, budget)


@dataclass(frozen=True)
class _Choice:
    """What one layer gets at some price: squared error and work of its form, an addition a MAC counting 1; ``heard``
    is the damage of a unit of error, as far as it is trusted."""

    layer: Sensitivity
    heard: float
    penalty: float
    int8: bool
    error: float
    digits: float

    @property
    def damage(self) -> float:
        return self.heard * self.error

    @property
    def bytes(self) -> float:
        """A weight."""
        return 1.0 if self.int8 else self.digits * BYTES_PER_DIGIT


class _Layers:
    """All layers to be planned, as functions of the common price of work; ``int8`` says whether layers may be that
    where digits take more: one addition a MAC, one byte a weight and no error; ``alone`` whether by their own measures
    too."""

    def __init__(self, layers: Mapping[Unit, Sensitivity], *, by_bytes: bool, int8: bool, alone: bool) -> None:
        self._layers, self._by_bytes, self._int8, self._alone = layers, by_bytes, int8, alone
        self._heard = _trusted(layers)

    def choices(self, price: float) -> dict[Unit, _Choice]:
        """The best form of every layer."""
        return {unit: self._choose(layer, self._heard[unit], price) for unit, layer in self._layers.items()}

    def _choose(self, layer: Sensitivity, heard: float, price: float) -> _Choice:
        work = price * layer.weights * (1 if self._by_bytes else layer.positions)
        penalty = float(np.clip(work / (2 * heard), LEAST, MOST)) if heard > 0 else MOST
        error, digits = layer.at(penalty)
        planes = _Choice(layer, heard, penalty, False, error, digits)
        hurts = self._alone and layer.damage_per_error * error > work * (INT8_WORK - digits)
        return _Choice(layer, heard, penalty, True, 0.0, 1.0) if self._int8 and (hurts or planes.bytes > 1) else planes

    def damage(self, price: float) -> float:
        """Of all layers together."""
        return sum(choice.damage for choice in self.choices(price).values())

    def adds(self, price: float) -> float:
        """A multiply-accumulate."""
        work = sum(choice.layer.macs * choice.digits for choice in self.choices(price).values())
        return work / sum(layer.macs for layer in self._layers.values())

    def bytes(self, price: float) -> float:
        """A weight."""
        stored = sum(choice.layer.weights * choice.bytes for choice in self.choices(price).values())
        return stored / sum(layer.weights for layer in self._layers.values())

    @staticmethod
    def least(falling: Callable[[float], float], limit: float) -> float:
        """The smallest price at which a quantity that falls with it is within ``limit``."""
        return _bisect(lambda price: falling(price) <= limit)[1]

    @staticmethod
    def most(rising: Callable[[float], float], limit: float) -> float:
        """The largest price at which a quantity that rises with it is within ``limit``."""
        return _bisect(lambda price: rising(price) > limit)[0]


def _trusted(measured: Mapping[Unit, Sensitivity]) -> dict[Unit, float]:
    heard = [s.damage_per_error for s in measured.values() if s.damage_per_error > 0]
    common = np.exp(np.mean(np.log(heard))) if heard else 1.0
    return {unit: float(s.damage_per_error**TRUST * common ** (1 - TRUST)) for unit, s in measured.items()}


def _bisect(reached: Callable[[float], bool]) -> tuple[float, float]:
    """The price at which ``reached`` becomes true, from below and from above."""
    low, high = -90.0, 60.0  # logarithms: from all layers at the least penalty to all at the most
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if reached(np.exp(middle)) else (middle, high)
    return float(np.exp(low)), float(np.exp(high))


def _planned(given: LayerConfig | None, choice: _Choice | None) -> PlannedLayer:
    if given is None or choice is None:
        return PlannedLayer(given)
    settings = replace(given, penalty=choice.penalty, precision="int8" if choice.int8 else given.precision)
    return PlannedLayer(settings, choice.layer.macs, choice.digits, float(np.sqrt(choice.error)), choice.damage)
