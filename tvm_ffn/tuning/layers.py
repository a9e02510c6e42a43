"""Which task each layer of a solved network is, and the decisions that a table of tuned tasks has for it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tvm_ffn.graph import Unit
from tvm_ffn.kernel_plan import KernelPlans
from tvm_ffn.kernels.epilogue import Epilogue
from tvm_ffn.passes.linear_operator import layer_shape
from tvm_ffn.ranges import direct_float
from tvm_ffn.solution import LayerSolution, QuantizedNetwork
from tvm_ffn.tuning.table import TunedTable
from tvm_ffn.tuning.task import FACTORS, INT8, PLANES, Task, rounded_density


def tasks_of(quantized: QuantizedNetwork, plans: KernelPlans) -> dict[Unit, Task]:
    """The task of each linear unit; the weights of those with ``code`` in their plan may be code."""
    network = quantized.network
    found = {}
    for unit in network.linear:
        groups, outputs, inputs = unit.weight.shape
        place = layer_shape(unit)
        form, terms, density = _form(quantized.layers[unit], inputs)
        is_float = direct_float(unit, network)
        epilogue = Epilogue(
            "float32" if is_float else "int8",
            None if is_float else -127.0,
            None if is_float else 127.0,
            slope=1.0 if is_float else unit.activation.slope,
            residual=unit.residual is not None,
        )
        found[unit] = Task(
            form,
            place.geometry,
            place.rows,
            groups,
            inputs,
            outputs,
            terms,
            density,
            quantized.middle_bits,
            epilogue,
            plans.of(unit.name).code,
        )
    return found


def tuned_plans(
    tasks: Mapping[Unit, Task], plans: KernelPlans, table: TunedTable
) -> tuple[KernelPlans, dict[str, str]]:
    """The plans with the table's decisions, and by layer what it had: "hit", "near" (another density), "miss"."""
    found = {}
    for unit, task in tasks.items():
        entry = table.find(task)
        found[unit.name] = "miss" if entry is None else "hit" if entry.task == task else "near"
        if entry is not None:
            plans = plans.override(unit.name, **entry.decisions)
    return plans, found


def _form(solution: LayerSolution, inputs: int) -> tuple[str, int, float]:
    """Form, terms and density of a layer's weights."""
    if not solution.is_ternary:
        return INT8, 0, 1.0
    factors = solution.factors
    if factors[0].planes:
        digits = sum(np.count_nonzero(f.y) for f in factors)
        return PLANES, factors[0].planes, rounded_density(digits / sum(len(f.a) * inputs for f in factors))
    entries = sum(f.x.size + f.y.size for f in factors)
    used = sum(np.count_nonzero(f.x) + np.count_nonzero(f.y) for f in factors)
    return FACTORS, factors[0].x.shape[1], rounded_density(used / entries)
