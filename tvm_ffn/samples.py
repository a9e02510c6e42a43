"""Samples of a model's inputs: batches ``{input name: array (b, ...)}``, checked, counted and cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tvm_ffn.errors import DataError
from tvm_ffn.manifest import TensorInfo

Inputs = tuple[TensorInfo, ...]
Batch = dict[str, np.ndarray]


def check_batch(arrays: Mapping[str, Any], inputs: Inputs, where: str) -> Batch:
    """Return the arrays of the inputs, or say what is wrong with which; arrays of other names are left out."""
    checked: Batch = {}
    for info in inputs:
        if info.name not in arrays:
            given = ", ".join(map(str, arrays)) or "nothing"
            raise DataError(f"{where}: no array for the input {info.name!r}; it holds {given}")
        array = np.asarray(arrays[info.name])
        label = f"{where}: array {info.name!r}"
        if array.dtype != np.dtype(info.dtype):
            raise DataError(f"{label} is {array.dtype}, the model takes {info.dtype}; convert it with astype")
        if array.ndim != len(info.shape) or array.shape[1:] != info.shape[1:]:
            wanted = ", ".join(["samples", *map(str, info.shape[1:])])
            raise DataError(f"{label} has shape {array.shape}, the model takes ({wanted})")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataError(f"{label} holds NaN or infinite values")
        checked[info.name] = array
    counts = {name: len(array) for name, array in checked.items()}
    if len(set(counts.values())) > 1:
        raise DataError(f"{where}: the arrays differ in their number of samples: {counts}")
    return checked


def unit_of(inputs: Inputs) -> int:
    """Samples that one run of the model takes: its fixed batch size, or 1."""
    sizes = {info.shape[0] for info in inputs if info.shape and isinstance(info.shape[0], int)}
    if len(sizes) > 1 or not all(info.shape for info in inputs):
        raise DataError("the model's inputs do not share a batch dimension, so they cannot be cut into samples")
    return int(next(iter(sizes))) if sizes else 1


def step_of(unit: int, batch_size: int) -> int:
    """A model with a fixed batch takes just that; one for single samples is fed batches of ``batch_size``."""
    return unit if unit > 1 else max(1, batch_size)


def count(batch: Batch) -> int:
    """Return the number of samples in a batch."""
    return len(next(iter(batch.values())))


def cut(batch: Batch, step: int) -> Iterator[Batch]:
    """Cut a batch into batches of ``step`` samples."""
    for start in range(0, count(batch), step):
        yield {name: array[start : start + step] for name, array in batch.items()}


def noise(rng: np.random.Generator, info: TensorInfo, count: int) -> np.ndarray:
    """Return ``count`` samples of standard normal noise, or of zeros for integers."""
    shape = (count, *(int(dim) for dim in info.shape[1:]))
    return (
        rng.standard_normal(shape).astype(info.dtype)
        if np.dtype(info.dtype).kind == "f"
        else np.zeros(shape, info.dtype)
    )
