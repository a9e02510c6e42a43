"""Arguments made up for an operator, and what its function without any schedule computes from them on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import tvm

from tvm_ffn.targets import parse_target
from tvm_ffn.tuning.operator import Operator

_TOLERANCE = {"float16": 1e-2, "float32": 1e-4, "float64": 1e-6}  # relative: sums may be taken in any order


class OperatorCase:
    """An operator's function with numbers; the same operator always has the same."""

    def __init__(self, operator: Operator) -> None:
        self.operator = operator
        self.outputs: Sequence[int] = operator.outputs

    @cached_property
    def arguments(self) -> tuple[np.ndarray, ...]:
        """Floats above zero, which have roots and logarithms, and whole numbers that are 0, since they may be places in
        an array; outputs are zeros."""
        rng = np.random.default_rng(0)
        values = []
        for place, parameter in enumerate(self.operator.function.params):
            shape, dtype = [int(size) for size in parameter.ty.shape], str(parameter.ty.dtype)
            known = dtype in _TOLERANCE and place not in self.outputs
            values.append(rng.uniform(0.1, 1.0, shape).astype(dtype) if known else np.zeros(shape, dtype))
        return tuple(values)

    @cached_property
    def expected(self) -> list[np.ndarray]:
        """The outputs."""
        library = tvm.compile(self.operator.module, target=parse_target("llvm"))
        tensors = [tvm.runtime.tensor(value) for value in self.arguments]
        library["main"](*tensors)
        return [tensors[place].numpy() for place in self.outputs]

    def difference(self, values: Sequence[np.ndarray]) -> str:
        """What is wrong with outputs, "" if nothing is."""
        for value, expected in zip(values, self.expected, strict=True):
            tolerance = _TOLERANCE.get(str(expected.dtype), 0.0)
            wrong = np.count_nonzero(
                ~np.isclose(value, expected, rtol=tolerance, atol=tolerance * 1e-2, equal_nan=True)
            )
            if wrong:
                return f"{wrong} of {expected.size} outputs differ from those without a schedule"
        return ""
