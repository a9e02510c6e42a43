"""The table of figures in the README: accuracy, agreement, latency beside onnxruntime in the same run, bytes.

    python -m benchmarks.figures [--models digits resnet18] [--rank-ratios 1.0 1.5] [--limit N]

The digits CNN is in the repository; resnet18 and its images are used where they lie beside it. Accuracy and agreement
are measured with the first target; every other target must give the same outputs, bit for bit. One thread each.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

EXAMPLES = Path(__file__).parents[1] / "examples"
TARGETS = ("llvm", "llvm -mcpu=x86-64-v3")
HEAD = (
    "| model | rank ratio | top-1 fp32 | top-1 tvm_ffn | same answer | ms (x onnxruntime fp32), this CPU | "
    "ms (x), x86-64-v3 | weights / int8 | additions / MACs | compile s |\n" + "|---" * 10 + "|"
)


@dataclass(frozen=True)
class Subject:
    """A model with its calibration data and labelled test data."""

    model: Path
    calibration: Path
    test: Path
    labels: Path


def subjects(scratch: Path) -> dict[str, Subject]:
    """The models that are here, by name."""
    from benchmarks.models import SHARED, load_onnx

    found = {
        "digits": Subject(
            *(EXAMPLES / f"digits{end}" for end in (".onnx", "_calibration.npz", "_test.npz", "_labels.csv"))
        )
    }
    packed, images = SHARED / "models" / "resnet18.onnx.gz", SHARED / "images"
    if packed.exists():
        model = scratch / "resnet18.onnx"
        model.write_bytes(load_onnx(packed).SerializeToString())
        labels = images / "labels_eli1000.csv"
        found["resnet18"] = Subject(model, images / "calibration", images / "eli1000", labels)
    return found


def row(name: str, subject: Subject, ratio: float, limit: int | None) -> str:
    """One line of the table."""
    import tvm_ffn
    from tvm_ffn.bench import bench
    from tvm_ffn.feeds import random_inputs
    from tvm_ffn.verify import verify

    config = tvm_ffn.FFNConfig(rank_ratio=ratio)
    start = time.perf_counter()
    first, *others = (
        tvm_ffn.compile(subject.model, t, config=config, calibration=subject.calibration) for t in TARGETS
    )
    seconds = (time.perf_counter() - start) / len(TARGETS)
    sample = random_inputs(first.inputs)
    for other in others:
        for have, want in zip(other.run(sample), first.run(sample), strict=True):
            np.testing.assert_array_equal(have, want)
    checked = verify(first, subject.model, subject.test, labels=subject.labels, limit=limit)
    times = [bench(module, subject.model) for module in (first, *others)]
    totals = first.report.totals
    cells = [
        name,
        f"{ratio:g}",
        *("" if share is None else f"{share:.1%}" for share in (checked.accuracy_fp32, checked.accuracy)),
        "" if checked.agreement is None else f"{checked.agreement:.1%}",
        *(f"{result['median_ms']:.3g} ({result['ratio']:.2f})" for result in times),
        f"{totals['weights_to_int8']:.2f}",
        f"{totals['adds_to_macs']:.2f}",
        f"{seconds:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table, a row as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", metavar="NAME", help="default: all that are here")
    parser.add_argument("--rank-ratios", nargs="+", type=float, default=[1.0, 1.5], metavar="R")
    parser.add_argument("--limit", type=int, metavar="N", help="test on the first N samples only")
    options = parser.parse_args()
    os.environ.setdefault("TVM_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as scratch:
        here = subjects(Path(scratch))
        print(HEAD)
        for name in options.models or here:
            if name not in here:
                parser.error(f"{name} is not here; there are {', '.join(here)}")
            for ratio in options.rank_ratios:
                print(row(name, here[name], ratio, options.limit), flush=True)


if __name__ == "__main__":
    main()
