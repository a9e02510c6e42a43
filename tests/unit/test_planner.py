"""The planner on made-up layers: budgets are met, digits go where they are worth most, limits hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ffn.config import LayerConfig
from tvm_ffn.planner import BYTES_PER_DIGIT, EXPECTED_A_POINT, INT8_WORK, TRUST, make_plan
from tvm_ffn.sensitivity import PENALTIES, Sensitivity

OPEN = LayerConfig(precision="ternary", method="planes", planes=6)


def layer(damage: float, weights: int = 1000, positions: int = 100, richness: float = 1.0) -> Sensitivity:
    """Errors that halve and digits that grow as the price falls, as real layers' do."""
    p = np.array(PENALTIES)
    errors, digits = 0.2 * p**0.85, richness * (0.75 + 0.16 * np.log(0.01 / p))
    return Sensitivity(damage, tuple(errors), tuple(np.maximum(digits, 0.05)), weights, positions)


def plan_of(
    layers: dict[str, Sensitivity], budget: dict[str, float], *, repaired: bool = True, **rest: LayerConfig | None
) -> Any:
    measured: Any = {_Named(name): value for name, value in layers.items()}
    named: dict[str, LayerConfig | None] = dict.fromkeys(layers, OPEN)
    return make_plan({**named, **rest}, measured, budget, repaired=repaired)


class _Named:
    """A unit as far as the planner knows it."""

    def __init__(self, name: str) -> None:
        self.name = name


def penalty(plan: Any, name: str) -> float:
    return float(plan.layers[name].settings.penalty)


@given(
    damages=st.lists(st.floats(0.01, 100), min_size=1, max_size=8),
    amount=st.floats(0.45, 0.8),
    goal=st.sampled_from(["adds", "bytes"]),
)
@settings(deadline=None, max_examples=50)
def test_budgets_of_work_and_bytes_are_kept_and_used(damages: list[float], amount: float, goal: str) -> None:
    layers = {f"l{i}": layer(d, weights=1000 * (i + 1), positions=10 * (9 - i)) for i, d in enumerate(damages)}
    plan = plan_of(layers, {goal: amount})
    size = {name: s.weights * (s.positions if goal == "adds" else 1) for name, s in layers.items()}

    def each(name: str) -> float:
        planned = plan.layers[name]
        if planned.settings.precision == "int8":
            assert goal == "bytes"
            return 1.0
        return float(planned.digits * (BYTES_PER_DIGIT if goal == "bytes" else 1.0))

    used = sum(size[name] * each(name) for name in layers) / sum(size.values())
    assert used <= amount * 1.001
    at_the_end = [penalty(plan, name) in (PENALTIES[0], PENALTIES[-1]) for name in layers]
    assert used >= amount * 0.99 or any(at_the_end) or goal == "bytes"


def test_the_last_digit_is_worth_the_same_everywhere() -> None:
    layers = {"a": layer(3.0), "b": layer(1.0, weights=4000), "c": layer(3.0, positions=50)}
    plan = plan_of(layers, {"adds": 0.7})
    worth = [penalty(plan, n) * 2 * s.damage_per_error**TRUST / s.macs for n, s in layers.items()]
    np.testing.assert_allclose(worth, worth[0], rtol=1e-6)
    assert penalty(plan, "a") > penalty(plan, "c")


def test_a_drop_is_the_sum_of_damages() -> None:
    layers = {"a": layer(2.5), "b": layer(1.5)}
    plan = plan_of(layers, {"max_drop": 1.0})
    assert plan.damage == pytest.approx(EXPECTED_A_POINT, rel=0.1) and plan.damage <= EXPECTED_A_POINT
    assert plan_of(layers, {"max_drop": 3.0}).adds < plan.adds


def test_no_plan_for_a_drop_exceeds_an_addition_a_mac_or_the_bytes_of_int8() -> None:
    rich = {"a": layer(1e3, richness=1.5), "b": layer(1e3, richness=1.5)}
    plan = plan_of(rich, {"max_drop": 1e-6})
    assert plan.adds <= 1.001
    int8 = [planned.settings.precision == "int8" for planned in plan.layers.values()]
    assert all(int8) or plan.adds * BYTES_PER_DIGIT <= 1.001  # equal layers: digits a MAC are digits a weight
    assert plan_of(rich, {"adds": 1.5}).adds > 1.1


