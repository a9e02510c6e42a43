"""One model's report card: accuracy against fp32, latency against onnxruntime fp32, bytes, identical integers.

    TVM_NUM_THREADS=1 python -m benchmarks.report_card MODEL.onnx --calibration IMAGES --evaluation IMAGES \
        --labels LABELS.csv --config '{}' '{"rank_ratio": 1.5}' --target llvm "llvm -mcpu=x86-64-v3" --json OUT.json

The model is solved once for each configuration (JSON; {} is the default) on all cores, and built for every target.
Latency: module and onnxruntime in turn on one core, one thread each, and the ratio of their medians. Integers: the
first samples through every target's module and the NumPy oracle, layer by layer, bit for bit.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from benchmarks.layer_values import compare_layers
from tvm_ffn import bench, targets, verify
from tvm_ffn.calibration import open_calibration
from tvm_ffn.compiler import finish
from tvm_ffn.config import FFNConfig
from tvm_ffn.importer import load_model
from tvm_ffn.pipeline import Compilation, for_target, run


def main() -> None:
    """Parse the command line, print and store the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--evaluation", required=True)
    parser.add_argument("--labels")
    parser.add_argument("--config", type=json.loads, nargs="+", default=[{}, {"rank_ratio": 1.5}])
    parser.add_argument("--target", nargs="+", default=["llvm", "llvm -mcpu=x86-64-v3"])
    parser.add_argument("--optimize", nargs="+", default=["size", "speed"], choices=("size", "speed"))
    parser.add_argument("--repeat", type=int, default=50)
    parser.add_argument("--cpu", type=int, default=0, help="core for the latencies")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    card = {json.dumps(config): _card(options, FFNConfig.from_dict(config)) for config in options.config}
    if options.json:
        options.json.write_text(json.dumps(card, indent=1) + "\n")


def _card(options: argparse.Namespace, config: FFNConfig) -> dict[str, Any]:
    imported = load_model(options.model)
    data = open_calibration(options.calibration, imported.inputs)
    first = targets.parse_target(options.target[0])
    solved = Compilation(options.model, first, config, data)
    run(solved, stop_after="factorize")
    built = {}
    for mode in options.optimize:
        for target in options.target:
            c = for_target(solved, targets.parse_target(target))
            c.config = c.config.replace(optimize=mode)
            built[f"{mode}: {target}"] = run(c, start_at="choose")
    modules = {name: finish(c) for name, c in built.items()}
    result: dict[str, Any] = {"seconds": {name: c.seconds for name, c in built.items()}}
    result["totals"] = {name: module.report.totals for name, module in modules.items()}
    result["differing_layers"] = compare_layers(list(built.values()), data)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {options.cpu})
    result["latency"] = {
        name: bench.bench(module, options.model, repeat=options.repeat) for name, module in modules.items()
    }
    os.sched_setaffinity(0, cores)
    checked = verify.verify(next(iter(modules.values())), options.model, options.evaluation, labels=options.labels)
    result["accuracy"] = dataclasses.asdict(checked)
    print(json.dumps(result, indent=1), flush=True)
    return result


if __name__ == "__main__":
    main()
