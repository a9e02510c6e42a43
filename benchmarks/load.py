"""From nothing to the first result beside onnxruntime and OpenVINO: seconds, and the most memory a process held.

    python -m benchmarks.load resnet50 path/to/model.onnx --json OUT.json

Every runtime runs in a process of its own, several times in turn: "import" of the runtime's Python package, "load" of
the stored model until its first result is there (ours checks the hashes of the artefact's files as well), "peak" is the
process's largest resident set, and "import MB" that after the import. Ours has random weights (`tvm_ffn.synthetic`)
and no compiler library. Medians; one core.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

KEYS = ("import s", "load s", "import MB", "peak MB")


def main() -> None:
    """Parse the command line, measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="*")
    parser.add_argument("--rank-ratio", type=float, nargs="+", default=[0.0, 1.0])
    parser.add_argument("--optimize", nargs="+", default=["size", "speed"], choices=("size", "speed"))
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--cpu", type=int, default=0, help="the core everything runs on")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=3, metavar=("RUNTIME", "STORED", "INPUTS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.cpu})
    os.environ["TVM_NUM_THREADS"] = "1"
    if options.one:
        print(json.dumps(one(*options.one)))
        return
    results = {}
    for name in options.model:
        results[Path(name).stem] = result = measure(name, options)
        print(table(Path(name).stem, result), flush=True)
        if options.json:
            options.json.write_text(json.dumps(results, indent=1) + "\n")


def measure(name: str, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Store all forms of a model, run each in new processes; medians by runtime."""
    import numpy as np
    import onnx

    from benchmarks.models import light_model, load_onnx
    from benchmarks.peer_runtimes import quantized, random_samples
    from tvm_ffn import targets
    from tvm_ffn.compiler import finish
    from tvm_ffn.config import FFNConfig
    from tvm_ffn.pipeline import run
    from tvm_ffn.synthetic import random_compilation

    model = load_onnx(Path(name)) if Path(name).exists() else light_model(name)
    samples = random_samples(model, 3)
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "inputs.npz"
        np.savez(inputs, **samples[0])  # type: ignore[arg-type]  # names of inputs, no option of savez
        stored = {}
        for kind, proto in (("fp32", model), ("int8", quantized(model, samples))):
            path = Path(folder) / f"{kind}.onnx"
            onnx.save(proto, path)
            stored |= {f"ort {kind}": ("ort", path), f"openvino {kind}": ("openvino", path)}
        for ratio in options.rank_ratio:
            for mode in options.optimize:
                config = FFNConfig(rank_ratio=ratio or None, optimize=mode)
                built = finish(run(random_compilation(model, targets.parse_target("llvm"), config), start_at="choose"))
                key = f"{mode} {ratio:g}" if ratio else f"{mode} planes"
                built.save(Path(folder) / key)
                stored[key] = ("ours", Path(folder) / key)
        for _ in range(options.repeat):
            for key, (runtime, path) in stored.items():
                found.setdefault(key, []).append(_process(runtime, path, inputs, options.cpu))
    return {key: {name: statistics.median(run[name] for run in runs) for name in KEYS} for key, runs in found.items()}


def _process(runtime: str, stored: Path, inputs: Path, cpu: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.load", "--cpu", str(cpu), "--one", runtime, str(stored), str(inputs)]
    environment = os.environ | {"TVM_USE_RUNTIME_LIB": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def one(runtime: str, stored: str, inputs: str) -> dict[str, float]:
    """In a new process: import, load, run once."""
    import numpy as np

    sample = dict(np.load(inputs))
    start = time.perf_counter()
    run = {"ours": _ours, "ort": _onnxruntime, "openvino": _openvino}[runtime]()
    imported, memory = time.perf_counter(), _megabytes()
    run(stored, sample)
    values = (imported - start, time.perf_counter() - imported, memory, _megabytes())
    return dict(zip(KEYS, values, strict=True))


def _ours() -> Any:
    import tvm.runtime

    import tvm_ffn

    def run(stored: str, sample: dict[str, Any]) -> None:
        module = tvm_ffn.load(stored)
        names = (info.name for info in module.inputs)
        module.run(dict(zip(names, sample.values(), strict=True)))

    assert tvm.runtime is not None
    return run


def _onnxruntime() -> Any:
    import onnxruntime

    def run(stored: str, sample: dict[str, Any]) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        onnxruntime.InferenceSession(stored, options, providers=["CPUExecutionProvider"]).run(None, sample)

    return run


def _openvino() -> Any:
    import openvino

    def run(stored: str, sample: dict[str, Any]) -> None:
        properties = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
        openvino.Core().compile_model(stored, "CPU", properties).create_infer_request().infer(sample)

    return run


def _megabytes() -> float:
    """Largest resident set so far; ``ru_maxrss`` would count the parent's too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def table(name: str, result: dict[str, dict[str, float]]) -> str:
    """One row a runtime, and ours over onnxruntime fp32 in time and memory."""
    lines = [f"{name:16}" + "".join(f"{key:>11}" for key in KEYS) + f"{'load / ort':>13}{'peak / ort':>12}"]
    base = result["ort fp32"]
    for key, values in result.items():
        ratios = f"{values['load s'] / base['load s']:13.2f}{values['peak MB'] / base['peak MB']:12.2f}"
        lines.append(f"{key:16}" + "".join(f"{values[k]:11.3f}" for k in KEYS) + ratios)
    return "\n".join(lines)


if __name__ == "__main__":
    main()
