"""One integer operator scheduled and compiled alone, as the pipeline does it for a whole graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm.tirx import PrimFunc

from tvm_ffn.kernel_plan import KernelPlan, default_plan
from tvm_ffn.schedules.rule import Machine
from tvm_ffn.schedules.rules import build_function

ENTRY = "main"


@dataclass(frozen=True)
class BuiltKernel:
    """A compiled function; ``run`` takes its arguments without the output."""

    library: Any
    target: tvm.target.Target
    out_shape: tuple[int, ...]
    out_dtype: str

    def run(self, *arguments: np.ndarray) -> np.ndarray:
        out = tvm.runtime.tensor(np.zeros(self.out_shape, self.out_dtype))
        self.library[ENTRY](*(tvm.runtime.tensor(value) for value in arguments), out)
        return out.numpy()

    def assembly(self) -> str:
        return str(self.library.mod.inspect_source("asm"))


def plan(target: tvm.target.Target) -> KernelPlan:
    return default_plan(target)


def machine(target: tvm.target.Target) -> Machine:
    return Machine.of(target)


def build(function: PrimFunc, target: tvm.target.Target) -> BuiltKernel:
    """Schedule and compile an operator's function; its last argument is the output."""
    out = function.params[-1].ty
    return BuiltKernel(build_function(function, target), target, tuple(int(size) for size in out.shape), str(out.dtype))
