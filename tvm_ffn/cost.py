"""What kernels cost: the cycles of any of them from what it executes.

    cycles = adds a + multiplies m + moves v + loads l + misses c  (vectors of int16 lanes)  + bytes b + starts s

The counts are those of `Executed`. A lookup is the memory operand of the addition that takes it and has no rate of its
own. Predictions compare kernels and layers with each other: one thread, activations and weights in the caches. Weights
that come from memory, as in a network larger than L3, take about 8 cycles more for every 64 bytes.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from tvm_ffn.kernel_plan import (
    CODE_KERNEL,
    DIGITS_KERNEL,
    GEMV_KERNEL,
    INT8_KERNEL,
    LUT_KERNEL,
    PLANES_KERNEL,
    ROWS_KERNEL,
)
from tvm_ffn.kernels.code_conv2d import CodeConv2d
from tvm_ffn.kernels.depthwise_conv2d import DepthwiseConv2d
from tvm_ffn.kernels.digits_conv2d import DigitsConv2d, DigitsDense
from tvm_ffn.kernels.int8_conv2d import Int8Conv2d
from tvm_ffn.kernels.int8_dense import Int8Dense
from tvm_ffn.kernels.planes_conv2d import PlanesConv2d
from tvm_ffn.kernels.ternary_conv2d import TernaryConv2d
from tvm_ffn.kernels.ternary_dense import TernaryDense
from tvm_ffn.kernels.ternary_gemv import TernaryGemv
from tvm_ffn.kernels.ternary_lut import TernaryLut
from tvm_ffn.kernels.winograd_conv2d import WinogradConv2d


@dataclass(frozen=True)
class Rates:
    """Cycles of one vector's addition, multiply, move, load and miss, of a byte of weights, and of the start of a list,
    in the order of `vector_counts`."""

    add: float
    multiply: float = 0.0
    move: float = 0.0
    load: float = 0.0
    miss: float = 0.0
    byte: float = 0.0
    start: float = 0.0


# From `benchmarks.rate_fit`: least squares of relative errors over all cases of a family in `benchmarks.cost_model`.
# 32-byte vectors on one core of a Zen 3, taken for 3.1 GHz (planes before they were joined in registers); 64-byte ones
# on a Zen 4 at 3.66 GHz. No addition takes less than the ports allow, two of 64 bytes or four of 32 bytes a cycle. Rows
# and digits load what they add, one load of 64 or two of 32 bytes a cycle; an addition by masks is a test, a selection
# and the sum. What the others stand for is a reading of the fit: "multiply" all that ends an output (joining planes
# too), "move" a copy that is part scalar, "start" a mispredicted branch, "byte" weights from beyond L2, "miss" a line
# from L2 whose sums pass L2 too. The rates of a family rest on six or seven shapes: of a shape left out of the fit the
# predicted time is 0.65 to 1.6 of the measured one, with 64-byte vectors 0.80 to 1.4 (planes: 0.77 to 1.14 with the
# miss of code; their own was 17, of one shape only). int8 with 64-byte vectors is VNNI's. Tables over outputs and int8
# on few rows have three cases with 32-byte vectors and so one rate.
_INT8_DENSE = f"{INT8_KERNEL}-dense"
RATES = {
    (ROWS_KERNEL, 32): Rates(1.57, 6.23, 9.56),
    (ROWS_KERNEL, 16): Rates(0.789, 4.80, 5.19),
    (CODE_KERNEL, 32): Rates(0.555, 7.17, 3.52, miss=2.30, byte=0.009),
    (CODE_KERNEL, 16): Rates(0.250, 2.82, 3.60, load=0.292, miss=4.91, byte=0.062),
    (PLANES_KERNEL, 32): Rates(0.500, 8.64, 3.63, load=0.596, miss=2.30, byte=0.021),
    (PLANES_KERNEL, 16): Rates(0.250, 8.00, 5.36, load=0.535, miss=4.91, byte=0.012),
    (DIGITS_KERNEL, 32): Rates(1.48, 0.0, 6.36, start=2.75),
    (DIGITS_KERNEL, 16): Rates(0.878, 5.49, 2.33, start=4.43),
    (LUT_KERNEL, 32): Rates(1.71, 65.9),
    (LUT_KERNEL, 16): Rates(1.5),
    (GEMV_KERNEL, 32): Rates(2.13, 0.0, 13.6),
    (GEMV_KERNEL, 16): Rates(1.21),
    (INT8_KERNEL, 32): Rates(0.500, 0.025, 4.74, byte=0.050),
    (INT8_KERNEL, 16): Rates(0.250, 0.382, 4.11, byte=0.206),
    (_INT8_DENSE, 32): Rates(1.20),
    (_INT8_DENSE, 16): Rates(1.06),
}
_FAMILIES = {
    TernaryConv2d: ROWS_KERNEL,
    TernaryDense: ROWS_KERNEL,
    TernaryGemv: GEMV_KERNEL,
    TernaryLut: LUT_KERNEL,
    CodeConv2d: CODE_KERNEL,
    PlanesConv2d: PLANES_KERNEL,
    DigitsConv2d: DIGITS_KERNEL,
    DigitsDense: DIGITS_KERNEL,
    Int8Conv2d: INT8_KERNEL,
    WinogradConv2d: INT8_KERNEL,
    DepthwiseConv2d: INT8_KERNEL,
    Int8Dense: _INT8_DENSE,
}
WIDEST, NARROWEST = 32, 16  # lanes that were measured; SSE and NEON take the cycles of AVX2's vectors


def vector_counts(operator: Any, lanes: int) -> tuple[float, ...]:
    """What an operator executes in the order of `Rates`, in vectors of ``lanes`` int16, bytes, and lists."""
    done = operator.executed
    vectors = (done.adds, done.multiplies, done.moves, done.loads, done.misses)
    return (*(count / lanes for count in vectors), float(done.bytes), float(done.starts))


def predicted_cycles(operator: Any, lanes: int) -> float:
    """Cycles of one run of ``operator`` on one core with vectors of ``lanes`` int16."""
    rates = RATES[_FAMILIES[type(operator)], WIDEST if lanes >= WIDEST else NARROWEST]
    return float(np.dot(vector_counts(operator, lanes), astuple(rates)))
