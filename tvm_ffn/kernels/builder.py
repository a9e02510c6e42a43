"""A few lines over TVM's IRBuilder to state a kernel as named blocks, one tensor a block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer, PrimFunc

Index = Callable[..., Any]


class KernelBuilder:
    """Collects blocks into one schedulable PrimFunc, without a global symbol (the module that takes it gives the name).

    ``attrs`` become function attributes: passes and schedules meet in them. The arguments are declared in order with
    `arg`; every further tensor is made by `compute` or `reduce`.
    """

    def __init__(self, name: str, attrs: Mapping[str, Any]) -> None:
        self._builder = IRBuilder()
        self._builder.__enter__()
        self._function = T.prim_func(is_private=True, s_tir=True)
        self._function.__enter__()
        T.func_name(name)
        T.func_attr({"tirx.noalias": True, **attrs})
        self._root: Any = None

    def arg(self, name: str, shape: Sequence[int], dtype: str) -> Buffer:
        """Declare the next argument of the function."""
        return T.arg(name, T.Buffer(tuple(shape), dtype))

    def tensor(self, name: str, shape: Sequence[int], dtype: str) -> Buffer:
        """A new tensor to be filled by blocks that name it as ``out``, or by a `program`."""
        self._enter_root()
        return self._allocate(name, shape, dtype)

    def _allocate(self, name: str, shape: Sequence[int], dtype: str) -> Buffer:
        buffer = T.sblock_alloc_buffer(tuple(shape), dtype)
        IRBuilder.name(name, buffer)
        return buffer

    def _enter_root(self) -> None:
        if self._root is None:
            self._root = T.sblock("root")
            self._root.__enter__()
            T.reads()
            T.writes()

    def compute(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str,
        value: Index,
        *,
        out: Buffer | None = None,
        at: Index | None = None,
        size: Sequence[int] | None = None,
    ) -> Buffer:
        """One block over ``shape`` that stores ``value(*indices)``, by default at those indices of a new tensor.

        ``out`` names an existing tensor instead. ``at`` maps the indices to another place; with ``size``, in a new
        tensor of that size, scattered over its last axis: the block then claims that whole axis, so that the elements
        which are never written (and never matter) do not stop a schedule.
        """
        self._enter_root()
        target = out if out is not None else self._allocate(name, size or shape, dtype)
        with T.grid(*shape) as loops:
            with T.sblock(name):
                index = [T.axis.spatial(n, v) for n, v in zip(shape, _tuple(loops), strict=True)]
                place = index
                if at is not None:
                    place = list(at(*index))
                    if size is not None:
                        T.writes(target[(*place[:-1], slice(0, size[-1]))])
                T.buffer_store(target, value(*index), place)
        return target

    def reduce(
        self,
        name: str,
        shape: Sequence[int],
        over: Sequence[int],
        dtype: str,
        value: Index,
        *,
        combine: Callable[[Any, Any], Any] = lambda total, item: total + item,
        identity: Any = 0,
        reads: Index | None = None,
    ) -> Buffer:
        """One block that combines ``value(*indices, *reduction)`` over the extents ``over`` into a new tensor.

        ``reads`` states the regions read where an index is data (a gather), which no analysis can bound.
        """
        self._enter_root()
        target = self._allocate(name, shape, dtype)
        with T.grid(*shape, *over) as loops:
            with T.sblock(name):
                loops = _tuple(loops)
                index = [T.axis.spatial(n, v) for n, v in zip(shape, loops[: len(shape)], strict=True)]
                inner = [T.axis.reduce(n, v) for n, v in zip(over, loops[len(shape) :], strict=True)]
                if reads is not None:
                    T.reads(*reads(*index, *inner))
                    T.writes(target[tuple(index)])
                with T.init():
                    T.buffer_store(target, _constant(dtype, identity), index)
                T.buffer_store(target, combine(target[tuple(index)], value(*index, *inner)), index)
        return target

    @contextmanager
    def tile(self, name: str, outer: Sequence[int]) -> Iterator[list[Any]]:
        """An outer block over ``outer``: tensors made inside belong to one of its instances. Yields the indices."""
        self._enter_root()
        with T.grid(*outer) as loops:
            with T.sblock(name):
                yield [T.axis.spatial(n, v) for n, v in zip(outer, _tuple(loops), strict=True)]

    @contextmanager
    def program(self, name: str, *, reads: Sequence[Any], writes: Sequence[Any], llvm: str = "") -> Iterator[None]:
        """One block whose statements the caller writes out, loops and vectors included: for loops whose lengths are
        data, which no schedule could change. ``reads`` and ``writes`` are the regions it touches; it may call functions
        of the LLVM module ``llvm``."""
        with T.sblock(name):
            T.reads(*reads)
            T.writes(*writes)
            with _importing(llvm) if llvm else nullcontext():
                yield

    def call_assembly(
        self, name: str, shape: Sequence[int], dtype: str, llvm: str, *, reads: Any, calls: Callable[[Buffer], None]
    ) -> Buffer:
        """One block that fills a new tensor by calling functions of the LLVM module ``llvm``; ``reads`` is the region
        they read, ``calls(tensor)`` emits the calls."""
        target = self._allocate(name, shape, dtype)
        with T.sblock(name):
            T.reads(reads)
            T.writes(target[tuple(slice(0, extent) for extent in shape)])
            with _importing(llvm):
                calls(target)
        return target

    def finish(self) -> PrimFunc:
        """Close the function and return it."""
        self._root.__exit__(None, None, None)
        self._function.__exit__(None, None, None)
        self._builder.__exit__(None, None, None)
        return self._builder.get()


def _importing(llvm: str) -> Any:
    """Around statements that call functions of an LLVM module."""
    return T.attr(T.int32(0), "pragma_import_llvm", llvm)


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, Sequence) else (value,)


def _constant(dtype: str, value: int | float) -> Any:
    return getattr(T, dtype)(value)
