"""The solver's inner loops from the native library (csrc/, built by CMake), or NumPy's where it is not built."""

from __future__ import annotations

import functools
import importlib.metadata
import warnings
from pathlib import Path
from typing import Any

from tvm_ffn.factorize.backend import Backend
from tvm_ffn.factorize.products import Matrix, default_threads
from tvm_ffn.factorize.reference import NumpyBackend

LIBRARY = "libtvm_ffn_native.so"


def library_path() -> Path | None:
    """Where the library lies: beside the package (wheel, built clone) or where an editable install put it."""
    beside = Path(__file__).resolve().parents[1] / LIBRARY
    if beside.exists():
        return beside
    try:
        files = importlib.metadata.files("tvm_ffn") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name == LIBRARY:
            path = Path(str(file.locate()))
            return path if path.exists() else None
    return None


@functools.cache
def library() -> Any | None:
    """The native library, or None (with one warning) where it is not built."""
    path = library_path()
    if path is None:
        warnings.warn(
            f"{LIBRARY} is not built: factorising runs in NumPy, some 50 times slower. "
            "Build it with `cmake -B build && cmake --build build`, or install the package with pip.",
            RuntimeWarning,
            stacklevel=4,
        )
        return None
    import tvm_ffi

    return tvm_ffi.load_module(str(path))


def fastest_backend(threads: int | None = None) -> Backend:
    """The native loops, or NumPy's (with one warning) where they are not built; ``threads`` None: all cores."""
    native = library()
    count = threads or default_threads()
    return NumpyBackend(count) if native is None else NativeBackend(native, count)


class NativeBackend(Backend):
    """`Backend` in C++; results do not depend on ``threads``."""

    name = "native"

    def __init__(self, library: Any, threads: int) -> None:
        super().__init__(threads)
        self._library = library

    def greedy(
        self, residual: Matrix, fallback: Matrix, x: Matrix, y: Matrix, d: Matrix, max_iterations: int, tolerance: float
    ) -> None:
        self._library.greedy(residual, fallback, x, y, d, max_iterations, tolerance, self._threads)

    def joint_block(self, gram: Matrix, s: Matrix, z: Matrix, d: Matrix) -> int:
        return int(self._library.joint_block(gram, s, z, d))

    def ternary_block(self, gram: Matrix, s: Matrix, z: Matrix) -> int:
        return int(self._library.ternary_block(gram, s, z))

    def weighted_block(self, gram: Matrix, h: Matrix, s: Matrix, y: Matrix) -> int:
        return int(self._library.weighted_block(gram, h, s, y))

    def column_block(
        self,
        gram: Matrix,
        lower: Matrix,
        inverse: Matrix,
        feed: Matrix,
        previous: Matrix,
        target: Matrix,
        y: Matrix,
        passes: int,
        width: int,
    ) -> int:
        return int(self._library.column_block(gram, lower, inverse, feed, previous, target, y, passes, width))

    def level_pass(
        self, feedback: Matrix, price: float, unit: Matrix, costs: Matrix, target: Matrix, q: Matrix, width: int
    ) -> None:
        self._library.level_pass(feedback, price, unit, costs, target, q, width, self._threads)

    def level_descent(self, h: Matrix, price: float, unit: Matrix, costs: Matrix, s: Matrix, q: Matrix) -> int:
        return int(self._library.level_descent(h, price, unit, costs, s, q, self._threads))
