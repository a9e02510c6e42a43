"""The README's main job: compile the digits CNN to a ternary-factorised module, run it, and say what it costs.

python examples/demo.py [--target "llvm -mcpu=x86-64-v3"] [--max-drop 1.0] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

import tvm_ffn
from tvm_ffn.importer import load_model
from tvm_ffn.interpreter import Interpreter

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="llvm", help="a CPU this machine can run (default: this machine's)")
    parser.add_argument("--max-drop", type=float, default=1.0, help="points of accuracy the layers are planned to lose")
    parser.add_argument("--out", type=Path, help="where to keep the compiled module")
    options = parser.parse_args()
    images = np.load(HERE / "digits_test.npz")["image"]
    labels = np.loadtxt(HERE / "digits_labels.csv", int, skiprows=1)

    module = tvm_ffn.compile(
        HERE / "digits.onnx",
        options.target,
        config=tvm_ffn.FFNConfig(budget={"max_drop": options.max_drop}),
        calibration=HERE / "digits_calibration.npz",
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.out or Path(scratch) / "digits"
        module.save(folder)
        module = tvm_ffn.load(folder)  # what runs is what ships
        before = Interpreter(load_model(HERE / "digits.onnx").mod).run({"image": images})[0]
        after = module.run({"image": images})[0]
    print(module.report.table())
    print()
    print_summary(module.report, before, after, labels)


def print_summary(report: tvm_ffn.Report, before: np.ndarray, after: np.ndarray, labels: np.ndarray) -> None:
    """Accuracy of both sets of logits (N, 10), and what the report says of size and arithmetic."""
    totals = report.totals
    accuracy = [float((logits.argmax(1) == labels).mean()) for logits in (before, after)]
    agreement = float((before.argmax(1) == after.argmax(1)).mean())
    rows = [
        ("", "fp32", "tvm_ffn"),
        (f"accuracy on {len(labels)} test images", *(f"{value:.2%}" for value in accuracy)),
        ("same answer as fp32", "", f"{agreement:.2%}"),
        ("bytes of weights", f"{totals['fp32_bytes']:,}", f"{totals['weight_bytes']:,}"),
        ("multiplies an image", f"{totals['macs']:,}", f"{totals['multiplies']:,}"),
        ("additions an image", f"{totals['macs']:,}", f"{totals['adds']:,}"),
    ]
    for row in rows:
        print("{:34}{:>14}{:>14}".format(*row))


if __name__ == "__main__":
    main()
