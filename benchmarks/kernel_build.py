"""One integer operator scheduled and compiled alone, as the pipeline does it for a whole graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm.tirx import PrimFunc

from tvm_ffn import targets
from tvm_ffn.kernel_plan import KernelPlan, plan_for
from tvm_ffn.schedules.rule import ApplySchedules, Machine
from tvm_ffn.schedules.rules import rules_for

ENTRY = "main"


@dataclass(frozen=True)
class BuiltKernel:
    """A compiled function; ``run`` takes its arguments without the output."""

    library: Any
    out_shape: tuple[int, ...]
    out_dtype: str

    def run(self, *arguments: np.ndarray) -> np.ndarray:
        out = tvm.runtime.tensor(np.zeros(self.out_shape, self.out_dtype))
        self.library[ENTRY](*(tvm.runtime.tensor(value) for value in arguments), out)
        return out.numpy()

    def assembly(self) -> str:
        return str(self.library.mod.inspect_source("asm"))


def plan(target: tvm.target.Target) -> KernelPlan:
    return plan_for(targets.architecture(target), targets.vector_bytes(target), targets.required_features(target))


def machine(target: tvm.target.Target) -> Machine:
    return Machine(targets.vector_bytes(target), targets.vector_registers(target))


def build(function: PrimFunc, target: tvm.target.Target) -> BuiltKernel:
    """Schedule and compile an operator's function; its last argument is the output."""
    module = tvm.IRModule({ENTRY: function.with_attr("global_symbol", ENTRY)})
    rules = rules_for(targets.architecture(target))
    with target:
        module = tvm.transform.Sequential([ApplySchedules(rules, machine(target))])(module)
    out = function.params[-1].ty
    return BuiltKernel(tvm.compile(module, target=target), tuple(int(size) for size in out.shape), str(out.dtype))
