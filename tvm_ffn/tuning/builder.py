"""Candidates to machine code: decisions are expanded to the kernel here and nowhere else, in this process."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Protocol

import numpy as np
import tvm
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms

from tvm_ffn import targets
from tvm_ffn.kernel_plan import KernelPlan
from tvm_ffn.kernels.layer_kernel import LayerKernel
from tvm_ffn.schedules.rules import build_function
from tvm_ffn.tuning.compile_worker import CompileWorker
from tvm_ffn.tuning.operator import OPERATOR_ATTRIBUTE
from tvm_ffn.tuning.operator_case import OperatorCase
from tvm_ffn.tuning.problem import Problem
from tvm_ffn.tuning.task import Task
from tvm_ffn.tuning.workload import point_of, task_of


class Case(Protocol):
    """What a library is run on, and what must come out."""

    @property
    def outputs(self) -> Sequence[int]:
        """Their places among the arguments."""

    @property
    def arguments(self) -> tuple[np.ndarray, ...]:
        """All arguments of the library's ``main``, outputs included."""

    def difference(self, values: Sequence[np.ndarray]) -> str:
        """What is wrong with outputs, "" if nothing is."""


@cache
def problem_of(task: Task) -> Problem:
    """The task's numbers, made once."""
    return Problem(task)


@dataclass(frozen=True)
class KernelCase:
    """A layer's numbers as one of its kernels takes them."""

    problem: Problem
    kernel: LayerKernel
    outputs: Sequence[int] = (-1,)

    @property
    def arguments(self) -> tuple[np.ndarray, ...]:
        """Those of the kernel, and the output."""
        out = np.zeros(self.kernel.operator.out_shape, self.problem.expected.dtype)
        return (*self.problem.arguments(self.kernel), out)

    def difference(self, values: Sequence[np.ndarray]) -> str:
        """Every integer counts."""
        expected = self.problem.expected
        wrong = np.count_nonzero(values[0] != expected)
        return f"{wrong} of {expected.size} outputs differ from the oracle's" if wrong else ""


@dataclass(frozen=True)
class Built:
    """A linked candidate: its library, alone in a folder of its own, and what it is run on."""

    path: str
    case: Case


class CandidateBuilder:
    """Builds candidates for one target; ``cases`` are those of the operators by key, ``built`` finds what belongs to a
    library by its path."""

    def __init__(
        self, target: tvm.target.Target, plan: KernelPlan, cases: Mapping[str, OperatorCase] | None = None
    ) -> None:
        self.target, self.plan, self.cases = target, plan, cases or {}
        self.link = targets.cross_compiler(target)
        self.worker = CompileWorker()
        self.built: dict[str, Built] = {}

    def build(self, mod: tvm.IRModule) -> Built:
        """The library of a scheduled workload. MetaSchedule deletes the folder it lies in."""
        path = os.path.join(tempfile.mkdtemp(prefix="tvm_ffn-tune-"), "kernel.so")
        is_operator = OPERATOR_ATTRIBUTE in mod["main"].attrs
        try:
            case = self._operator(mod, path) if is_operator else self._layer(mod, path)
        except Exception:
            ms.utils.remove_build_dir(path)
            raise
        self.built[path] = Built(path, case)
        return self.built[path]

    def _operator(self, mod: tvm.IRModule, path: str) -> OperatorCase:
        self.worker.build(mod, self.target, path)
        return self.cases[str(mod["main"].attrs[OPERATOR_ATTRIBUTE])]

    def _layer(self, mod: tvm.IRModule, path: str) -> KernelCase:
        problem = problem_of(task_of(mod))
        kernel = problem.kernel(replace(self.plan, **point_of(mod)))  # type: ignore[arg-type]
        library = build_function(kernel.operator.prim_func("main"), self.target)
        library.export_library(path, fcompile=self.link)
        return KernelCase(problem, kernel)


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
