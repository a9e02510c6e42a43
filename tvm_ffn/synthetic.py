"""A compilation whose layers hold random ternary factors of the right shapes and density.

Nothing is calibrated and nothing solved, so that the largest networks are ready in seconds. Right for speed and size,
meaningless for accuracy.

The scales keep every tensor in the middle of its range: activations of standard deviation S = 40 steps (of 127), the
middle of a factorised layer of a quarter of its limit L, with n inputs, k terms and a share f of non-zeros:

    d s_in / s_middle = L / 4 / (S sqrt(n f))        a s_middle / s_out = S / (L / 4 sqrt(k f))
"""

from __future__ import annotations

import os

import numpy as np
import onnx
import tvm

from tvm_ffn.calibration import Calibration
from tvm_ffn.config import FFNConfig, LayerConfig
from tvm_ffn.factorize import Factors
from tvm_ffn.graph import Unit
from tvm_ffn.importer import load_model
from tvm_ffn.pipeline import Compilation, match
from tvm_ffn.plan import Plan
from tvm_ffn.ranges import INT8_LIMIT, Ranges, stored_as_int8
from tvm_ffn.solution import LayerSolution, QuantizedNetwork

SCALE = 1 / 32  # of every int8 tensor
DIGITS = 0.7  # a weight of digit planes
SPREAD = 40.0  # standard deviation of int8 activations, in steps


def random_compilation(
    model: str | os.PathLike[str] | onnx.ModelProto,
    target: tvm.target.Target,
    config: FFNConfig,
    *,
    zeros: float = 0.5,
    seed: int = 0,
) -> Compilation:
    """``model`` as if it were solved with ``config``; go on with ``pipeline.run(c, start_at="choose")``.

    ``zeros`` is the share of zero entries in X and Y. The same seed gives the same factors.
    """
    c = Compilation(model, target, config, None)
    c.imported = load_model(model)
    c.mod = c.imported.mod
    c.settings = config.resolve(c.imported.layer_names)
    c.data = Calibration.synthetic(c.imported.inputs, 1, seed)
    match(c)
    rng = np.random.default_rng(seed)
    scales = dict.fromkeys(stored_as_int8(c.network), SCALE)
    limit = 2 ** (config.mid_bits - 1) - 1
    layers = {unit: _solution(rng, unit, c.settings[unit.name], zeros, limit) for unit in c.network.linear}
    c.quantized = QuantizedNetwork(c.network, Ranges(scales, {}, {}), layers, config.mid_bits, Plan({}))
    return c


def _solution(
    rng: np.random.Generator, unit: Unit, settings: LayerConfig | None, zeros: float, limit: int
) -> LayerSolution:
    assert settings is not None  # linear units are not fp32
    groups, m, n = unit.weight.shape
    bias = np.zeros(groups * m, np.float32)
    if unit.is_depthwise or settings.precision == "int8":
        weight = rng.integers(-INT8_LIMIT, INT8_LIMIT + 1, unit.weight.shape, np.int8)
        scale = np.full((groups, m), 1 / (weight.std() * np.sqrt(n)), np.float32)
        return LayerSolution(bias, 0.0, 0.0, weight=weight, weight_scale=scale, reason="as configured")
    if settings.method == "planes":
        factors = tuple(_planes(rng, m, n, settings.planes or 1) for _ in range(groups))
        return LayerSolution(bias, 0.0, 0.0, factors)
    k = settings.rank_for(m, n)
    middle = SCALE * SPREAD * np.sqrt(n * (1 - zeros)) * 4 / limit
    row = SCALE * SPREAD * 4 / (limit * np.sqrt(k * (1 - zeros)) * middle)
    factors = tuple(
        Factors(
            _ternary(rng, m, k, zeros),
            np.ones(k, np.float32),
            _ternary(rng, n, k, zeros),
            np.full(m, row, np.float32),
        )
        for _ in range(groups)
    )
    return LayerSolution(bias, 0.0, 0.0, factors, float(middle))


def _planes(rng: np.random.Generator, m: int, n: int, planes: int) -> Factors:
    """`DIGITS` digits a weight, all planes alike."""
    y = _ternary(rng, n, planes * m, 1 - DIGITS / planes)
    powers = 2.0 ** -np.arange(planes)
    row = 1 / np.sqrt(n * DIGITS / planes * np.square(powers).sum())
    x = np.tile(np.eye(m, dtype=np.int8), (1, planes))
    return Factors(x, np.repeat(powers, m).astype(np.float32), y, np.full(m, row, np.float32))


def _ternary(rng: np.random.Generator, rows: int, columns: int, zeros: float) -> np.ndarray:
    """Entries in {-1, 0, 1}, each zero with probability ``zeros``, to 1 / 256."""
    digits = rng.integers(0, 256, (rows, columns), np.uint8)
    none = round(256 * zeros)
    return (digits >= none).astype(np.int8) * np.where((digits - none) & 1, np.int8(1), np.int8(-1))
