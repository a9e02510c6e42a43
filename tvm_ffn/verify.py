"""Compare a compiled module with the fp32 model it came from, sample by sample."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tvm_ffn.comparison import Comparison, Verification
from tvm_ffn.errors import DataError, ModelError
from tvm_ffn.manifest import TensorInfo
from tvm_ffn.progress import progress
from tvm_ffn.runtime import Module

Sample = dict[str, np.ndarray]


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
    comparison = Comparison([info.name for info in module.outputs], truth)
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


def run_samples(module: Module, arrays: Mapping[str, np.ndarray], where: str) -> list[np.ndarray]:
    """The outputs for any number of samples: a module of a fixed batch runs batch by batch, and outputs are joined.

    ``where`` the arrays come from is for errors.
    """
    from tvm_ffn.samples import check_batch, count, unit_of

    lengths = {len(array) for array in arrays.values() if array.ndim}
    if module.manifest.symbolic_batch or lengths == {info.shape[0] for info in module.inputs if info.shape}:
        return module.run(arrays)
    batch, size = check_batch(arrays, module.inputs, where), unit_of(module.inputs)
    whole = [info.name for info in module.outputs if info.shape[:1] != (size,)]
    if whole:
        raise DataError(f"{where}: the output {whole[0]!r} has no batch dimension: run one batch of {size} at a time")
    if not count(batch):
        raise DataError(f"{where}: the arrays hold no samples")
    results = [module.run(sample) for sample in single_samples([batch], module.inputs)]
    return [np.concatenate(parts) for parts in zip(*results, strict=True)]


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


def _names(infos: Sequence[TensorInfo]) -> str:
    return ", ".join(map(str, infos))
