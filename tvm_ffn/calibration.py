"""Calibration data: unlabelled samples of a model's inputs, read in batches as often as needed, in bounded memory.

A source is a folder of images, an ``.npz`` or ``.npy`` file, arrays in memory, or any iterable of ``{name: array}``.
Images are decoded batch by batch, an iterable that can be restarted is restarted, and only a one-shot generator is
kept. Every array is checked before it is used: its name, dtype and shape, and that it holds no NaN.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tvm_ffn.array_file import read_arrays
from tvm_ffn.errors import DataError
from tvm_ffn.preprocess import Preprocess, image_files
from tvm_ffn.samples import Batch, Inputs, check_batch, count, cut, noise, step_of, unit_of

__all__ = ["Calibration", "Preprocess", "image_files", "open_calibration"]

WANTED = "a folder of images, an .npz file, an array or an iterable of {name: array}"
LARGEST = 1e12  # magnitude of an input: sums of squares of what layers make of it must stay finite in float32


class Calibration:
    """Samples in batches: iterate as often as you like, each batch is ``{input name: array (b, ...)}``."""

    def __init__(
        self,
        batches: Callable[[], Iterator[Batch]],
        samples: int,
        description: str,
        *,
        preprocess: Preprocess | None = None,
        is_synthetic: bool = False,
    ) -> None:
        self._batches = batches
        self._samples = samples
        self.description = description  # one line for reports
        self.preprocess = preprocess  # complete for images, None for arrays
        self.is_synthetic = is_synthetic  # noise, not data

    def __len__(self) -> int:
        return self._samples

    def __iter__(self) -> Iterator[Batch]:
        return self._batches()

    @cached_property
    def is_uniform(self) -> bool:
        """Whether there are several samples, and all are the same."""
        sample: Batch = {}
        for batch in self:
            sample = sample or {name: array[:1] for name, array in batch.items()}
            if any((array != sample[name]).any() for name, array in batch.items()):
                return False
        return len(self) > 1

    def first(self, count: int) -> Calibration:
        """The first ``count`` samples."""

        def batches() -> Iterator[Batch]:
            left = count
            for batch in self:
                size = len(next(iter(batch.values())))
                yield {name: array[:left] for name, array in batch.items()}
                left -= size
                if left <= 0:
                    return

        description = f"the first {count} of {self.description}"
        kept = min(count, len(self))
        return Calibration(batches, kept, description, preprocess=self.preprocess, is_synthetic=self.is_synthetic)

    @classmethod
    def synthetic(cls, inputs: Inputs, n: int, seed: int = 0, batch_size: int = 16) -> Calibration:
        """Return standard normal noise (zeros for integer inputs): enough for speed, worthless for accuracy."""
        unit = unit_of(inputs)
        step = step_of(unit, batch_size)
        total = -(-n // unit) * unit

        def batches() -> Iterator[Batch]:
            rng = np.random.default_rng(seed)
            for start in range(0, total, step):
                yield {info.name: noise(rng, info, min(step, total - start)) for info in inputs}

        return cls(batches, total, f"{total} synthetic samples (noise, seed {seed})", is_synthetic=True)


def open_calibration(
    source: Any,
    inputs: Inputs,
    *,
    preprocess: Preprocess | None = None,
    limit: int | None = None,
    batch_size: int = 16,
) -> Calibration:
    """Open calibration data for a model with the given inputs.

    ``preprocess`` applies to images (default: ImageNet's for three channels, 0..1 for one); arrays are taken as they
    are. ``limit`` uses the first samples only. What cannot be used is a DataError that names the file and tensor.
    """
    if source is None:
        raise DataError(f"no calibration data: give {WANTED}")
    if limit is not None and limit < 1:
        raise DataError(f"the limit of {limit} calibration samples must be at least 1")
    if isinstance(source, Calibration):
        return source
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if path.is_dir():
            return _from_images(path, inputs, preprocess or Preprocess(), limit, batch_size)
        if not path.exists():
            raise DataError(f"{path}: no such calibration file or folder; give {WANTED}")
        return _from_arrays(read_arrays(path), inputs, str(path), f"of {path.name}", limit, batch_size)
    if isinstance(source, (np.ndarray, Mapping)):
        return _from_arrays(source, inputs, "calibration", "in memory", limit, batch_size)
    if isinstance(source, Iterable):
        return _from_iterable(source, inputs, limit, batch_size)
    raise DataError(f"calibration data is {type(source).__name__}: give {WANTED}")


def _from_images(folder: Path, inputs: Inputs, preprocess: Preprocess, limit: int | None, size: int) -> Calibration:
    if len(inputs) != 1:
        raise DataError(f"{folder}: images feed one input, the model has {len(inputs)}; give an .npz file")
    complete = preprocess.for_input(inputs[0])
    unit = unit_of(inputs)
    files = image_files(folder)[:limit]
    files = files[: len(files) // unit * unit]
    if not files:
        raise DataError(f"{folder}: holds no images, or fewer than the model's batch of {unit}")
    step = step_of(unit, size)

    def batches() -> Iterator[Batch]:
        for start in range(0, len(files), step):
            pixels = np.stack([complete.load(path) for path in files[start : start + step]])
            yield {inputs[0].name: complete.normalize(pixels)}

    complete.load(files[0])
    return Calibration(batches, len(files), f"{len(files)} images of {folder.name}", preprocess=complete)


def _checked(arrays: Mapping[str, Any], inputs: Inputs, where: str) -> Batch:
    """The arrays of the inputs as `check_batch` wants them, no value beyond what a scale can be found for."""
    batch = check_batch(arrays, inputs, where)
    for name, array in batch.items():
        largest = max(float(array.max(initial=0)), -float(array.min(initial=0)))
        if array.dtype.kind == "f" and largest > LARGEST:
            raise DataError(
                f"{where}: array {name!r} holds values of magnitude {largest:.3g}, the largest allowed is {LARGEST:g}: "
                "scale the data as the model was trained on it, and leave out what was never filled in"
            )
    return batch


def _from_arrays(
    arrays: np.ndarray | Mapping[str, Any], inputs: Inputs, where: str, origin: str, limit: int | None, size: int
) -> Calibration:
    if isinstance(arrays, np.ndarray):
        if len(inputs) != 1:
            names = ", ".join(info.name for info in inputs)
            raise DataError(f"{where}: one array for {len(inputs)} inputs; give an array for each of {names}")
        arrays = {inputs[0].name: arrays}
    checked = _checked(arrays, inputs, where)
    unit = unit_of(inputs)
    total = count(checked) if limit is None else min(count(checked), limit)
    total = total // unit * unit
    if not total:
        raise DataError(f"{where}: holds no samples, or fewer than the model's batch of {unit}")

    def batches() -> Iterator[Batch]:
        return cut({name: array[:total] for name, array in checked.items()}, step_of(unit, size))

    return Calibration(batches, total, f"{total} samples {origin}")


def _from_iterable(source: Iterable[Any], inputs: Inputs, limit: int | None, size: int) -> Calibration:
    unit = unit_of(inputs)

    def batches() -> Iterator[Batch]:
        left = limit
        for position, item in enumerate(source):
            where = f"calibration batch {position}"
            if not isinstance(item, Mapping):
                raise DataError(f"{where} is {type(item).__name__}: give a dict {{input name: array}}")
            checked = _checked(item, inputs, where)
            taken = count(checked) if left is None else min(count(checked), left)
            if taken % unit:
                raise DataError(f"{where}: {taken} samples are no multiple of the model's batch size {unit}")
            yield from cut({name: array[:taken] for name, array in checked.items()}, step_of(unit, size))
            if left is not None:
                left -= taken
                if left <= 0:
                    return

    if iter(source) is source:
        kept = list(batches())
        total = sum(map(count, kept))
        again: Callable[[], Iterator[Batch]] = lambda: iter(kept)  # noqa: E731
    else:
        total, again = sum(map(count, batches())), batches
    if not total:
        raise DataError(f"the calibration data is empty: give {WANTED}")
    return Calibration(again, total, f"{total} samples of an iterable")
