"""Solving within a budget: what counts as over it, and when solving again is tried or given up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tvm_ffn.budget import MOST_SOLVES, first_within, overdrawn, solve_within
from tvm_ffn.comparison import DAMAGE_A_POINT, ERROR_A_POINT, Verification
from tvm_ffn.planner import EXPECTED_A_POINT


def verification(divergence: float | None, error: float = 0.1) -> Verification:
    agreement = None if divergence is None else 0.9
    return Verification(50, {"y": error}, agreement, divergence, None, None)


class Network:
    """Loses ``damage * share`` nats; each solution's plan expects ``expected`` times that."""

    def __init__(self, damage: float, expected: float = 1.0, floor: float = 0.0) -> None:
        self.damage, self.expected, self.floor = damage, expected, floor
        self.shares: list[float] = []
        self.repaired: list[bool] = []

    def make(self, share: float, repaired: bool) -> Any:
        self.shares.append(share)
        self.repaired.append(repaired)
        return SimpleNamespace(damage=self.damage * share * self.expected)

    def solve(self, plan: Any) -> Any:
        lost = plan.damage / self.expected + self.floor
        return SimpleNamespace(plan=plan, held_out=verification(lost), layers={})


def test_a_network_within_its_budget_is_solved_once() -> None:
    network = Network(0.9 * DAMAGE_A_POINT)
    solved = solve_within({"max_drop": 1.0}, network.make, network.solve, classes=True)
    assert network.shares == [1.0] and solved.held_out.expected_drop == pytest.approx(0.9)
    assert network.repaired == [True]


def test_one_over_it_is_planned_with_less() -> None:
    network = Network(2 * DAMAGE_A_POINT)
    solved = solve_within({"max_drop": 1.0}, network.make, network.solve, classes=True)
    assert len(network.shares) == 2 and network.shares[1] < 0.5
    assert network.repaired == [True, False]
    assert solved.held_out.expected_drop <= 1.0


def test_activations_that_cost_too_much_are_not_paid_with_digits() -> None:
    network = Network(0.1 * DAMAGE_A_POINT, floor=3 * DAMAGE_A_POINT)
    solve_within({"max_drop": 1.0}, network.make, network.solve, classes=True)
    assert network.shares == [1.0]


def test_it_ends() -> None:
    network = Network(DAMAGE_A_POINT, floor=2 * DAMAGE_A_POINT)
    solve_within({"max_drop": 1.0}, network.make, network.solve, classes=True)
    assert 1 < len(network.shares) <= MOST_SOLVES


def test_of_several_over_the_budget_the_nearest_is_kept() -> None:
    network, left = Network(1.0), [2 * DAMAGE_A_POINT, 1.5 * DAMAGE_A_POINT, 3 * DAMAGE_A_POINT]
    network.solve = lambda plan: SimpleNamespace(plan=plan, held_out=verification(left.pop(0)), layers={})  # type: ignore[method-assign]
    solved = solve_within({"max_drop": 1.0}, network.make, network.solve, classes=True)
    assert not left and solved.held_out.expected_drop == pytest.approx(1.5)


def test_solutions_are_looked_for_until_one_is_within() -> None:
    losses, looked = {"far": 3.0, "near": 1.5, "within": 0.5, "unneeded": 0.1}, []

    def solved(name: str) -> Any:
        looked.append(name)
        return SimpleNamespace(name=name, held_out=verification(losses[name] * DAMAGE_A_POINT))

    assert first_within({"max_drop": 1.0}, map(solved, losses)).name == "within"
    assert looked == ["far", "near", "within"]
    assert first_within({"max_drop": 0.2}, map(solved, ["far", "near", "within"])).name == "within"
    assert first_within({"max_drop": 0.2}, map(solved, ["near", "far"])).name == "near"


def test_points_of_a_drop() -> None:
    assert verification(1.5 * DAMAGE_A_POINT).expected_drop == pytest.approx(1.5)
    assert verification(None, error=2 * ERROR_A_POINT).expected_drop == pytest.approx(4.0)
    assert "1.71 points, exceeds the budget of 1:" in overdrawn(1.71, 1.0)
    assert overdrawn(1.0, 1.0) == ""


def test_maps_start_with_a_damage_of_their_own() -> None:
    network = Network(DAMAGE_A_POINT)
    network.solve = lambda plan: SimpleNamespace(plan=plan, held_out=verification(None, 0.04), layers={})  # type: ignore[method-assign]
    solve_within({"max_drop": 1.0}, network.make, network.solve, classes=False)
    assert network.shares == [ERROR_A_POINT**2 / 2 / EXPECTED_A_POINT]
