"""What tuning gains: single layers and a whole model, beside TVM's own MetaSchedule on the same model, fp32 and int8.

    python -m benchmarks.tuning layers --work-dir D --trials 64
    python -m benchmarks.tuning model MODEL.onnx --work-dir D --trials 24 [--tvm-trials N] --json OUT.json

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
    parser.add_argument("--tvm-trials", type=int, help="of TVM's own MetaSchedule in all (default: as many as ours)")
    parser.add_argument("--optimize", choices=("size", "speed"), default="size", help="speed: weights may be code")
    parser.add_argument("--target", default="llvm", help="of single layers, which run here")
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
    """Two 3x3, two 1x1, a depthwise-separable pair and a dense layer, with their default forms of weights; as code by
    default where that may be, as `tvm_ffn.compile` does with ``optimize="speed"``."""
    from tvm_ffn import targets
    from tvm_ffn.kernel_plan import default_plan
    from tvm_ffn.kernels.epilogue import Epilogue
    from tvm_ffn.kernels.geometry import ConvGeometry
    from tvm_ffn.tuner import TuningResult
    from tvm_ffn.tuning.boards import local_board
    from tvm_ffn.tuning.session import Session
    from tvm_ffn.tuning.task import FACTORS, INT8, PLANES, Task

    may_be_code = options.optimize == "speed"

    def conv(channels: int, outputs: int, size: int, kernel: int, groups: int = 1, form: str = PLANES) -> Task:
        pad = kernel // 2
        g = ConvGeometry(1, channels, size, size, (kernel, kernel), (1, 1), (pad,) * 4, groups=groups)
        terms, density = (6, 0.7) if form == PLANES else (0, 1.0)
        code = may_be_code and form == PLANES
        return Task(form, g, 0, groups, g.inputs, outputs // groups, terms, density, 10, Epilogue(), code)

    tasks = [
        conv(64, 64, 56, 3),
        conv(256, 256, 14, 3),
        conv(64, 256, 56, 1),
        conv(1024, 256, 14, 1),
        conv(144, 144, 56, 3, 144, INT8),
        conv(144, 24, 56, 1),
        Task(FACTORS, None, 1, 1, 1024, 1024, 1024, 0.5, 10, Epilogue()),
    ]
    target = targets.parse_target(options.target)
    plan = default_plan(target)
    start = time.monotonic()
    with local_board(1) as board:
        session = Session(dict.fromkeys(tasks, 1), target, plan, options.work_dir, board, options.trials, 1e9, 0)
        result = TuningResult(session.run(), session.errors)
    print(result.table())
    return {"seconds": time.monotonic() - start, "gain": result.gain}


def whole_model(options: argparse.Namespace) -> dict[str, Any]:
    """Tune, build with and without what was found, and time both in turn, with TVM's own tuned modules."""
    import tvm_ffn
    from benchmarks.models import load_onnx
    from benchmarks.peer_runtimes import onnxruntime_run, quantized, random_samples
    from benchmarks.tvm_peer import tvm_module
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
    config = tvm_ffn.FFNConfig(optimize=options.optimize)
    tuned = tvm_ffn.tune(options.model, work_dir=options.work_dir, trials=options.trials, config=config)
    result: dict[str, Any] = {"tune_seconds": time.monotonic() - start, "gain_of_tasks": tuned.gain}
    print(tuned.table())
    runs = {}
    tables = {
        "default": TunedTable(),
        "shipped": tuned_table(target, None),
        "tuned": tuned_table(target, options.work_dir),
    }
    for name, table in tables.items():
        c = random_compilation(options.model, target, config)
        c.tuned = table
        module = finish(run(c, start_at="choose"))
        x = random_inputs(module.inputs, 1)
        runs[name] = lambda module=module, x=x: module.run(x)
    trials = options.tvm_trials or sum(outcome.trials for outcome in tuned.outcomes)
    result["trials"] = {"ours": sum(outcome.trials for outcome in tuned.outcomes), "tvm": trials}
    proto = load_onnx(options.model)
    [sample] = random_samples(proto, 1)
    for name, form in (("tvm fp32", proto), ("tvm int8", quantized(proto, random_samples(proto, 4)))):
        peer = tvm_module(form, *sample.values(), target, options.work_dir / name.replace(" ", "-"), trials)
        expected, found = onnxruntime_run(form, sample)()[0], peer.run()
        difference = float(np.abs(found - expected).max() / np.abs(expected).max())
        result[name] = {"seconds": peer.seconds, "tasks": peer.tasks, "untuned": peer.untuned, "error": difference}
        runs[name] = peer.run
    times = interleaved(runs, 30, warmup=1, clock=time.process_time)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratios = {name: value / medians["default"] for name, value in medians.items()}
    return {**result, "median_ms": medians, "to_default": ratios}


if __name__ == "__main__":
    main()
