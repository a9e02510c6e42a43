"""Accuracy for work: KL, agreement and top-1 over executed additions and bytes, for every form of the weights.

    python -m benchmarks.accuracy resnet18 squeezenet1_1 --json OUT.json --plot OUT.png
    python -m benchmarks.accuracy cifar10_resnet20 --forms planes-0.5 planes-0.65 response-1.5 sdd-1.0

Models and images lie beside the repository (`models.SHARED`). Forms: ``planes-A``, digit planes with a budget of A
digits a multiply-accumulate; ``default``, the package's own settings (weights are packed in all forms); ``drop-P``,
these with a budget of P points of top-1; ``uniform-P``, digit planes at one price P in all layers; ``response-R``,
factors of any form of rank ratio R; ``sdd-R``, the paper's improved semidiscrete decomposition, and ``greedy-R`` the
plain one; ``int8``, all layers int8; ``onnxruntime`` and ``nncf``, the peers' int8 models.

``adds`` are additions executed by the packed kernels an original multiply-accumulate, over all convolutions but the
first, and ``shared`` those of weights as AVX-512 code, where rows share sums of two inputs; ``bytes`` of all weights,
as a part of int8's. The solver sees the calibration images only; the modules that answer are compiled ones.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.models import SHARED, load_onnx
from benchmarks.peer_runtimes import quantized
from tvm_ffn import targets
from tvm_ffn.cache import VARIABLE
from tvm_ffn.calibration import Calibration, Preprocess, image_files, open_calibration
from tvm_ffn.compiler import finish
from tvm_ffn.config import FFNConfig, LayerConfig
from tvm_ffn.forms import with_forms
from tvm_ffn.importer import load_model
from tvm_ffn.pipeline import Compilation, run
from tvm_ffn.sharing import shared_adds
from tvm_ffn.verify import Comparison

FORMS = (
    "default",
    *(f"planes-{adds}" for adds in (0.4, 0.55, 0.65, 0.8)),
    *(f"response-{ratio}" for ratio in (1.0, 1.5)),
    "sdd-1.0",
    "greedy-1.0",
    "int8",
    "onnxruntime",
    "nncf",
)
PEER_SAMPLES = 100  # calibration samples of the peers, of the same images


def main() -> None:
    """Parse the command line, measure, print and store after every form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="*", help="names under models/ (default: all)")
    parser.add_argument("--forms", nargs="+", default=list(FORMS))
    parser.add_argument("--json", type=Path, help="results, kept and continued if the file exists")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    os.environ[VARIABLE] = "0"  # a solution in the cache would stand for every form
    results = json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
    files = {path.name.split(".")[0]: path for path in sorted((SHARED / "models").glob("*.onnx*"))}
    for name in options.model or files:
        rows = results.setdefault(name, {})
        missing = [form for form in options.forms if form not in rows]
        task = Task(name, files[name]) if missing else None
        for form in missing:
            assert task is not None
            rows[form] = task.measure(form)
            print(f"{name:18} {form:14} {line(rows[form])}", flush=True)
            if options.json:
                options.json.write_text(json.dumps(results, indent=1) + "\n")
    if options.plot:
        plot(results, options.plot)


def line(row: dict[str, Any]) -> str:
    """One result as text."""
    work = "".join(f"{key} {row[key]:.3f}  " for key in ("adds", "shared", "bytes") if row.get(key) is not None)
    return (
        f"KL {row['divergence']:.4f}  agreement {100 * row['agreement']:.1f} %  "
        f"top-1 {100 * row['accuracy']:.1f} % (fp32 {100 * row['accuracy_fp32']:.1f} %)  {work}"
        f"solved in {row['seconds']:.0f} s"
    )


class Task:
    """One model with its images; the fp32 network is run, observed and measured once."""

    def __init__(self, name: str, path: Path) -> None:
        self.model = load_onnx(path)
        self.imported = load_model(self.model)
        calibration, self.evaluation, self.labels = images_of(name, self.imported.inputs)
        target = targets.parse_target("llvm")
        self.base = run(Compilation(self.model, target, FFNConfig(), calibration), stop_after="measure")
        self.answers = [session_outputs(self.model, sample) for sample in self._samples()]

    def measure(self, form: str) -> dict[str, Any]:
        """Figures of one form."""
        if form in ("onnxruntime", "nncf"):
            return self._peer(form)
        c = copy.copy(self.base)
        c.seconds, c.key = {}, ""
        planned = form.startswith(("planes", "default", "drop"))
        c.config, c.measured = settings(form), self.base.measured if planned else {}
        c.settings = with_forms(c.network, c.config.resolve(self.imported.layer_names), c.config)
        run(c, start_at="factorize")
        module = finish(c)
        rows = [row for row in module.report.layers if row.op == "conv2d"][1:]
        macs = max(1, sum(row.macs for row in rows))
        figures = self._compare(lambda sample: module.run(sample))
        figures["adds"] = sum(row.adds for row in rows) / macs
        shared = [shared_adds(unit, c.quantized.layers[unit]) for unit in c.network.linear if unit.kind == "conv2d"][1:]
        figures["shared"] = sum(shared) / macs
        figures["bytes"] = module.report.totals["weights_to_int8"]
        figures["seconds"] = sum(c.seconds.get(step, 0.0) for step in ("factorize",))
        return figures

    def _samples(self) -> Iterator[dict[str, np.ndarray]]:
        for batch in self.evaluation:
            for index in range(len(next(iter(batch.values())))):
                yield {name: value[index : index + 1] for name, value in batch.items()}

    def _compare(self, answer: Any) -> dict[str, Any]:
        comparison = Comparison(["logits"], self.labels)
        for sample, expected in zip(self._samples(), self.answers, strict=True):
            comparison.add(expected[:1], answer(sample)[:1])
        result = comparison.result()
        keys = ("samples", "divergence", "agreement", "expected_drop", "accuracy", "accuracy_fp32")
        return {key: getattr(result, key) for key in keys}

    def _peer(self, name: str) -> dict[str, Any]:
        import time

        start = time.perf_counter()
        samples = []
        for batch in self.base.data:
            samples += [{k: v[i : i + 1] for k, v in batch.items()} for i in range(len(next(iter(batch.values()))))]
        if name == "onnxruntime":
            answer = session(quantized(self.model, samples[:PEER_SAMPLES]))
        else:
            answer = nncf_answer(self.model, samples)
        seconds = time.perf_counter() - start
        return {**self._compare(answer), "seconds": seconds}