def test_a_layer_that_needs_more_digits_than_int8_has_bits_is_int8() -> None:
    layers = {"rich": layer(6.0, richness=1.7), "plain": layer(1.0)}
    plan = plan_of(layers, {"max_drop": 1.0})
    assert plan.layers["rich"].settings.precision == "int8" and plan.layers["rich"].damage == 0
    assert plan.layers["plain"].settings.precision == "ternary"
    assert plan_of(layers, {"adds": 0.9}).layers["rich"].settings.precision == "ternary"


def test_what_nothing_repairs_is_int8_though_its_digits_are_few() -> None:
    layers = {"loud": layer(60.0, richness=0.8), **{f"l{i}": layer(1.0) for i in range(6)}}
    hopeful, sober = (plan_of(layers, {"max_drop": 1.0}, repaired=repaired) for repaired in (True, False))
    assert all(planned.settings.precision == "ternary" for planned in hopeful.layers.values())
    kinds = {name: planned.settings.precision for name, planned in sober.layers.items()}
    assert kinds == {name: "int8" if name == "loud" else "ternary" for name in layers}
    assert own_damage(sober, layers) < 0.7 * own_damage(hopeful, layers) and sober.adds < 1.1 * hopeful.adds


@pytest.mark.parametrize("budget", [{"adds": 0.7}, {"bytes": 0.8}])
def test_work_is_shared_out_the_same_whatever_is_repaired(budget: dict[str, float]) -> None:
    layers = {"loud": layer(60.0, richness=0.8), "plain": layer(1.0)}
    assert plan_of(layers, budget, repaired=False) == plan_of(layers, budget)


@given(damages=st.lists(st.floats(0.03, 30), min_size=2, max_size=8), drop=st.floats(0.3, 3))
@settings(deadline=None, max_examples=50)
def test_every_layer_takes_the_form_that_costs_less(damages: list[float], drop: float) -> None:
    layers = {f"l{i}": layer(d, weights=1000 * (i + 1), positions=10 * (9 - i)) for i, d in enumerate(damages)}
    plan = plan_of(layers, {"max_drop": drop}, repaired=False)
    common = np.exp(np.mean(np.log(damages)))
    for name, own in layers.items():
        planned = plan.layers[name]
        heard = own.damage_per_error**TRUST * common ** (1 - TRUST)
        unit = 2 * heard * planned.settings.penalty  # of an addition a MAC, in nats
        if planned.settings.penalty in (PENALTIES[0], PENALTIES[-1]):
            continue
        error, digits = own.at(planned.settings.penalty)
        as_planes, as_int8 = own.damage_per_error * error + unit * digits, INT8_WORK * unit
        if digits * BYTES_PER_DIGIT > 1.001 or as_planes > 1.001 * as_int8:
            assert planned.settings.precision == "int8"
        elif digits * BYTES_PER_DIGIT < 0.999 and as_planes < 0.999 * as_int8:  # prices often end where a layer changes
            assert planned.settings.precision == "ternary"


def own_damage(plan: Any, layers: dict[str, Sensitivity]) -> float:
    """By the layers' own measures."""
    return sum(s.damage_per_error * plan.layers[name].error ** 2 for name, s in layers.items())


def test_a_layer_nobody_hears_gets_the_highest_price() -> None:
    plan = plan_of({"silent": layer(0.0), "loud": layer(5.0)}, {"adds": 0.7})
    assert penalty(plan, "silent") == PENALTIES[-1] > penalty(plan, "loud")


def test_other_layers_keep_their_settings() -> None:
    given_ = LayerConfig(precision="ternary", method="response", rank=9)
    plan = plan_of({"a": layer(1.0)}, {"adds": 0.7}, b=given_, c=None)
    assert plan.layers["b"].settings == given_ and plan.layers["c"].settings is None
    assert plan.layers["b"].digits is None
    nothing = plan_of({}, {"adds": 0.7}, b=given_)
    assert nothing.layers["b"].settings == given_ and nothing.adds == 0.0
