"""Plan, solve, measure; where the solved network is over its budget, plan with less and solve again.

A prediction from layers quantised alone misses what their errors do together and what int8 activations cost, and the
final solver's digits differ a little from the probe's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from tvm_ffn.comparison import ERROR_A_POINT
from tvm_ffn.plan import Plan
from tvm_ffn.planner import BYTES_PER_DIGIT, EXPECTED_A_POINT
from tvm_ffn.solution import QuantizedNetwork
from tvm_ffn.unit_rows import positions

log = logging.getLogger("tvm_ffn")

MOST_SOLVES = 3
TOLERANCE = 1.01
HOPELESS = 0.25
"""Where digits are expected to do less than this share of the damage that was measured, more of them change nothing."""


def solve_within(
    budget: Mapping[str, float],
    make: Callable[[float, bool], Plan],
    solve: Callable[[Plan], QuantizedNetwork],
    *,
    classes: bool,
) -> QuantizedNetwork:
    """The first solution within the budget, or of a few the nearest to it; ``make`` plans for a share of the budget and
    is told whether later layers may be thought to repair earlier ones, as they are at first; ``classes`` says whether
    the network's answers are."""
    plan: Plan | None = None
    best: QuantizedNetwork | None = None
    least, share = np.inf, 1.0 if classes or "max_drop" not in budget else ERROR_A_POINT**2 / 2 / EXPECTED_A_POINT
    for attempt in range(1, MOST_SOLVES + 1):
        last, plan = plan, make(share, attempt == 1)
        if plan == last:
            break  # its own limits, not the budget, decide
        solved = solve(plan)
        excess = _excess(solved, budget)
        log.info("solution %d is at %.2f of its budget", attempt, excess)
        if excess < least:
            best, least = solved, excess
        if excess <= TOLERANCE or _is_hopeless(solved, budget):
            break
        share /= 1.05 * excess
    assert best is not None  # the first plan differs from none
    return best


def first_within(budget: Mapping[str, float], solutions: Iterable[QuantizedNetwork]) -> QuantizedNetwork:
    """The first of the ``solutions``, which are not found before they are looked at, within the budget, or the nearest
    to it."""
    tried = []
    for solved in solutions:
        if _excess(solved, budget) <= TOLERANCE:
            return solved
        tried.append(solved)
    return min(tried, key=lambda solved: _excess(solved, budget))


def _excess(solved: QuantizedNetwork, budget: Mapping[str, float]) -> float:
    """What was measured, as a part of what is allowed (0.0 without held-out samples)."""
    ((goal, amount),) = budget.items()
    if goal == "max_drop":
        return 0.0 if solved.held_out is None else solved.held_out.expected_drop / amount
    used, whole = 0.0, 0.0
    for unit, solution in solved.layers.items():
        planned = solved.plan.layers.get(unit.name)
        if planned is None or planned.digits is None:
            continue
        often = positions(unit) if goal == "adds" else 1
        digits = sum(np.count_nonzero(factors.y) for factors in solution.factors)
        each = BYTES_PER_DIGIT if goal == "bytes" else 1.0
        used += often * (digits * each if solution.factors else unit.weight.size)
        whole += often * unit.weight.size
    return used / whole / amount if whole else 0.0


def overdrawn(expected_drop: float, allowed: float) -> str:
    """What to say of a drop of more points than are allowed, "" where it is none."""
    if expected_drop <= allowed * TOLERANCE:
        return ""
    drop = f"the expected top-1 drop on held-out calibration samples, {expected_drop:.2f} points"
    return f"{drop}, exceeds the budget of {allowed:g}: tvm-ffn quantize lists the layers that lose most"


def _is_hopeless(solved: QuantizedNetwork, budget: Mapping[str, float]) -> bool:
    divergence = None if solved.held_out is None else solved.held_out.divergence
    return "max_drop" in budget and divergence is not None and solved.plan.damage < HOPELESS * divergence
