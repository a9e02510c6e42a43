"""A folder of results that took long to compute, each under a hash of all it depends on.

An entry is one ``.npz`` file: it appears complete or not at all, its checksums are verified when it is read, and a
damaged one counts as absent. Reading an entry makes it the newest; the oldest go when the folder grows too large.
Nothing that happens here fails a compilation: what cannot be read or written is logged and computed again.
"""

from __future__ import annotations

import logging
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tvm_ffn.atomic import write_file
from tvm_ffn.errors import OutputError

log = logging.getLogger("tvm_ffn")
T = TypeVar("T")

VARIABLE = "TVM_FFN_CACHE"
LIMIT_BYTES = 2_000_000_000
_DAMAGED = (OSError, ValueError, KeyError, TypeError, IndexError, EOFError, zipfile.BadZipFile, zlib.error)


class Cache:
    """Entries in ``folder``, together at most ``limit`` bytes; ``None`` keeps nothing."""

    def __init__(self, folder: Path | None, limit: int = LIMIT_BYTES) -> None:
        self.folder, self.limit = folder, limit

    @classmethod
    def of_user(cls) -> Cache:
        """The folder that ``TVM_FFN_CACHE`` names ("0" or empty: none), else the user's cache folder."""
        named = os.environ.get(VARIABLE)
        if named is not None:
            return cls(None if named in ("", "0") else Path(named))
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        return cls(Path(home) / "tvm_ffn")

    def load(self, key: str, read: Callable[[Mapping[str, np.ndarray]], T]) -> T | None:
        """What ``read`` makes of the entry's arrays; None if there is none or it is damaged."""
        path = self._path(key)
        if path is None or not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as arrays:
                result = read({name: arrays[name] for name in arrays.files})
            os.utime(path)
        except _DAMAGED as error:
            log.warning("%s is damaged (%s): computed again", path, error)
            return None
        return result

    def store(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write or replace an entry (no array may be named "file"), then drop the oldest beyond the limit."""
        path = self._path(key)
        if path is None:
            return
        named: dict[str, Any] = dict(arrays)
        try:
            write_file(path, lambda place: np.savez_compressed(place, **named))
            self._shrink()
        except (OutputError, OSError) as error:
            log.warning("the result is not cached: %s", error)

    def describe(self) -> str:
        """One line: where, how many entries, how large."""
        if self.folder is None:
            return f"off ({VARIABLE})"
        sizes = [path.stat().st_size for path in self.folder.glob("*.npz")]
        return f"{self.folder}, {len(sizes)} {'entry' if len(sizes) == 1 else 'entries'}, {sum(sizes) / 1e6:.1f} MB"

    def _path(self, key: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{key}.npz"

    def _shrink(self) -> None:
        """Remove the entries that were used longest ago; another process may remove the same."""
        assert self.folder is not None
        newest = sorted(((p.stat().st_mtime, p.stat().st_size, p) for p in self.folder.glob("*.npz")), reverse=True)
        total = 0
        for _, size, path in newest:
            total += size
            if total > self.limit:
                path.unlink(missing_ok=True)
