"""Which convolutions get their weights as code: the fastest kernel, at seven times the bytes of packed weights.

What code saves grows with the pixels that run through it; what it costs are its bytes, on disk and, once an inference,
on the way from memory: a ternary entry saves some 2 ps a pixel against the row table and takes 2.45 bytes at 20 to 30
GB/s, so it pays from about 50 pixels on (measured on 3x3 layers of resnet18 with cold caches: 2x at 14x14, even at
7x7). Layers are taken from the most pixels down while all weights stay within int8's bytes.
"""

from __future__ import annotations

import numpy as np

from tvm_ffn.factorize import Factors
from tvm_ffn.forms import has_few_rows
from tvm_ffn.graph import Unit, shape_of
from tvm_ffn.kernel_plan import KernelPlans
from tvm_ffn.kernels.codes import GROUP
from tvm_ffn.solution import QuantizedNetwork

CODE_BYTES = 2.85  # a ternary entry as code: 0.36 additions after sharing, 6 to 7 bytes each
DIGIT_BYTES = 9.0  # a digit that is not zero, its share of loads included: 8.6 to 8.8 in layers of 3x3
PACKED_BYTES = 1 / GROUP  # in the row table's form
LIST_BYTES = 1.15  # a digit that is not zero in a list, the lengths of the lists included
FEWEST_PIXELS = 64


def choose_code(quantized: QuantizedNetwork, plans: KernelPlans) -> KernelPlans:
    """The plans with ``code`` set for the chosen layers; unchanged where the target has no instructions for it."""
    if not plans.default.isa:
        return plans
    linear = quantized.network.linear
    budget = sum(unit.weight.size for unit in linear)
    total = sum(_packed_bytes(unit, quantized) for unit in linear)
    for unit in sorted((u for u in linear if _can_be_code(u, quantized)), key=_pixels, reverse=True):
        extra = _code_bytes(unit, quantized) - _packed_bytes(unit, quantized)
        if total + extra <= budget:
            total += extra
            plans = plans.override(unit.name, code=True)
    return plans


def _can_be_code(unit: Unit, quantized: QuantizedNetwork) -> bool:
    fits = unit.kind == "conv2d" and unit.groups == 1 and _pixels(unit) >= FEWEST_PIXELS
    return fits and quantized.layers[unit].is_ternary


def _pixels(unit: Unit) -> int:
    return int(np.prod(shape_of(unit.call)[2:]))


def _code_bytes(unit: Unit, quantized: QuantizedNetwork) -> float:
    factors = quantized.layers[unit].factors[0]
    return np.count_nonzero(factors.y) * DIGIT_BYTES if factors.planes else _entries(factors) * CODE_BYTES


def _packed_bytes(unit: Unit, quantized: QuantizedNetwork) -> float:
    """Bytes of the weights without code: digit planes are lists then, or int8 for few rows."""
    factors = quantized.layers[unit].factors
    if not factors or (factors[0].planes and has_few_rows(unit)):
        return unit.weight.size
    if factors[0].planes:
        return sum(np.count_nonzero(f.y) for f in factors) * LIST_BYTES
    return sum(_entries(f) for f in factors) * PACKED_BYTES


def _entries(factors: Factors) -> int:
    return factors.x.size + factors.y.size
