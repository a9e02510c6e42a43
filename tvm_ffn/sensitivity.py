"""What each layer costs the answers when it alone is factorised, and what accuracy its digits buy.

Once a model: every layer is factorised into digit planes at a few prices, quickly (the covariance in small diagonal
blocks, no beam), which gives a curve of response error over digits; and the fp32 network answers some samples with one
layer's weights replaced at a time. To first order the damage is proportional to the squared response error, and adds up
over layers: ``damage = sum_l sensitivity_l error_l^2``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import tvm

from tvm_ffn.comparison import damage
from tvm_ffn.factorize import factorize_planes, response_error
from tvm_ffn.graph import Unit, shape_of
from tvm_ffn.interpreter import Interpreter
from tvm_ffn.layer_rows import diagonal_blocks
from tvm_ffn.observation import Rows
from tvm_ffn.progress import progress
from tvm_ffn.unit_rows import positions

PENALTIES = (0.0005, 0.002, 0.008, 0.03, 0.12)
REFERENCE = 0.008  # the price at which the damage is measured: large against noise, small enough to be quadratic
SPAN = 1024  # inputs of a diagonal block
SAMPLES = 64


@dataclass(frozen=True)
class Sensitivity:
    """One layer: its curve over ``PENALTIES`` and the damage of one unit of squared relative response error.

    ``errors`` are squared and relative, ``digits`` the non-zero ones a weight; ``weights`` and ``positions`` (output
    positions a sample) give the layer's size, ``macs`` is their product over the groups' sharing.
    """

    damage_per_error: float
    errors: tuple[float, ...]
    digits: tuple[float, ...]
    weights: int
    positions: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one sample."""
        return self.weights * self.positions

    def at(self, penalty: float) -> tuple[float, float]:
        """Squared error and digits a weight at a price, interpolated in logarithms."""
        x, known = np.log(penalty), np.log(PENALTIES)
        error, digits = (np.log(np.maximum(values, 1e-9)) for values in (self.errors, self.digits))
        return float(np.exp(np.interp(x, known, error))), float(np.exp(np.interp(x, known, digits)))


def measure(
    mod: tvm.IRModule,
    layers: dict[Unit, Rows],
    batches: Iterable[dict[str, np.ndarray]],
    *,
    planes: int,
    ridge: float,
    threads: int | None,
) -> dict[Unit, Sensitivity]:
    """The sensitivity of every unit of ``layers``, whose fp32 inputs are in the rows, on the first of ``batches``."""
    if not layers:
        return {}
    curves, replaced = {}, {}
    for unit in progress(list(layers), "probing layers"):
        curves[unit], weight = _curve(unit, layers[unit].inputs, planes, ridge, threads)
        replaced[unit.index] = _as_operand(unit, weight)
    costs, changes = _damage(Interpreter(mod), replaced, batches)
    batch = int(mod["main"].params[0].ty.shape[0])
    found = {}
    for unit, (errors, digits) in curves.items():
        true = changes[unit.index] / (_energy(unit, layers[unit].inputs) or 1.0)
        seen = errors[PENALTIES.index(REFERENCE)]
        correction = true / seen if seen > 0 else 1.0
        corrected = tuple(error * correction for error in errors)
        slope = costs[unit.index] / true if true > 0 else 0.0
        found[unit] = Sensitivity(slope, corrected, digits, unit.weight.size, positions(unit) // batch)
    return found


Curve = tuple[tuple[float, ...], tuple[float, ...]]


def _curve(unit: Unit, inputs: np.ndarray, planes: int, ridge: float, threads: int | None) -> tuple[Curve, np.ndarray]:
    """Squared errors and digits over the penalties, and the weight (groups, m, n) at the reference."""
    errors, digits = np.zeros((2, len(PENALTIES)))
    weight = np.empty_like(unit.weight)
    for group, target in enumerate(unit.weight):
        metric = diagonal_blocks(inputs[:, group] - inputs[:, group].mean(0), ridge, SPAN)
        for place, penalty in enumerate(PENALTIES):
            factors = factorize_planes(
                target, planes=planes, penalty=penalty, gram=metric, rounds=1, sweeps=1, beam=1, threads=threads
            )
            errors[place] += response_error(target, factors, metric) ** 2 / unit.groups
            digits[place] += np.count_nonzero(factors.y) / unit.weight.size
            if penalty == REFERENCE:
                weight[group] = factors.weight()
    # The search is no exact one: what a higher price found by luck holds for the lower ones too.
    errors, digits = np.maximum.accumulate(errors), np.minimum.accumulate(digits)
    return (tuple(errors.tolist()), tuple(digits.tolist())), weight


def _energy(unit: Unit, inputs: np.ndarray) -> float:
    """Mean variance of the layer's responses, bias and residual apart."""
    responses = [inputs[:, group] @ weight.T for group, weight in enumerate(unit.weight)]
    return float(np.mean([response.var(0) for response in responses]))


def _as_operand(unit: Unit, weight: np.ndarray) -> np.ndarray:
    """A weight (groups, m, n) in the form of the call's second operand."""
    if unit.kind == "dense":
        return np.ascontiguousarray(weight[0].T)
    return weight.reshape(shape_of(unit.call.args[1]))


def _damage(
    interpreter: Interpreter, weights: dict[int, np.ndarray], batches: Iterable[dict[str, np.ndarray]]
) -> tuple[dict[int, float], dict[int, float]]:
    """Over ``SAMPLES`` samples, for each of ``weights`` alone by the place of its call: the mean damage, and the mean
    square of the change of the call's value."""
    total, changes, runs, seen = dict.fromkeys(weights, 0.0), dict.fromkeys(weights, 0.0), 0, 0
    for batch in progress(batches, "probing damage", None):
        altered: dict[int, Sequence[np.ndarray]] = {}
        for place, change, outputs in interpreter.alternatives(batch, weights):
            if place is not None:
                altered[place] = outputs
                changes[place] += float(np.square(change, dtype=np.float64).mean())
                continue
            for known, other in altered.items():
                total[known] += damage(outputs, other)
            runs += 1
        seen += len(next(iter(batch.values())))
        if seen >= SAMPLES:
            break
    return {k: v / max(runs, 1) for k, v in total.items()}, {k: v / max(runs, 1) for k, v in changes.items()}
