"""Which convolutions get their weights as code: the fastest kernel, at four to eight times the bytes of packed weights.

Both kernels of a layer are made up, and `tvm_ffn.cost` tells their cycles and bytes. Layers are taken by the cycles
that code saves a byte more, the most first, as long as it saves more than its bytes cost on their way from the last
cache, or from memory once they are more than it holds, and while all weights stay within a multiple of int8's bytes, if
one is given.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

from tvm_ffn.cost import predicted_cycles
from tvm_ffn.graph import Unit
from tvm_ffn.kernel_plan import KernelPlans
from tvm_ffn.passes.linear_operator import layer_shape, unit_kernel
from tvm_ffn.progress import progress
from tvm_ffn.solution import QuantizedNetwork

# Measured: 15 MB more code cost 0.03 cycles a byte in resnet18 (35 MB) on a Cascade Lake with 36 MB of last cache,
# 30 MB more 0.12 (65 MB) on a Zen 3 with 32 MB, .89 of the time with lists of digits. In resnet50 30 to 43 MB more (69,
# 82 MB) took .91 there and .96 on the Cascade Lake, at 0.34 cycles a byte.
CACHE_BYTES = 32 << 20
CACHE_CYCLES, MEMORY_CYCLES = 0.05, 0.15  # of a byte
LEAST_GAIN = 0.1  # of a layer's cycles: predictions of two families differ by more than that from what is measured


@dataclass(frozen=True)
class _Candidate:
    name: str
    packed: int  # bytes
    packed_cycles: float
    bytes: int  # more as code
    gain: float  # cycles

    def pays(self, before: int) -> bool:
        """Whether code is faster, after ``before`` bytes of other layers."""
        rate = CACHE_CYCLES if before + self.packed + self.bytes <= CACHE_BYTES else MEMORY_CYCLES
        return self.gain - rate * self.bytes > LEAST_GAIN * self.packed_cycles


def choose_code(
    quantized: QuantizedNetwork, plans: KernelPlans, int8_bytes: float | None
) -> tuple[KernelPlans, dict[str, int]]:
    """The plans with ``code`` set for the chosen layers, unchanged where the target has no instructions for it, and the
    bytes of those layers if they were packed. All weights take up to ``int8_bytes`` times int8's (None: any size)."""
    instead: dict[str, int] = {}
    if not plans.default.isa:
        return plans, instead
    left, candidates = 0.0, []
    most = inf if int8_bytes is None else int8_bytes
    for unit in progress(quantized.network.linear, "choosing kernels"):
        packed, packed_cycles = _kernel(unit, quantized, plans, code=False)
        left += most * unit.weight.size - packed
        if _can_be_code(unit, quantized):
            code, cycles = _kernel(unit, quantized, plans, code=True)
            candidates.append(_Candidate(unit.name, packed, packed_cycles, code - packed, packed_cycles - cycles))
    total = 0
    for candidate in sorted(candidates, key=lambda c: c.gain / max(c.bytes, 1), reverse=True):
        if candidate.bytes <= left and candidate.pays(total):
            left -= candidate.bytes
            total += candidate.packed + candidate.bytes
            plans = plans.override(candidate.name, code=True)
            instead[candidate.name] = candidate.packed
    return plans, instead


def _can_be_code(unit: Unit, quantized: QuantizedNetwork) -> bool:
    is_conv = layer_shape(unit).geometry is not None
    return is_conv and not unit.is_depthwise and quantized.layers[unit].is_ternary


def _kernel(unit: Unit, quantized: QuantizedNetwork, plans: KernelPlans, *, code: bool) -> tuple[int, float]:
    """Bytes and cycles of a layer's kernel."""
    plan = replace(plans.of(unit.name), code=code)
    operator = unit_kernel(unit, quantized.layers[unit], quantized.middle_bits, plan).operator
    return operator.cost.bytes, predicted_cycles(operator, plan.lanes)
