"""Latency of a module, alone or beside onnxruntime fp32, interleaved in one run on the same number of threads."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

from tvm_ffn.errors import FFNError, ModelError
from tvm_ffn.feeds import random_inputs
from tvm_ffn.runtime import Module


def bench(module: Module, against: str | os.PathLike[str] | None = None, *, repeat: int = 30) -> dict[str, Any]:
    """Time one random sample (batch 1), ``repeat`` times after a warm-up, and return median and minimum in ms.

    With ``against``, an ONNX model, onnxruntime runs it in fp32 in turn with the module, and ``ratio`` is the module's
    median over onnxruntime's. The number of threads is TVM's (``TVM_NUM_THREADS``, set before TVM starts) for both.
    """
    inputs = random_inputs(module.inputs)
    runs: dict[str, Callable[[], Any]] = {"module": lambda: module.run(inputs)}
    runs["module"]()
    from tvm import runtime

    threads = int(runtime.num_threads())
    if against is not None:
        session = _session(against, threads)
        names = {tensor.name for tensor in session.get_inputs()}
        if names != set(inputs):
            raise ModelError(f"{against} is not the model that was compiled: it takes {', '.join(sorted(names))}")
        runs["onnxruntime"] = lambda: session.run(None, inputs)
    times = interleaved(runs, repeat)
    result: dict[str, Any] = {"threads": threads, "repeat": repeat}
    result |= {"median_ms": statistics.median(times["module"]), "min_ms": min(times["module"])}
    if "onnxruntime" in times:
        peer = times["onnxruntime"]
        result |= {"onnxruntime_median_ms": statistics.median(peer), "onnxruntime_min_ms": min(peer)}
        result["ratio"] = result["median_ms"] / result["onnxruntime_median_ms"]
    return result


def interleaved(runs: dict[str, Callable[[], Any]], repeat: int, warmup: int = 3) -> dict[str, list[float]]:
    """Call every function in turn, ``repeat`` rounds, and return the milliseconds of each call by name."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(warmup + repeat):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if turn >= warmup:
                times[name].append(1e3 * (time.perf_counter() - start))
    return times


def _session(model: str | os.PathLike[str], threads: int) -> Any:
    """Open an onnxruntime session that executes sequentially on ``threads`` threads."""
    from tvm_ffn.onnx_reader import read_model

    try:
        import onnxruntime
    except ImportError as error:
        raise FFNError("comparing needs onnxruntime, which is not installed: pip install 'tvm_ffn[bench]'") from error
    proto, name = read_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class below Exception
        raise ModelError(f"{name}: onnxruntime refuses the model: {str(error).splitlines()[0]}") from error
