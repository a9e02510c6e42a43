"""Which int8 tensors hold ``x = step * (q + 127)``: values that are never negative then have 255 levels, not 128.

Neither the sums nor their overflow bounds change: a layer that reads such a tensor pads it with -127 and takes
``127 * sum(w)`` into its bias, one that writes it subtracts 127 there too, and a residual's 127 go the same way. So the
tensor may be written by a layer with a lower bound of 0, read by layers (not by the two-stage product of factors of any
form, whose middle has no bias) and passed on by what only moves or compares values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tvm import relax

from tvm_ffn.graph import Network, Unit
from tvm_ffn.unit_kinds import op_name

OFFSET = -127


def zero_points(
    network: Network, classes: Mapping[relax.Var, relax.Var], takes_offset: Callable[[Unit], bool]
) -> dict[relax.Var, int]:
    """The integer that stands for 0, for the variables where it is not 0. ``classes`` are those of equal scales,
    ``takes_offset`` says which linear units may read such a tensor."""
    refused = {classes[var] for var in (*network.parameters, *network.outputs) if var in classes}
    for unit in network.units:
        if unit.output in classes and not _may_write(unit):
            refused.add(classes[unit.output])
        for var in unit.inputs:
            if var in classes and not _may_read(unit, takes_offset):
                refused.add(classes[var])
    return {var: OFFSET for var, representative in classes.items() if representative not in refused}


def _moves_values(unit: Unit) -> bool:
    return unit.kind in ("concat", "max_pool2d") or (unit.kind == "view" and op_name(unit.call) != "relax.nn.pad")


def _may_write(unit: Unit) -> bool:
    return _moves_values(unit) or (unit.is_linear and unit.activation.lo == 0.0 and unit.activation.slope == 1.0)


def _may_read(unit: Unit, takes_offset: Callable[[Unit], bool]) -> bool:
    return takes_offset(unit) if unit.is_linear else _moves_values(unit)
