"""What a layer's weights cost when they run as code: the additions left after rows share the sums of two inputs."""

from __future__ import annotations

import numpy as np

from tvm_ffn.graph import Unit, shape_of
from tvm_ffn.kernels.pairing import match_pairs
from tvm_ffn.kernels.straight_line import AVX512, VectorISA
from tvm_ffn.solution import LayerSolution
from tvm_ffn.unit_rows import positions


def shared_adds(unit: Unit, solution: LayerSolution, isa: VectorISA = AVX512) -> float:
    """Additions of one sample with the layer's ternary factors as code, requantisation not counted; a layer in int8
    executes one a multiply-accumulate."""
    pixels = positions(unit) // shape_of(unit.inputs[0])[0]
    if not solution.factors:
        return float(unit.weight.size * pixels)
    total = 0
    for factors in solution.factors:
        total += product_adds(factors.y.T, isa)
        total += len(factors.a) * (factors.planes - 1) if factors.planes else product_adds(factors.x, isa)
    return float(total * pixels)


def product_adds(ternary: np.ndarray, isa: VectorISA) -> int:
    """Additions of one product with a ternary matrix (R, K), in blocks of rows that fit the registers."""
    rows = len(ternary)
    size = -(-rows // -(-rows // isa.rows))
    return sum(_block_adds(ternary[start : start + size]) for start in range(0, rows, size))


def _block_adds(block: np.ndarray) -> int:
    mates = match_pairs(block)
    first = np.flatnonzero(mates > np.arange(len(mates)))
    product = block[:, first] * block[:, mates[first]]
    same, opposite = (product > 0).sum(0), (product < 0).sum(0)
    saved = np.maximum(same - 1, 0) + np.maximum(opposite - 1, 0)
    return int(np.count_nonzero(block) - saved.sum())
