"""A model as TVM alone compiles it, fp32 and int8, tuned by MetaSchedule's own rules and scheduler on this machine.

int8 is onnxruntime's QDQ graph. TVM 0.27 imports it as convolutions in fp32 between quantize and dequantize, and has no
pass that turns these into integers; `IntegerConvolutions` does that here:

    conv2d(dequantize(x, s, z), dequantize(w, t, 0))  ->  s t * float(conv2d(int16(x) - z, int16(w)) in int32)
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tvm
from tvm import relax
from tvm.ir.utils import derived_object
from tvm.relax.expr_functor import PyExprMutator, mutator
from tvm.relax.frontend.onnx import from_onnx
from tvm.s_tir import meta_schedule as ms

from tvm_ffn.schedules.rules import apply_schedules
from tvm_ffn.targets import target_dict
from tvm_ffn.tuning.compile_worker import CompileWorker
from tvm_ffn.tuning.quick_import import import_intrinsics

MOST_AT_A_TIME = 16  # candidates of a task
POPULATION = 64  # of the evolutionary search: with 512, TVM's default, thinking of a candidate takes several seconds


@dataclass(frozen=True)
class TvmModule:
    """``run`` runs one sample and returns its first output; ``untuned`` of its ``tasks`` have no record."""

    run: Callable[[], np.ndarray]
    tasks: int
    untuned: int
    seconds: float


def tvm_module(
    proto: onnx.ModelProto, x: np.ndarray, target: tvm.target.Target, work_dir: Path, trials: int
) -> TvmModule:
    """Import, tune with ``trials`` candidates in all and compile a model of one input. No task takes more than half of
    its equal share at a time, so that the scheduler reaches all of them; what none of its candidates ran for is
    scheduled by our rules: parallel, the rest left to LLVM's vectoriser."""
    own = tvm.target.Target({**target_dict(target), "num-cores": 1})
    start = time.monotonic()
    import_intrinsics()
    work_dir.mkdir(parents=True, exist_ok=True)
    with own:
        mod = IntegerConvolutions()(from_onnx(proto))
        folds = [relax.transform.FoldBatchnormToConv2D(), relax.transform.FoldConstant()]
        mod = relax.get_pipeline("zero")(tvm.transform.Sequential(folds)(mod))
        tasks = ms.relax_integration.extract_tasks(mod, own, {})
        database = ms.relax_integration.tune_relax(
            mod=mod,
            params={},
            target=own,
            work_dir=str(work_dir),
            max_trials_global=trials,
            num_trials_per_iter=min(MOST_AT_A_TIME, max(1, trials // (2 * len(tasks)))),
            builder=_Builder(),
            runner=_Runner(),
            strategy=ms.search_strategy.EvolutionarySearch(population_size=POPULATION),
            seed=1,
        )
        with database:
            mod = relax.transform.MetaScheduleApplyDatabase()(mod)
        functions = [f for _, f in mod.functions_items() if isinstance(f, tvm.tirx.PrimFunc)]
        untuned = sum("tirx.is_scheduled" not in function.attrs for function in functions)
        machine = relax.VirtualMachine(tvm.compile(apply_schedules(own)(mod), target=own), tvm.cpu())
    tensor = tvm.runtime.tensor(x)
    return TvmModule(lambda: machine["main"](tensor).numpy(), len(tasks), untuned, time.monotonic() - start)


@tvm.transform.module_pass(opt_level=0, name="IntegerConvolutions")
class IntegerConvolutions:
    """Convolutions of dequantised operands become convolutions of integers."""

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        rewriter = _Rewriter(mod)
        for variable, function in mod.functions_items():
            if isinstance(function, relax.Function):
                rewriter.builder_.update_func(variable, rewriter.visit_expr(function))
        return rewriter.builder_.get()


@mutator
class _Rewriter(PyExprMutator):
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        if call.op != tvm.ir.Op.get("relax.nn.conv2d"):
            return call
        operands = [self._dequantized(argument) for argument in call.args]
        if None in operands:
            return call
        (x, scale, zero), (weight, weight_scale, _) = operands
        op, attrs = relax.op, call.attrs
        whole = op.nn.conv2d(
            op.subtract(op.astype(x, "int16"), op.astype(zero, "int16")),
            op.astype(weight, "int16"),
            strides=attrs.strides,
            padding=attrs.padding,
            dilation=attrs.dilation,
            groups=attrs.groups,
            data_layout=attrs.data_layout,
            kernel_layout=attrs.kernel_layout,
            out_dtype="int32",
        )
        factor = op.multiply(op.reshape(scale, (1, 1, 1, 1)), op.reshape(weight_scale, (1, -1, 1, 1)))
        return op.multiply(op.astype(whole, "float32"), factor)

    def _dequantized(self, argument: relax.Expr) -> tuple[relax.Expr, relax.Expr, relax.Expr] | None:
        value = self.lookup_binding(argument) if isinstance(argument, relax.Var) else argument
        if isinstance(value, relax.Call) and value.op == tvm.ir.Op.get("relax.dequantize"):
            return tuple(value.args)
        return None


@derived_object
class _Builder(ms.builder.PyBuilder):
    def __init__(self) -> None:
        super().__init__()
        self.worker = CompileWorker()

    def build(self, inputs: Any) -> list[Any]:
        return [self._build(item) for item in inputs]

    def _build(self, item: Any) -> ms.builder.BuilderResult:
        try:
            path = os.path.join(tempfile.mkdtemp(), "m.so")  # MetaSchedule deletes its folder
            self.worker.build(item.mod, item.target, path)
            return ms.builder.BuilderResult(path, None)
        except Exception as error:
            return ms.builder.BuilderResult(None, str(error))


@derived_object
class _Done(ms.runner.PyRunnerFuture):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def done(self) -> bool:
        return True

    def result(self) -> Any:
        return ms.runner.RunnerResult([self.seconds], None)


@derived_object
class _Runner(ms.runner.PyRunner):
    def run(self, inputs: Any) -> list[Any]:
        return [_Done(self._seconds(item)) for item in inputs]

    def _seconds(self, item: Any) -> float:
        library = tvm.runtime.load_module(str(item.artifact_path))
        values = [np.zeros([int(n) for n in info.shape], str(info.dtype)) for info in item.args_info]
        tensors = [tvm.runtime.tensor(value) for value in values]
        timer = library.time_evaluator("main", tvm.cpu(), number=1, repeat=3, min_repeat_ms=10)
        return float(timer(*tensors).median)
