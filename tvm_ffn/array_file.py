"""Files of arrays, ``.npz`` or ``.npy``."""

from __future__ import annotations

import os
import zipfile
import zlib

import numpy as np

from tvm_ffn.errors import DataError


def read_arrays(path: str | os.PathLike[str]) -> np.ndarray | dict[str, np.ndarray]:
    """The arrays of an ``.npz`` file by name, or the one of an ``.npy`` file; any other file is a DataError."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError, TypeError, AttributeError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        if "Object arrays" in str(error):
            raise DataError(f"{path}: arrays of objects are not accepted; convert them with astype") from error
        raise DataError(f"{path}: damaged, or no .npz file of arrays") from error
