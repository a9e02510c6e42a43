"""Work on all cores by threads of our own, with BLAS kept to one thread in each.

BLAS libraries split every product among threads that spin while they wait for each other: fast on an idle machine,
but many times slower than one thread as soon as something else wants a core. Independent pieces in threads that never
wait are fast in both cases.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from tvm_ffn.host import cores

T = TypeVar("T")


def for_each(function: Callable[[T], None], pieces: Iterable[T]) -> None:
    """Call ``function`` on every piece, several at a time; the first exception is raised."""
    with one_blas_thread():
        for _ in _pool().map(function, pieces):
            pass


def one_blas_thread() -> AbstractContextManager[Any]:
    """Within this context NumPy's products run in the thread that asks for them."""
    return _blas().limit(limits=1, user_api="blas")


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores(), "tvm_ffn")


@functools.cache
def _blas() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
