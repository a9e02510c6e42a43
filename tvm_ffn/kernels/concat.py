"""Int8 tensors strung together along one axis: a copy of each, contiguous from that axis on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm.tirx import Buffer, PrimFunc

from tvm_ffn.kernels.builder import KernelBuilder

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Concat:
    """Static description: the ``shapes`` of the parts, equal but for ``axis``."""

    shapes: tuple[Shape, ...]
    axis: int

    @property
    def out_shape(self) -> Shape:
        first, whole = self.shapes[0], sum(shape[self.axis] for shape in self.shapes)
        return (*first[: self.axis], whole, *first[self.axis + 1 :])

    def prim_func(self, name: str) -> PrimFunc:
        """Arguments: the parts int8, out int8."""
        b = KernelBuilder(name, {"ffn.op": "concat"})
        parts = [b.arg(f"x{place}", shape, "int8") for place, shape in enumerate(self.shapes)]
        out = b.arg("out", self.out_shape, "int8")
        start = 0
        for place, part in enumerate(parts):
            self._copy(b, f"part{place}", part, out, start)
            start += self.shapes[place][self.axis]
        return b.finish()

    def _copy(self, b: KernelBuilder, name: str, part: Buffer, out: Buffer, start: int) -> None:
        """Block ``name``: one part to its place, ``start`` along the axis."""

        def moved(*i: Any) -> tuple[Any, ...]:
            return tuple(index + start if axis == self.axis else index for axis, index in enumerate(i))

        b.compute(name, [int(size) for size in part.shape], "int8", lambda *i: part[i], out=out, at=moved)

    def reference(self, *parts: np.ndarray) -> np.ndarray:
        """NumPy oracle."""
        return np.concatenate(parts, self.axis)