def settings(form: str) -> FFNConfig:
    """The configuration that a form's name stands for, weights packed: the answers are the same."""
    return _settings(form).replace(optimize="size")


def _settings(form: str) -> FFNConfig:
    kind, _, number = form.partition("-")
    if kind == "planes":
        return FFNConfig(budget={"adds": float(number)})
    if kind == "drop":
        return FFNConfig(budget={"max_drop": float(number)})
    if kind == "uniform":
        return FFNConfig(penalty=float(number))
    if kind == "int8":
        return FFNConfig(layers={"re:.*": LayerConfig(precision="int8")})
    if kind == "default":
        return FFNConfig()
    if kind == "greedy":
        return FFNConfig(method="sdd", rank_ratio=float(number), sweeps=0)
    return FFNConfig(method=kind, rank_ratio=float(number))


def images_of(name: str, inputs: Any) -> tuple[Any, Calibration, np.ndarray]:
    """Calibration data, evaluation data and its labels, preprocessed as the model was trained."""
    images = SHARED / "images"
    if name.startswith("cifar10"):
        stored = np.load(images / "cifar10.npz")
        mean, std = (np.array(v, np.float32) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        prepared = {
            key: np.ascontiguousarray(((stored[key] / np.float32(255) - mean) / std).transpose(0, 3, 1, 2))
            for key in ("x_calib", "x_test")
        }
        return prepared["x_calib"], open_calibration(prepared["x_test"], inputs), stored["y_test"].astype(int)
    if name.startswith("lenet"):
        stored = np.load(images / "mnist_t10k.npz")
        pixels, labels = (next(stored[k] for k in stored.files if stored[k].ndim == n) for n in (3, 1))
        scaled = (pixels[:, None] / np.float32(255)).astype(np.float32)
        return scaled[:500], open_calibration(scaled[500:], inputs), labels[500:].astype(int)
    plain = Preprocess(mean=(0.0,), std=(1.0,)) if name.startswith("darknet") else None
    with (images / "labels_eli1000.csv").open(encoding="utf-8") as stream:
        labels = {Path(row["file"]).name: int(row["label"]) for row in csv.DictReader(stream)}
    evaluation = open_calibration(images / "eli1000", inputs, preprocess=plain)
    ordered = np.array([labels[path.name] for path in image_files(images / "eli1000")])
    return open_calibration(images / "calibration", inputs, preprocess=plain), evaluation, ordered


def session(model: Any) -> Any:
    """A function that answers one sample by onnxruntime."""
    import onnxruntime

    opened = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda sample: opened.run(None, dict(sample))


_SESSIONS: dict[int, Any] = {}


def session_outputs(model: Any, sample: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The fp32 outputs for one sample."""
    if id(model) not in _SESSIONS:
        _SESSIONS[id(model)] = session(model)
    return list(_SESSIONS[id(model)](sample))


def nncf_answer(model: Any, samples: list[dict[str, np.ndarray]]) -> Any:
    """A function that answers by OpenVINO with NNCF's int8 model; both have to be installed."""
    import nncf
    import openvino

    read = openvino.Core().read_model(model=model.SerializeToString())
    int8 = nncf.quantize(read, nncf.Dataset(samples), subset_size=len(samples))
    request = openvino.Core().compile_model(int8, "CPU").create_infer_request()
    return lambda sample: list(request.infer(dict(sample)).values())


CURVES = ("planes", "drop", "uniform", "response", "sdd", "greedy")
POINTS = {"default": "*", "int8": "s", "onnxruntime": "x", "nncf": "+"}  # an int8 layer executes an addition a MAC


def plot(results: dict[str, dict[str, Any]], path: Path) -> None:
    """KL over executed additions, one panel a model."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, -(-len(results) // 2), figsize=(12, 7), squeeze=False, sharex=True)
    for panel, (name, rows) in zip(axes.ravel(), results.items(), strict=False):
        for place, kind in enumerate(CURVES):
            points = sorted((row["shared"], row["divergence"]) for form, row in rows.items() if form.startswith(kind))
            if points:
                panel.plot(*zip(*points, strict=True), "o-", label=kind, color=f"C{place}", markersize=4)
        for place, (form, marker) in enumerate(POINTS.items(), len(CURVES)):
            if form in rows:
                found = rows[form].get("shared", 1.0), max(rows[form]["divergence"], 1e-5)
                panel.plot(*found, marker, label=form, color=f"C{place}", markersize=9)
        panel.set(title=name, yscale="log")
        panel.grid(alpha=0.3)
    for panel in axes[-1]:
        panel.set_xlabel("additions executed a MAC, as code")
    for panel in axes[:, 0]:
        panel.set_ylabel("KL to fp32, nats")
    named = {
        label: line for panel in axes.ravel() for line, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(named.values(), named.keys(), loc="lower center", ncols=len(named), frameon=False)
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
