"""Candidates to machine code, in this process: decisions are expanded to the kernel here and nowhere else."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import tvm
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms

from tvm_ffn import targets
from tvm_ffn.kernel_plan import KernelPlan
from tvm_ffn.kernels.layer_kernel import LayerKernel
from tvm_ffn.schedules.rule import ApplySchedules, Machine
from tvm_ffn.schedules.rules import rules_for
from tvm_ffn.tuning.problem import Problem
from tvm_ffn.tuning.task import Task
from tvm_ffn.tuning.workload import point_of, task_of

ENTRY = "main"


@cache
def problem_of(task: Task) -> Problem:
    """The task's numbers, made once."""
    return Problem(task)


@dataclass(frozen=True)
class Built:
    """A linked candidate: its library, alone in a folder of its own, and what it must compute."""

    path: str
    problem: Problem
    kernel: LayerKernel


class CandidateBuilder:
    """Builds kernels for one target; ``built`` finds what belongs to a library by its path."""

    def __init__(self, target: tvm.target.Target, plan: KernelPlan) -> None:
        self.target, self.plan = target, plan
        self.machine = Machine(targets.vector_bytes(target), targets.vector_registers(target))
        self.link = targets.cross_compiler(target)
        self.built: dict[str, Built] = {}

    def build(self, mod: tvm.IRModule) -> Built:
        """The library of a scheduled workload. MetaSchedule deletes the folder it lies in."""
        problem = problem_of(task_of(mod))
        kernel = problem.kernel(replace(self.plan, **point_of(mod)))  # type: ignore[arg-type]
        function = kernel.operator.prim_func(ENTRY).with_attr("global_symbol", ENTRY)
        rules = rules_for(targets.architecture(self.target))
        with self.target:
            schedule = tvm.transform.Sequential([ApplySchedules(rules, self.machine)])
            scheduled = schedule(tvm.IRModule({ENTRY: function}))
            library = tvm.compile(scheduled, target=self.target)
        path = os.path.join(tempfile.mkdtemp(prefix="tvm_ffn-tune-"), "kernel.so")
        library.export_library(path, fcompile=self.link)
        self.built[path] = Built(path, problem, kernel)
        return self.built[path]


@derived_object
class Builder(ms.builder.PyBuilder):
    """MetaSchedule's view of a `CandidateBuilder`."""

    def __init__(self, candidates: CandidateBuilder) -> None:
        super().__init__()
        self.candidates = candidates

    def build(self, inputs: Sequence[ms.builder.BuilderInput]) -> list[ms.builder.BuilderResult]:
        """Build each; one that fails has its error as the result."""
        return [self._build(item.mod) for item in inputs]

    def _build(self, mod: tvm.IRModule) -> ms.builder.BuilderResult:
        try:
            return ms.builder.BuilderResult(self.candidates.build(mod).path, None)
        except Exception as error:  # whatever goes wrong is the candidate's fault and its record's text
            return ms.builder.BuilderResult(None, f"{type(error).__name__}: {error}")
