"""The additions left when a layer's weights run as code and rows share the sums of two inputs (`kernels.pairing`)."""

from __future__ import annotations

import numpy as np

from tvm_ffn.graph import Unit, shape_of
from tvm_ffn.kernels.straight_line import AVX512, VectorISA, piece_counts
from tvm_ffn.kernels.ternary_code import CodeStyle
from tvm_ffn.solution import LayerSolution
from tvm_ffn.unit_rows import positions

MOST_BLOCKS = 6


def shared_adds(unit: Unit, solution: LayerSolution, isa: VectorISA = AVX512) -> float:
    """Additions of one sample with the layer's ternary factors as code, requantisation not counted; a layer in int8
    executes one a multiply-accumulate."""
    pixels = positions(unit) // shape_of(unit.inputs[0])[0]
    if not solution.factors:
        return float(unit.weight.size * pixels)
    total = 0.0
    for factors in solution.factors:
        total += product_adds(factors.y.T, isa)
        total += len(factors.a) * (factors.planes - 1) if factors.planes else product_adds(factors.x, isa)
    return float(total * pixels)


def product_adds(ternary: np.ndarray, isa: VectorISA) -> float:
    """Additions of one product with a ternary matrix (R, K), in blocks of rows that fit the registers; of many blocks
    some are counted and stand for all."""
    rows = len(ternary)
    size = -(-rows // -(-rows // isa.rows))
    starts = list(range(0, rows, size))
    some = [ternary[start : start + size] for start in starts[:: -(-len(starts) // MOST_BLOCKS)]]
    counted = sum(np.count_nonzero(block) for block in some)
    share = sum(map(_block_adds, some)) / counted if counted else 0.0
    return share * np.count_nonzero(ternary)


def _block_adds(block: np.ndarray) -> int:
    return piece_counts(block[None], CodeStyle().window).adds
