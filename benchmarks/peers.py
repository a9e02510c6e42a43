"""Whole models beside onnxruntime and OpenVINO: one core and thread, or more, one sample, all in turn in one process.

    python -m benchmarks.peers resnet50 squeezenet path/to/model.onnx --cpu 1 --json OUT.json
    python -m benchmarks.peers resnet50 --isa avx2 --layers
    python -m benchmarks.peers resnet50 --threads 2
    python -m benchmarks.peers model.onnx --compiled OUT

A model is a file or one of ``models.LIGHT``. Ours has random factors (`tvm_ffn.synthetic`), right for speed, not for
accuracy, or is what was compiled from the file. The clock is the process's CPU time, which on one thread is the latency
without the time that other processes had the core; on several it is the time of day, each call after a pause in which
the threads of the one before stop spinning. Ratios are of medians, in brackets of minima; below 1 is faster. With
``--isa avx2`` ours is built for x86-64-v3 and OpenVINO told to use no more than AVX2 (onnxruntime cannot be told).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

PAUSE = 0.03  # seconds: longer than any of the runtimes' threads wait for work before they sleep
TARGETS = {"native": "llvm", "avx2": "llvm -mcpu=x86-64-v3"}
PEERS = {
    "native": ["ort fp32", "ort int8", "openvino fp32", "openvino int8"],
    "avx2": ["openvino fp32", "openvino int8"],
}


def main() -> None:
    """Parse the command line, measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="+")
    parser.add_argument(
        "--rank-ratio", type=float, nargs="+", default=[0.0, 1.0], help="0: digit planes, the default method"
    )
    parser.add_argument("--optimize", nargs="+", default=["size", "speed"], choices=("size", "speed"))
    parser.add_argument("--code-bytes", type=float, help="with speed: all weights, at most, over int8's")
    parser.add_argument("--isa", default="native", choices=TARGETS)
    parser.add_argument("--compiled", nargs="+", metavar="OUT", help="artefacts, in place of random factors")
    parser.add_argument("--zeros", type=float, default=0.5, help="share of zeros in the random factors")
    parser.add_argument("--peers", nargs="*", help="names of the peers to run (default: all of the ISA)")
    parser.add_argument("--quantizer", choices=("NNCF", "QDQ"), help="of OpenVINO's int8 (default: NNCF if installed)")
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--cpu", type=int, default=0, help="the first core everything runs on")
    parser.add_argument("--threads", type=int, default=1, help="as many cores")
    parser.add_argument("--layers", action="store_true", help="also the time of every kernel of ours")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="a picture of the latencies, relative to the fastest peer's")
    options = parser.parse_args()
    # All of it before any runtime is imported: they read the environment and count the cores then.
    os.sched_setaffinity(0, range(options.cpu, options.cpu + options.threads))
    os.environ["TVM_NUM_THREADS"] = str(options.threads)
    if options.compiled and len(options.model) > 1:
        parser.error("--compiled takes the artefacts of one model")
    if options.isa == "avx2":
        os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX2"
    results = {}
    for model in options.model:
        results[Path(model).stem] = result = measure(model, options)
        print(table(Path(model).stem, result), flush=True)
        if options.json:
            options.json.write_text(json.dumps(results, indent=1) + "\n")
    if options.plot:
        plot(results, options.plot)


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Medians and minima in ms by runtime, bytes of our weights, seconds that preparing took."""
    from benchmarks.models import light_model, load_onnx
    from benchmarks.peer_runtimes import QUANTIZERS, peer_runs, random_samples
    from tvm_ffn.bench import interleaved, kernel_table, kernel_times
    from tvm_ffn.runtime import load

    model = load_onnx(Path(name)) if Path(name).exists() else light_model(name)
    samples = random_samples(model, 3)
    start = time.perf_counter()
    peers = PEERS[options.isa] if options.peers is None else options.peers
    quantizer = options.quantizer or QUANTIZERS[0]
    runs = peer_runs(model, samples[0], samples, peers, options.threads, quantizer)
    prepared = {"peers": time.perf_counter() - start}
    modules = {Path(folder).name: load(folder) for folder in options.compiled or ()}
    for ratio in options.rank_ratio if not modules else ():
        for mode in options.optimize:
            key = f"{mode} {ratio:g}" if ratio else f"{mode} planes"
            start = time.perf_counter()
            modules[key] = module(model, ratio, mode, options)
            prepared[key] = time.perf_counter() - start
    for key, built in modules.items():
        inputs = {info.name: value for info, value in zip(built.inputs, samples[0].values(), strict=True)}
        runs[key] = lambda built=built, inputs=inputs: built.run(inputs)
    if options.threads == 1:
        times = interleaved(runs, options.repeat, clock=time.process_time)
    else:
        times = interleaved(runs, options.repeat, pause=PAUSE)
    result: dict[str, Any] = {
        "median_ms": {key: statistics.median(values) for key, values in times.items()},
        "min_ms": {key: min(values) for key, values in times.items()},
        "weight_bytes": {key: built.report.totals["weight_bytes"] for key, built in modules.items()},
        "int8_bytes": next((built.report.totals["int8_bytes"] for built in modules.values()), None),
        "seconds": prepared,
        "openvino_int8": quantizer,
        "isa": options.isa,
        "threads": options.threads,
        "repeat": options.repeat,
    }
    if options.layers:
        result["kernels"] = {}
        for key, built in modules.items():
            kernels = kernel_times(built, repeat=options.repeat)
            print(f"{name}, {key}\n{kernel_table(kernels)}")
            result["kernels"][key] = [vars(kernel) for kernel in kernels]
    return result


def module(model: Any, ratio: float, mode: str, options: argparse.Namespace) -> Any:
    """Ours, ready to run."""
    from tvm_ffn import targets
    from tvm_ffn.compiler import finish
    from tvm_ffn.config import FFNConfig
    from tvm_ffn.pipeline import run
    from tvm_ffn.synthetic import random_compilation

    target = targets.parse_target(TARGETS[options.isa])
    config = FFNConfig(rank_ratio=ratio or None, optimize=mode, code_bytes=options.code_bytes)
    return finish(run(random_compilation(model, target, config, zeros=options.zeros), start_at="choose"))


def table(name: str, result: dict[str, Any]) -> str:
    """Latencies, and ours over each peer's: ratio of medians (ratio of minima)."""
    medians, minima = result["median_ms"], result["min_ms"]
    ours = list(result["weight_bytes"])
    peers = [key for key in medians if key not in ours]
    lines = [f"{name} ({result['isa']}; threads: {result['threads']}; OpenVINO int8 from {result['openvino_int8']})"]
    lines.append(f"{'':14}{'median':>9}{'min':>9}" + "".join(f"{'/ ' + peer:>17}" for peer in peers) + f"{'MB':>8}")
    for key in medians:
        line = f"{key:14}{medians[key]:9.3f}{minima[key]:9.3f}"
        if key in ours:
            line += "".join(
                f"{medians[key] / medians[peer]:10.2f}{f'({minima[key] / minima[peer]:.2f})':>7}" for peer in peers
            )
            line += f"{result['weight_bytes'][key] / 1e6:8.2f}"
        lines.append(line)
    return "\n".join(lines)


def plot(results: dict[str, Any], path: Path) -> None:
    """One group of bars a model: medians over that of its fastest peer."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(next(iter(results.values()))["median_ms"])
    figure, axis = pyplot.subplots(figsize=(2 + 1.6 * len(results), 4))
    for place, name in enumerate(names):
        heights = []
        for result in results.values():
            peers = [ms for key, ms in result["median_ms"].items() if key not in result["weight_bytes"]]
            heights.append(result["median_ms"][name] / min(peers))
        width = 1 / (len(names) + 1)
        places = [model + (place - len(names) / 2) * width for model in range(len(results))]
        axis.bar(places, heights, width, align="edge", label=name)
    axis.axhline(1, color="gray", linewidth=0.8)
    axis.set_xticks(range(len(results)), list(results))
    axis.set_ylabel("latency / fastest peer")
    axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
