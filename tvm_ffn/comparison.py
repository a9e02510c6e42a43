"""How far one network's answers are from another's, sample by sample, without labels or with them.

Agreement is the share of samples with the same top-1 class; the divergence KL(p || q) that of the class probabilities q
from the fp32 model's p, in nats; the expected drop the points of top-1 that such a divergence costs. All three need no
labels and resolve finer than accuracy on few samples. Where the first output is no class vector, the damage is half the
squared relative error of the outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tvm_ffn.errors import AccuracyError, DataError

DAMAGE_A_POINT = 0.03
"""Held-out damage (KL divergence in nats) that may cost a point of top-1: .04 does, and on images that chose neither
ridges nor plan the divergence is up to 1.7 times that of the held-out samples."""
ERROR_A_POINT = 0.05
"""What costs about a point where outputs are no classes: their relative error. Points grow with its square, as damage
does."""


@dataclass(frozen=True)
class Verification:
    """The outcome of :func:`verify`. Shares are in [0, 1]; class figures are None if output 0 is no class vector."""

    samples: int
    relative_error: dict[str, float]  # ||module - fp32|| / ||fp32|| of each output, over all samples
    agreement: float | None  # same top-1 class
    divergence: float | None  # mean KL(fp32 || module), nats
    accuracy_fp32: float | None  # top-1, with labels
    accuracy: float | None

    @property
    def expected_drop(self) -> float:
        """Top-1 points lost, estimated without labels from how far the answers moved: on few samples the divergence is
        known far better than the answers that changed."""
        if self.divergence is None:
            return (max(self.relative_error.values()) / ERROR_A_POINT) ** 2
        return self.divergence / DAMAGE_A_POINT

    @property
    def drop(self) -> float | None:
        """Top-1 points (percent) lost; without labels the disagreement with fp32, which bounds it from above."""
        if self.accuracy is not None and self.accuracy_fp32 is not None:
            return 100 * (self.accuracy_fp32 - self.accuracy)
        return None if self.agreement is None else 100 * (1 - self.agreement)

    def check(self, max_drop: float) -> None:
        """Raise AccuracyError if more than ``max_drop`` points are lost."""
        if self.drop is None:
            raise DataError("an accuracy gate needs a model whose first output is a vector of classes")
        if self.drop > max_drop:
            what = "top-1 drop" if self.accuracy is not None else "disagreement with fp32"
            raise AccuracyError(f"{what} of {self.drop:.2f} points on {self.samples} samples exceeds {max_drop:g}")

    def text(self) -> str:
        """Return the figures as lines of text."""
        lines = [f"samples                 {self.samples}"]
        if self.agreement is not None and self.divergence is not None:
            lines += [f"agreement with fp32     {100 * self.agreement:.2f} %"]
            lines += [f"KL(fp32 || module)      {self.divergence:.4g} nats"]
            lines += [f"expected top-1 drop     {self.expected_drop:.2f} points"]
        if self.accuracy is not None and self.accuracy_fp32 is not None:
            lines += [f"top-1 fp32              {100 * self.accuracy_fp32:.2f} %"]
            lines += [f"top-1 module            {100 * self.accuracy:.2f} %  (drop {self.drop:.2f} points)"]
        lines += [f"relative error          {name}: {error:.4g}" for name, error in self.relative_error.items()]
        return "\n".join(lines)


class Comparison:
    """Sums over samples."""

    def __init__(self, outputs: list[str], labels: np.ndarray | None) -> None:
        self._outputs, self._labels = outputs, labels
        self._samples = 0
        self._errors = np.zeros((len(outputs), 2))
        self._classes = True
        self._same, self._divergence = 0, 0.0
        self._right = np.zeros(2, np.int64)

    def add(self, expected: list[np.ndarray], actual: list[np.ndarray]) -> None:
        for sums, want, have in zip(self._errors, expected, actual, strict=True):
            sums += np.square(have.astype(np.float64) - want).sum(), np.square(want, dtype=np.float64).sum()
        self._classes &= is_classes(expected[0].shape)
        if self._classes:
            first = self._samples
            p, q = (values[0].reshape(len(values[0]), -1) for values in (expected, actual))
            top = np.stack([p.argmax(1), q.argmax(1)])
            self._same += int((top[0] == top[1]).sum())
            self._divergence += float(divergence(p, q).sum())
            if self._labels is not None:
                self._right += (top == self._labels[first : first + len(p)]).sum(1)
        self._samples += len(expected[0]) if expected[0].ndim else 1

    def result(self) -> Verification:
        count = self._samples
        errors = np.sqrt(self._errors[:, 0] / np.maximum(self._errors[:, 1], np.finfo(np.float64).tiny))
        labelled = self._classes and self._labels is not None
        return Verification(
            samples=count,
            relative_error={name: float(error) for name, error in zip(self._outputs, errors, strict=True)},
            agreement=self._same / count if self._classes else None,
            divergence=self._divergence / count if self._classes else None,
            accuracy_fp32=float(self._right[0] / count) if labelled else None,
            accuracy=float(self._right[1] / count) if labelled else None,
        )


def divergence(expected: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """Return KL(p || q) in nats for each row of (n, classes) logits, or of probabilities if ``expected`` holds such."""
    probabilities = _are_probabilities(expected)
    p, q = (_log_probabilities(values.astype(np.float64), probabilities) for values in (expected, actual))
    return np.maximum((np.exp(p) * (p - q)).sum(1), 0.0)


def damage(expected: Sequence[np.ndarray], actual: Sequence[np.ndarray]) -> float:
    """Return what the answers to a batch have lost, on average; at most 1 where they are no classes."""
    first = expected[0]
    if is_classes(first.shape):
        return float(divergence(first.reshape(len(first), -1), actual[0].reshape(len(first), -1)).mean())
    errors = []
    for want, have in zip(expected, actual, strict=True):
        energy = float(np.square(want, dtype=np.float64).sum())
        lost = float(np.square(have.astype(np.float64) - want).sum())
        errors.append(lost / energy if energy > 0 else float(lost > 0))
    return min(float(np.mean(errors)) / 2, 1.0)


def is_classes(shape: Sequence[int]) -> bool:
    """Whether an output of this shape is one vector of at least two classes a sample."""
    return len(shape) >= 2 and shape[1] > 1 and int(np.prod(shape)) == shape[0] * shape[1]


def _are_probabilities(values: np.ndarray) -> bool:
    return bool((values >= 0).all() and np.allclose(values.sum(1), 1, atol=1e-3))


def _log_probabilities(values: np.ndarray, probabilities: bool) -> np.ndarray:
    logits = np.log(np.maximum(values, 1e-12)) if probabilities else values
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
