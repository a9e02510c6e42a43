"""Compare a compiled module with the fp32 model it came from, sample by sample.

Agreement is the share of samples with the same top-1 class, the divergence KL(p || q) that of the module's class
probabilities q from the fp32 model's p, in nats. Both need no labels and resolve finer than accuracy on few samples.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tvm_ffn.errors import AccuracyError, DataError, ModelError
from tvm_ffn.manifest import TensorInfo
from tvm_ffn.progress import progress
from tvm_ffn.runtime import Module

Sample = dict[str, np.ndarray]


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
        if self.accuracy is not None and self.accuracy_fp32 is not None:
            lines += [f"top-1 fp32              {100 * self.accuracy_fp32:.2f} %"]
            lines += [f"top-1 module            {100 * self.accuracy:.2f} %  (drop {self.drop:.2f} points)"]
        lines += [f"relative error          {name}: {error:.4g}" for name, error in self.relative_error.items()]
        return "\n".join(lines)


def verify(
    module: Module,
    model: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    labels: str | os.PathLike[str] | None = None,
    limit: int | None = None,
) -> Verification:
    """Run ``module`` and the fp32 ``model`` on ``data`` (a folder of images or an ``.npz``) and compare.

    Images are preprocessed as the module's manifest says. ``labels`` is a CSV file, see :func:`read_labels`.
    """
    from tvm_ffn.calibration import Preprocess, open_calibration
    from tvm_ffn.importer import load_model
    from tvm_ffn.interpreter import Interpreter

    imported = load_model(model)
    if imported.inputs != module.inputs:
        raise ModelError(
            f"{model} is not the model that was compiled: it takes {_names(imported.inputs)}, "
            f"the module {_names(module.inputs)}"
        )
    stored = module.manifest.preprocess
    preprocess = None if stored is None else Preprocess.from_json(stored)
    samples = open_calibration(data, module.inputs, preprocess=preprocess, limit=limit)
    truth = None if labels is None else read_labels(Path(labels), Path(data), len(samples))
    reference = Interpreter(imported.mod)
    # A Relax parameter may be named differently from the ONNX input of the same position.
    params = dict(
        zip((info.name for info in module.inputs), (p.name for p in imported.mod["main"].params), strict=True)
    )
    comparison = _Comparison([info.name for info in module.outputs], truth)
    for sample in progress(single_samples(samples, module.inputs), "verifying", len(samples)):
        expected = reference.run({params[name]: array for name, array in sample.items()})
        comparison.add(expected, module.run(sample))
    return comparison.result()


def single_samples(batches: Any, inputs: Sequence[TensorInfo]) -> Iterator[Sample]:
    """Cut batches of ``{name: array}`` into samples of the module's batch size (1 if that is symbolic)."""
    sizes = {info.shape[0] if info.shape and isinstance(info.shape[0], int) else 1 for info in inputs}
    size = max(sizes, default=1)
    for batch in batches:
        count = len(next(iter(batch.values())))
        if count % size:
            raise DataError(f"{count} samples are no multiple of the model's batch size {size}")
        for start in range(0, count, size):
            yield {name: array[start : start + size] for name, array in batch.items()}


def read_labels(path: Path, data: Path, count: int) -> np.ndarray:
    """Read class numbers from a CSV file with a header that holds the column ``label``.

    With a column ``file`` and a folder of images, labels belong to the images of that name; otherwise to the samples in
    order. Returns ``count`` integers.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read the labels {path}: {error}") from error
    if not rows or "label" not in rows[0]:
        raise DataError(f"{path}: a labels file is CSV with a header line that holds the column 'label'")
    try:
        values = [int(row["label"]) for row in rows]
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: a label is not a class number: {error}") from error
    if data.is_dir() and "file" in rows[0]:
        by_name = dict(zip((Path(row["file"]).name for row in rows), values, strict=True))
        return _labels_of_images(by_name, data, count, path)
    if len(values) < count:
        raise DataError(f"{path} has {len(values)} labels for {count} samples")
    return np.array(values[:count])


def _labels_of_images(by_name: Mapping[str, int], folder: Path, count: int, path: Path) -> np.ndarray:
    from tvm_ffn.calibration import image_files

    names = [file.name for file in image_files(folder)][:count]
    missing = [name for name in names if name not in by_name]
    if missing:
        raise DataError(f"{path} has no label for {len(missing)} of the images, for example {missing[0]}")
    return np.array([by_name[name] for name in names])


class _Comparison:
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
        p, q = expected[0], actual[0]
        p, q = p.reshape(len(p), -1) if p.ndim else p, q.reshape(len(q), -1) if q.ndim else q
        self._classes &= (
            p.ndim == 2 and p.shape[1] > 1 and expected[0].size == expected[0].shape[0] * expected[0].shape[1]
        )
        if self._classes:
            first = self._samples
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
    probabilities = bool((expected >= 0).all() and np.allclose(expected.sum(1), 1, atol=1e-3))
    p, q = (_log_probabilities(values.astype(np.float64), probabilities) for values in (expected, actual))
    return (np.exp(p) * (p - q)).sum(1)


def _log_probabilities(values: np.ndarray, probabilities: bool) -> np.ndarray:
    logits = np.log(np.maximum(values, 1e-12)) if probabilities else values
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def _names(infos: Sequence[TensorInfo]) -> str:
    return ", ".join(map(str, infos))
