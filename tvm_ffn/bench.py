"""Latency of a module, alone or beside onnxruntime fp32, interleaved in one run on the same number of threads, and of
each of its kernels."""

from __future__ import annotations

import os
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm_ffn.errors import FFNError, ModelError
from tvm_ffn.feeds import random_inputs
from tvm_ffn.runtime import Module
from tvm_ffn.text_table import aligned, shortened

_LINEAR = re.compile(r"(ternary|int8)_(conv2d|dense)\d*")  # functions of layers; equal layers share one
_BUILTIN = "vm.builtin."


@dataclass(frozen=True)
class KernelTime:
    """One call of a kernel: its function, the layer and the kernel family where it belongs to one (else ""), the median
    of its milliseconds and their share of the sum over all calls."""

    function: str
    layer: str
    family: str
    median_ms: float
    share: float


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


def kernel_times(module: Module, *, repeat: int = 30, warmup: int = 3) -> list[KernelTime]:
    """Time every kernel call of one random sample, in order; the last entry sums up the virtual machine's own calls.

    Layers are named by their order: the i-th call of a convolution or dense kernel is the row whose ``call`` is i.
    """
    inputs = random_inputs(module.inputs)
    runs = [module.trace(inputs) for _ in range(warmup + repeat)][warmup:]
    names = [name for name, _ in runs[0]]
    medians = [statistics.median(times) for times in zip(*([ms for _, ms in run] for run in runs), strict=True)]
    total = sum(medians) or 1.0
    rows = sorted((row for row in module.report.layers if row.kind != "fp32"), key=lambda row: row.call)
    calls = [index for index, name in enumerate(names) if _LINEAR.fullmatch(name)]
    layer_of = dict(zip(calls, rows, strict=True)) if len(calls) == len(rows) else {}
    found, own = [], 0.0
    for index, (name, median) in enumerate(zip(names, medians, strict=True)):
        if name.startswith(_BUILTIN):
            own += median
            continue
        row = layer_of.get(index)
        found.append(KernelTime(name, row.name if row else "", row.kernel if row else "", median, median / total))
    return [*found, KernelTime("virtual machine", "", "", own, own / total)]


def kernel_table(times: list[KernelTime]) -> str:
    """The entries as text, in order."""
    head = ("ms", "share", "function", "kernel", "layer")
    cells = [head] + [(f"{t.median_ms:.3f}", f"{t.share:.1%}", shortened(t.function), t.family, t.layer) for t in times]
    return "\n".join(aligned(cells, left=(2, 3, 4)))


def interleaved(
    runs: dict[str, Callable[[], Any]],
    repeat: int,
    warmup: int = 3,
    clock: Callable[[], float] = time.perf_counter,
    pause: float = 0.0,
) -> dict[str, list[float]]:
    """Call every function in turn, ``repeat`` rounds, and return the milliseconds of each call by name; ``clock`` gives
    seconds. The ``pause`` in seconds before a call lets threads of the one before stop spinning."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(warmup + repeat):
        for name, run in runs.items():
            time.sleep(pause)
            start = clock()
            run()
            if turn >= warmup:
                times[name].append(1e3 * (clock() - start))
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
