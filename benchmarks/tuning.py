"""What tuning gains: single layers and a whole model, beside TVM's own MetaSchedule in fp32 on the same model.

    python -m benchmarks.tuning layers --work-dir D --trials 64
    python -m benchmarks.tuning model MODEL.onnx --work-dir D --trials 16 [--tvm-trials N] --json OUT.json

All on one core. Latencies of whole models are medians of one interleaved run; those of layers come from each task's
play-off, which measures the default and the tuned kernel in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("layers", "model"))
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--tvm-trials", type=int, default=0, help="of TVM's own MetaSchedule, for the whole model")
    parser.add_argument("--cpu", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.cpu})
    os.environ["TVM_NUM_THREADS"] = "1"
    result = layers(options) if options.what == "layers" else whole_model(options)
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def layers(options: argparse.Namespace) -> dict[str, Any]:
    """Two 3x3, two 1x1, a depthwise-separable pair and a dense layer, with their default forms of weights."""
    from tvm_ffn import targets
    from tvm_ffn.kernel_plan import plan_for
    from tvm_ffn.kernels.epilogue import Epilogue
    from tvm_ffn.kernels.geometry import ConvGeometry
    from tvm_ffn.tuner import TuningResult
    from tvm_ffn.tuning.boards import local_board
    from tvm_ffn.tuning.session import Session
    from tvm_ffn.tuning.task import FACTORS, INT8, PLANES, Task

    def conv(channels: int, outputs: int, size: int, kernel: int, groups: int = 1, form: str = PLANES) -> Task:
        pad = kernel // 2
        g = ConvGeometry(1, channels, size, size, (kernel, kernel), (1, 1), (pad,) * 4, groups=groups)
        terms, density = (6, 0.7) if form == PLANES else (0, 1.0)
        return Task(form, g, 0, groups, g.inputs, outputs // groups, terms, density, 10, Epilogue())

    tasks = [
        conv(64, 64, 56, 3),
        conv(256, 256, 14, 3),
        conv(64, 256, 56, 1),
        conv(1024, 256, 14, 1),
        conv(144, 144, 56, 3, 144, INT8),
        conv(144, 24, 56, 1),
        Task(FACTORS, None, 1, 1, 1024, 1024, 1024, 0.5, 10, Epilogue()),
    ]
    target = targets.parse_target("llvm")
    plan = plan_for(targets.architecture(target), targets.vector_bytes(target), targets.required_features(target))
    start = time.monotonic()
    with local_board(1) as board:
        session = Session(dict.fromkeys(tasks, 1), target, plan, options.work_dir, board, options.trials, 1e9, 0)
        result = TuningResult(session.run(), session.errors)
    print(result.table())
    return {"seconds": time.monotonic() - start, "gain": result.gain}


def whole_model(options: argparse.Namespace) -> dict[str, Any]:
    """Tune, build with and without what was found, and time both in turn, with TVM's own tuned fp32 module."""
    import tvm_ffn
    from tvm_ffn import targets
    from tvm_ffn.bench import interleaved
    from tvm_ffn.compiler import finish
    from tvm_ffn.feeds import random_inputs
    from tvm_ffn.pipeline import run
    from tvm_ffn.synthetic import random_compilation
    from tvm_ffn.tuning.shipped import tuned_table
    from tvm_ffn.tuning.table import TunedTable

    target = targets.parse_target("llvm")
    start = time.monotonic()
    tuned = tvm_ffn.tune(options.model, work_dir=options.work_dir, trials=options.trials)
    result: dict[str, Any] = {"tune_seconds": time.monotonic() - start, "gain_of_tasks": tuned.gain}
    print(tuned.table())
    runs = {}
    tables = {
        "default": TunedTable(),
        "shipped": tuned_table(target, None),
        "tuned": tuned_table(target, options.work_dir),
    }
    for name, table in tables.items():
        c = random_compilation(options.model, target, tvm_ffn.FFNConfig())
        c.tuned = table
        module = finish(run(c, start_at="choose"))
        x = random_inputs(module.inputs, 1)
        runs[name] = lambda module=module, x=x: module.run(x)
    if options.tvm_trials:
        start = time.monotonic()
        runs["tvm fp32"] = tvm_fp32(options.model, target, options.work_dir / "tvm", options.tvm_trials)
        result["tvm_tune_seconds"] = time.monotonic() - start
    times = interleaved(runs, 30, warmup=1, clock=time.process_time)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratios = {name: value / medians["default"] for name, value in medians.items()}
    return {**result, "median_ms": medians, "to_default": ratios}


