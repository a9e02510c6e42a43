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

c_l is the number of output positions where additions are counted (or time, which is proportional to them), 1 where
bytes are. p is found by bisection on the curves, which are monotone in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from tvm_ffn.config import LayerConfig
from tvm_ffn.graph import Unit
from tvm_ffn.plan import Plan, PlannedLayer
from tvm_ffn.sensitivity import PENALTIES, Sensitivity

DAMAGE_PER_POINT = 0.03
"""Damage that costs about a point of top-1: half of what was measured, since the prediction is of the first order."""
BYTES_PER_DIGIT = 1.2
"""In the packed form: a byte, its share of row numbers and counts."""
TRUST = 0.25
LEAST, MOST = PENALTIES[0], PENALTIES[-1]
_STEPS = 60


def make_plan(
    settings: Mapping[str, LayerConfig | None],
    measured: Mapping[Unit, Sensitivity],
    budget: Mapping[str, float],
    share: float = 1.0,
) -> Plan:
    """Fill in the penalties of the ``measured`` layers for a ``share`` of a budget of one entry (`config.BUDGETS`); the
    settings of all others stay as they are. A plan for a drop keeps within one addition a MAC and int8's bytes,
    whatever the drop."""
    by_bytes = "bytes" in budget
    layers = _trusted(measured)
    ((goal, amount),) = budget.items()
    amount *= share

    def penalties(price: float) -> dict[Unit, float]:
        return {unit: _penalty(s, price * (1 if by_bytes else s.positions)) for unit, s in layers.items()}

    def total(price: float, amount_of: Callable[[Sensitivity, float, float], float]) -> float:
        found = penalties(price)
        return sum(amount_of(s, *s.at(found[unit])) for unit, s in layers.items())

    def damage(price: float) -> float:
        return total(price, lambda s, error, _: s.damage_per_error * error)

    def adds(price: float) -> float:
        return total(price, lambda s, _, digits: s.macs * digits) / sum(s.macs for s in layers.values())

    def stored(price: float) -> float:
        bytes_ = total(price, lambda s, _, digits: s.weights * digits * BYTES_PER_DIGIT)
        return bytes_ / sum(s.weights for s in layers.values())

    if not layers:
        return Plan({name: PlannedLayer(given) for name, given in settings.items()}, budget)
    if goal == "max_drop":
        price = max(_largest(adds, 1.0), _largest(stored, 1.0), _smallest(damage, amount * DAMAGE_PER_POINT))
    else:
        price = _largest(stored if by_bytes else adds, amount)
    chosen = {unit.name: (s, penalties(price)[unit]) for unit, s in layers.items()}
    return Plan({name: _planned(given, chosen.get(name)) for name, given in settings.items()}, budget)


def _trusted(measured: Mapping[Unit, Sensitivity]) -> dict[Unit, Sensitivity]:
    heard = [s.damage_per_error for s in measured.values() if s.damage_per_error > 0]
    common = np.exp(np.mean(np.log(heard))) if heard else 1.0
    return {
        unit: replace(s, damage_per_error=float(s.damage_per_error**TRUST * common ** (1 - TRUST)))
        for unit, s in measured.items()
    }


def _penalty(layer: Sensitivity, price: float) -> float:
    if layer.damage_per_error <= 0:
        return MOST
    return float(np.clip(price * layer.weights / (2 * layer.damage_per_error), LEAST, MOST))


def _largest(falling: Callable[[float], float], limit: float) -> float:
    """The smallest price at which a quantity that falls with the price is within ``limit``."""
    return _bisect(lambda price: falling(price) <= limit)


def _smallest(rising: Callable[[float], float], limit: float) -> float:
    """The largest price at which a quantity that rises with the price is within ``limit``."""
    return _bisect(lambda price: rising(price) > limit)


def _bisect(reached: Callable[[float], bool]) -> float:
    low, high = -90.0, 60.0  # logarithms: from all layers at the least penalty to all at the most
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if reached(np.exp(middle)) else (middle, high)
    return float(np.exp(high))


def _planned(given: LayerConfig | None, chosen: tuple[Sensitivity, float] | None) -> PlannedLayer:
    if given is None or chosen is None:
        return PlannedLayer(given)
    layer, penalty = chosen
    error, digits = layer.at(penalty)
    return PlannedLayer(
        replace(given, penalty=penalty),
        layer.macs,
        digits,
        float(np.sqrt(error)),
        layer.damage_per_error * error,
    )
