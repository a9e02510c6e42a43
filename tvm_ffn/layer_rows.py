"""What a layer sees at sampled positions, and the weights it should have for that.

    W* = W + (T - W H)(H + r I)^-1        r = ridge * mean diag H

answers what the fp32 network answered although earlier layers have changed the inputs (`factorize.response_target`). A
small ridge repairs more and follows the chance of the samples, a large one keeps W. The samples themselves say which is
right: W* is fitted on four fifths of them for each ridge, and the error of its responses on the last fifth decides.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from tvm_ffn.config import FFNConfig
from tvm_ffn.factorize import response_target
from tvm_ffn.parallel import one_blas_thread

CANDIDATES = (0.1, 0.3, 1.0, 3.0, 10.0)
WIDEST = 8192  # inputs of a layer whose covariance is formed: 0.27 GB, ten times that while solving
SPAN = 4096  # most inputs of a diagonal block of a wider one's

Metric = np.ndarray | list[np.ndarray]


@dataclass(frozen=True)
class LayerRows:
    """What a layer sees and should answer: ``inputs`` float32 (rows, groups, n), ``response`` float32 (rows, M), and
    which rows are of held-out samples, ``held`` (rows,)."""

    inputs: np.ndarray
    response: np.ndarray
    held: np.ndarray

    def group(self, index: int, m: int) -> GroupRows:
        """Rows of one group of ``m`` outputs."""
        inputs, response = self.inputs[:, index], self.response[:, index * m : (index + 1) * m]
        fitted = ~self.held
        mean, response_mean = inputs[fitted].mean(0), response[fitted].mean(0)
        return GroupRows(inputs - mean, response - response_mean, mean, response_mean, self.held)


@dataclass(frozen=True)
class GroupRows:
    """Centred rows of one group, inputs (rows, n) and responses (rows, m), with what was taken off."""

    inputs: np.ndarray
    response: np.ndarray
    mean: np.ndarray
    response_mean: np.ndarray
    held: np.ndarray

    def problem(self, weight: np.ndarray, config: FFNConfig, *, repair: bool = True) -> tuple[np.ndarray, Metric]:
        """The weights to aim at and the metric of their errors, a matrix or, for very many inputs, diagonal blocks."""
        fitted = ~self.held
        inputs, response = self.inputs[fitted], self.response[fitted]
        if weight.shape[1] > WIDEST:
            return weight, diagonal_blocks(inputs, config.ridge, SPAN)
        moments = Moments.of(inputs, response)
        metric = ridged(moments.gram, config.ridge)
        if not repair:
            return weight, metric
        ridge = choose_ridge(weight, moments, self) if config.target_ridge is None else config.target_ridge
        return response_target(weight, moments.gram, moments.cross, ridge=ridge, threads=config.threads), metric

    def bias(self, weight: np.ndarray) -> np.ndarray:
        """What makes the mean response of ``weight`` exact."""
        return self.response_mean - weight @ self.mean

    def missed(self, weight: np.ndarray) -> float:
        """Relative error of the centred responses of ``weight``, on all rows."""
        whole = float(np.linalg.norm(self.response))
        return float(np.linalg.norm(self.response - self.inputs @ weight.T)) / whole if whole else 0.0


@dataclass(frozen=True)
class Moments:
    """Second moments of centred inputs (rows, n) and responses (rows, m): ``gram`` (n, n), ``cross`` (m, n)."""

    gram: np.ndarray
    cross: np.ndarray

    @classmethod
    def of(cls, inputs: np.ndarray, response: np.ndarray) -> Moments:
        """The means over the rows."""
        return cls(inputs.T @ inputs / len(inputs), response.T @ inputs / len(inputs))


def ridged(gram: np.ndarray, ridge: float) -> np.ndarray:
    """``gram + ridge * mean(diag gram) I``; the identity for inputs that never move."""
    mean = float(np.trace(gram)) / len(gram)
    if mean <= 0.0:
        return np.eye(len(gram), dtype=np.float32)
    return gram + np.float32(max(ridge, 1e-6) * mean) * np.eye(len(gram), dtype=np.float32)


def diagonal_blocks(inputs: np.ndarray, ridge: float, span: int) -> list[np.ndarray]:
    """The ridged covariance of centred inputs (rows, n) in equal diagonal blocks of at most ``span``."""
    parts = np.array_split(inputs, -(-inputs.shape[1] // span), axis=1)
    return [ridged(part.T @ part / len(part), ridge) for part in parts]


def choose_ridge(weight: np.ndarray, moments: Moments, rows: GroupRows) -> float:
    """The candidate with the smallest error on the held-out rows, walking downhill from the middle one (1.0 without
    such rows); ``moments`` are those of the other rows."""
    best = CANDIDATES.index(1.0)
    held = rows.held
    if not held.any():
        return CANDIDATES[best]
    difference = moments.cross - weight @ moments.gram
    inputs = rows.inputs[held]
    missed = rows.response[held] - inputs @ weight.T

    @functools.cache
    def error(candidate: int) -> float:
        # float32 is enough to compare: the ridge bounds the condition number by 10 n.
        with one_blas_thread():
            change = np.linalg.solve(ridged(moments.gram, CANDIDATES[candidate]), difference.T)
        return float(np.square(missed - inputs @ change).mean())

    for step in (1, -1):
        while 0 <= best + step < len(CANDIDATES) and error(best + step) < error(best):
            best += step
    return CANDIDATES[best]
