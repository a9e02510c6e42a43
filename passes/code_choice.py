"""Which convolutions get their weights as code: the fastest kernel, at four to eight times the bytes of packed weights.

Both kernels of a layer are made up, and `tvm_ffn.cost` tells their cycles and bytes. Layers are taken by the cycles
that code saves a byte more, the most first, while all weights stay within a multiple of int8's bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tvm_ffn.cost import predicted_cycles
from tvm_ffn.graph import Unit
from tvm_ffn.kernel_plan import KernelPlans
from tvm_ffn.passes.linear_operator import layer_shape, unit_kernel
from tvm_ffn.progress import progress
from tvm_ffn.solution import QuantizedNetwork

FEWEST_PIXELS = 64  # of a layer as code: with fewer its bytes come from memory for too little work
LEAST_GAIN = 0.1  # of a layer's cycles: predictions of two families differ by more than that from what is measured


@dataclass(frozen=True)
class _Candidate:
    name: str
    gain: float  # cycles
    packed: int  # bytes
    bytes: int  # more as code


def choose_code(
    quantized: QuantizedNetwork, plans: KernelPlans, int8_bytes: float
) -> tuple[KernelPlans, dict[str, int]]:
    """The plans with ``code`` set for the chosen layers, unchanged where the target has no instructions for it, and the
    bytes of those layers if they were packed. All weights take up to ``int8_bytes`` times int8's."""
    instead: dict[str, int] = {}
    if not plans.default.isa:
        return plans, instead
    left, candidates = 0.0, []
    for unit in progress(quantized.network.linear, "choosing kernels"):
        packed, packed_cycles = _kernel(unit, quantized, plans, code=False)
        left += int8_bytes * unit.weight.size - packed
        if _can_be_code(unit, quantized):
            code, cycles = _kernel(unit, quantized, plans, code=True)
            if packed_cycles - cycles > LEAST_GAIN * packed_cycles:
                candidates.append(_Candidate(unit.name, packed_cycles - cycles, packed, code - packed))
    for candidate in sorted(candidates, key=lambda c: c.gain / max(c.bytes, 1), reverse=True):
        if candidate.bytes <= left:
            left -= candidate.bytes
            plans = plans.override(candidate.name, code=True)
            instead[candidate.name] = candidate.packed
    return plans, instead


def _can_be_code(unit: Unit, quantized: QuantizedNetwork) -> bool:
    geometry = layer_shape(unit).geometry
    fits = geometry is not None and geometry.out_height * geometry.out_width >= FEWEST_PIXELS
    return fits and not unit.is_depthwise and quantized.layers[unit].is_ternary


def _kernel(unit: Unit, quantized: QuantizedNetwork, plans: KernelPlans, *, code: bool) -> tuple[int, float]:
    """Bytes and cycles of a layer's kernel."""
    plan = replace(plans.of(unit.name), code=code)
    operator = unit_kernel(unit, quantized.layers[unit], quantized.middle_bits, plan).operator
    return operator.cost.bytes, predicted_cycles(operator, plan.lanes)
