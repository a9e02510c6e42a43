"""Check what a caller feeds to a compiled model, and cut a batch into samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tvm_ffn.errors import DataError
from tvm_ffn.manifest import TensorInfo
from tvm_ffn.suggest import did_you_mean


def checked(inputs: Mapping[str, np.ndarray], infos: Sequence[TensorInfo]) -> list[np.ndarray]:
    """Return the arrays in the order of ``infos``; a difference in name, shape or dtype is a DataError."""
    if not isinstance(inputs, Mapping):
        raise DataError(f"run takes a mapping of input names to arrays, not {type(inputs).__name__}")
    names = [info.name for info in infos]
    for name in inputs:
        if name not in names:
            raise DataError(f"unknown input {name!r}{did_you_mean(str(name), names)}; the model takes {_list(infos)}")
    missing = [name for name in names if name not in inputs]
    if missing:
        raise DataError(f"the input {missing[0]!r} is missing; the model takes {_list(infos)}")
    return [_checked_array(info, np.asarray(inputs[info.name])) for info in infos]


def batch_size(arrays: Sequence[np.ndarray], inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> int:
    """Return the number of samples in a symbolic batch; DataError if the inputs differ in it or it cannot be run."""
    sizes = {info.name: array.shape[0] for info, array in zip(inputs, arrays, strict=True) if _batched(info)}
    if len(set(sizes.values())) > 1:
        raise DataError(f"the inputs differ in batch size: {sizes}")
    size = next(iter(sizes.values()))
    if size == 0:
        raise DataError("the batch is empty")
    fixed = [info.name for info in outputs if not _batched(info)]
    if size > 1 and fixed:
        raise DataError(f"the output {fixed[0]!r} has no batch dimension: run one sample at a time")
    return size


def sample(arrays: Sequence[np.ndarray], inputs: Sequence[TensorInfo], index: int) -> list[np.ndarray]:
    """Return one sample of a symbolic batch, as a batch of 1."""
    pairs = zip(inputs, arrays, strict=True)
    return [array[index : index + 1] if _batched(info) else array for info, array in pairs]


def check_finite(arrays: Sequence[np.ndarray], infos: Sequence[TensorInfo]) -> None:
    """Raise DataError for NaN and infinite values."""
    for info, array in zip(infos, arrays, strict=True):
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise DataError(f"the input {info.name!r} holds NaN or infinite values")


def random_inputs(infos: Sequence[TensorInfo], seed: int = 0) -> dict[str, np.ndarray]:
    """Return one random sample for every input: standard normal floats, zeros of other types."""
    rng = np.random.default_rng(seed)
    values = {}
    for info in infos:
        shape = tuple(dim if isinstance(dim, int) else 1 for dim in info.shape)
        floating = np.issubdtype(np.dtype(info.dtype), np.floating)
        values[info.name] = (rng.standard_normal(shape) if floating else np.zeros(shape)).astype(info.dtype)
    return values


def _checked_array(info: TensorInfo, array: np.ndarray) -> np.ndarray:
    if array.dtype != np.dtype(info.dtype):
        raise DataError(f"the input {info.name!r} is {array.dtype}, the model takes {info.dtype}; convert with astype")
    fits = len(array.shape) == len(info.shape) and all(
        isinstance(want, str) or have == want for have, want in zip(array.shape, info.shape, strict=True)
    )
    if not fits:
        only_batch = array.ndim > 0 and array.shape[1:] == info.shape[1:]
        advice = f": run batches of {info.shape[0]}, or export the model with a symbolic batch" if only_batch else ""
        wanted = ", ".join(map(str, info.shape))
        raise DataError(f"the input {info.name!r} has shape {array.shape}, the model takes ({wanted}){advice}")
    return array


def _batched(info: TensorInfo) -> bool:
    return bool(info.shape) and isinstance(info.shape[0], str)


def _list(infos: Sequence[TensorInfo]) -> str:
    return ", ".join(map(str, infos))
