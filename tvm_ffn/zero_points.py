"""Which int8 tensors may hold ``x = step * (q - zero)`` with another integer than 0 for 0: values that are more often
positive than negative then use all 255 levels.

Neither the sums nor their overflow bounds change: a layer that reads such a tensor pads it with ``zero`` and takes
``-zero * sum(w)`` into its bias, one that writes it adds ``zero`` there or after rounding (`kernels.epilogue`), and a
residual's zero goes into the bias too. Refused are tensors that zeros are padded to, that two kinds of unit without
such a bias read or write, and that the two-stage product of factors of any form reads: its middle has no bias.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tvm import relax

from tvm_ffn.graph import Network, Unit
from tvm_ffn.unit_kinds import op_name


def may_have_zero_point(
    network: Network, classes: Mapping[relax.Var, relax.Var], takes_offset: Callable[[Unit], bool]
) -> set[relax.Var]:
    """The representatives of the ``classes`` of equal scales that may; ``takes_offset`` says which linear units may
    read such a tensor."""
    refused = set()
    for unit in network.units:
        if not unit.is_integer:
            continue
        if unit.kind in ("add", "affine") or op_name(unit.call) == "relax.nn.pad":
            refused |= {*unit.reads, unit.output}
        elif unit.is_linear and not takes_offset(unit):
            refused |= {*unit.reads}
    return {*classes.values()} - {classes[var] for var in refused if var in classes}
