"""One layer's integers, fitted to what the fp32 network answers at sampled positions.

mu, H = mean, cov(a)      my, T = mean(y), cov(y, a)      a: inputs in the quantised network, y: fp32 response
W* = repaired weights (`layer_rows`)      X, d, Y, a = argmin |W* - diag(a) X diag(d) Y^T| in the metric H + r_h I
bias = my - W_eff mu      (the mean response is exact)
"""

from __future__ import annotations

import numpy as np

from tvm_ffn.config import FFNConfig, LayerConfig
from tvm_ffn.factorize import Factors, factorize, factorize_planes, response_error
from tvm_ffn.layer_rows import WIDEST, LayerRows, Metric
from tvm_ffn.ranges import INT8_LIMIT, choose_scale
from tvm_ffn.solution import LayerSolution

_MIDDLE_ROWS = 2000  # rows looked at for the scale of a layer's middle


def fit_ternary(weight: np.ndarray, settings: LayerConfig, rows: LayerRows, config: FFNConfig) -> LayerSolution:
    """Factors for every group of ``weight`` (groups, m, n), or digit planes."""
    groups, m, n = weight.shape
    factors: list[Factors] = []
    biases, errors, missed = [], [], []
    for index in range(groups):
        group = rows.group(index, m)
        target, metric = group.problem(weight[index], config, repair=settings.method != "sdd")
        solved = _factorize(target, metric, settings, config)
        factors.append(solved)
        biases.append(group.bias(solved.weight()))
        errors.append(response_error(target, solved, metric))
        missed.append(group.missed(solved.weight()))
    scale = 0.0 if factors[0].planes else _middle_scale(factors, rows.inputs, config.mid_bits)
    dense = n > WIDEST and settings.method != "planes"
    return LayerSolution(
        np.concatenate(biases),
        float(np.mean(errors)),
        float(np.mean(missed)),
        tuple(factors),
        scale,
        reason=f"{n} inputs: factorised without their covariance" if dense else "",
    )


def fit_int8(
    original: np.ndarray, settings: LayerConfig, rows: LayerRows, config: FFNConfig, reason: str
) -> LayerSolution:
    """Symmetric int8 weights, one scale an output; repaired like factors unless data may not change the weights."""
    groups, m, _ = original.shape
    weights, scales, biases, errors, missed = [], [], [], [], []
    for index in range(groups):
        group = rows.group(index, m)
        target, _ = group.problem(original[index], config, repair=settings.method != "sdd")
        scale = np.maximum(np.abs(target).max(1), np.finfo(np.float32).tiny) / np.float32(INT8_LIMIT)
        weight = np.rint(target / scale[:, None]).astype(np.int8)
        effective = weight.astype(np.float32) * scale[:, None]
        weights.append(weight)
        scales.append(scale.astype(np.float32))
        biases.append(group.bias(effective))
        errors.append(float(np.linalg.norm(effective - target)) / (float(np.linalg.norm(target)) or 1.0))
        missed.append(group.missed(effective))
    return LayerSolution(
        np.concatenate(biases),
        float(np.mean(errors)),
        float(np.mean(missed)),
        weight=np.stack(weights),
        weight_scale=np.stack(scales),
        reason=reason,
    )


def _factorize(target: np.ndarray, metric: Metric, settings: LayerConfig, c: FFNConfig) -> Factors:
    if settings.method == "planes":
        return factorize_planes(
            target,
            planes=settings.planes or c.planes,
            penalty=settings.penalty or 0.0,
            gram=metric,
            threads=c.threads,
        )
    method = "sdd" if isinstance(metric, list) or settings.method is None else settings.method
    return factorize(
        target,
        settings.rank_for(*target.shape),
        method=method,
        gram=metric if method == "response" else None,
        rounds=c.rounds,
        sweeps=c.sweeps,
        seed=c.seed,
        threads=c.threads,
    )


def _middle_scale(factors: list[Factors], inputs: np.ndarray, bits: int) -> float:
    """Real value of one step of the requantised middle ``d * (Y^T a)``, one for the layer."""
    some = inputs[:: max(1, len(inputs) // _MIDDLE_ROWS)]
    middles = [(some[:, g] @ f.y.astype(np.float32)) * f.d for g, f in enumerate(factors)]
    return choose_scale(np.concatenate(middles, axis=1), 2 ** (bits - 1) - 1)