def tvm_fp32(model: Path, target: Any, work_dir: Path, trials: int) -> Any:
    """TVM's fp32 module, tuned by its own rules with ``trials`` candidates in all; built and run in this process."""
    import onnx
    import tvm
    from tvm import relax
    from tvm.ir.utils import derived_object
    from tvm.relax.frontend.onnx import from_onnx
    from tvm.s_tir import meta_schedule as ms
    from tvm.s_tir.transform import RemoveWeightLayoutRewriteBlock

    from benchmarks.models import load_onnx
    from tvm_ffn.targets import target_dict
    from tvm_ffn.tuning.session import quick_import

    own = tvm.target.Target({**target_dict(target), "num-cores": 1})
    proto = load_onnx(model)
    assert isinstance(proto, onnx.ModelProto)

    @derived_object
    class Builder(ms.builder.PyBuilder):
        def __init__(self) -> None:
            super().__init__()

        def build(self, inputs: Any) -> list[Any]:
            import tempfile

            results = []
            for item in inputs:
                try:
                    mod = RemoveWeightLayoutRewriteBlock(skip_tensor_rewrite=True)(item.mod)
                    path = os.path.join(tempfile.mkdtemp(), "m.so")  # MetaSchedule deletes its folder
                    tvm.compile(mod, target=item.target).export_library(path)
                    results.append(ms.builder.BuilderResult(path, None))
                except Exception as error:
                    results.append(ms.builder.BuilderResult(None, str(error)))
            return results

    @derived_object
    class Done(ms.runner.PyRunnerFuture):
        def __init__(self, seconds: float) -> None:
            super().__init__()
            self.seconds = seconds

        def done(self) -> bool:
            return True

        def result(self) -> Any:
            return ms.runner.RunnerResult([self.seconds], None)

    @derived_object
    class Runner(ms.runner.PyRunner):
        def __init__(self) -> None:
            super().__init__()

        def run(self, inputs: Any) -> list[Any]:
            results = []
            for item in inputs:
                library = tvm.runtime.load_module(str(item.artifact_path))
                values = [np.zeros([int(n) for n in info.shape], str(info.dtype)) for info in item.args_info]
                tensors = [tvm.runtime.tensor(value) for value in values]
                timer = library.time_evaluator("main", tvm.cpu(), number=1, repeat=3, min_repeat_ms=10)
                results.append(Done(float(timer(*tensors).median)))
            return results

    quick_import()
    with own:
        mod = tvm.transform.Sequential([relax.transform.FoldBatchnormToConv2D(), relax.transform.FoldConstant()])(
            from_onnx(proto)
        )
        mod = relax.get_pipeline("zero")(mod)
        work_dir.mkdir(parents=True, exist_ok=True)
        database = ms.relax_integration.tune_relax(
            mod=mod,
            params={},
            target=own,
            work_dir=str(work_dir),
            max_trials_global=trials,
            num_trials_per_iter=16,
            builder=Builder(),
            runner=Runner(),
            seed=1,
        )
        with database:
            mod = relax.transform.MetaScheduleApplyDatabase()(mod)
        machine = relax.VirtualMachine(tvm.compile(mod, target=own), tvm.cpu())
    shape = [int(n) for n in mod["main"].params[0].ty.shape]
    x = tvm.runtime.tensor(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    return lambda: machine["main"](x)


if __name__ == "__main__":
    main()
