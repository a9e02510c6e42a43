"""The commands of the command line: compile on the example, the others on a module that equals its fp32 original."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tvm_ffn import cli
from tvm_ffn.runtime import load

EXAMPLES = Path(__file__).parents[2] / "examples"
WEIGHT = np.arange(12, dtype=np.float32).reshape(4, 3)  # of the fixture ``stage``


@pytest.fixture
def folder(stage: Callable[..., Path], tmp_path: Path) -> Path:
    """Hold ``out`` (the artefact), ``model.onnx`` (its original), ``data.npz`` and ``labels.csv``."""
    load(stage(), temporary=True).save(tmp_path / "out")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Add", ["x", "x"], ["z"])]
    infos = [helper.make_tensor_value_info(name, 1, ["N", size]) for name, size in (("x", 4), ("y", 3), ("z", 4))]
    graph = helper.make_graph(nodes, "linear", infos[:1], infos[1:], [numpy_helper.from_array(WEIGHT, "w")])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, tmp_path / "model.onnx")
    x = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x)
    labels = (x @ WEIGHT).argmax(1)
    labels[:5] = 1 - np.minimum(labels[:5], 1)  # none of these is right
    (tmp_path / "labels.csv").write_text("label\n" + "\n".join(map(str, labels)) + "\n")
    return tmp_path


def compile_digits(out: Path, *options: str, model: Path = EXAMPLES / "digits.onnx") -> int:
    return cli.main(["compile", str(model), "-o", str(out), *options])


def test_compile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"rounds": 0, "sweeps": 1, "layers": {"block2.down": {"rank": 8}}}))
    data = str(EXAMPLES / "digits_calibration.npz")
    options = ["--calibration", data, "--limit", "32", "--config", str(settings), "--rank-ratio", "1"]
    assert compile_digits(tmp_path / "out", *options) == 0
    printed = capsys.readouterr().out
    assert "block1.conv1" in printed and f"wrote {tmp_path / 'out'}" in printed
    module = load(tmp_path / "out")
    assert module.manifest.config["rank_ratio"] == 1.0 and module.manifest.preprocess is None
    ranks = {row.name: row.rank for row in module.report.layers}
    assert ranks["block2.down"] == 8 and ranks["block1.conv1"] == 32
    assert cli.main(["inspect", str(tmp_path / "out"), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["layers"]) == 7


def test_compile_on_images_keeps_the_preprocessing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    (tmp_path / "images").mkdir()
    for index, pixels in enumerate(np.random.default_rng(0).integers(0, 255, (8, 20, 30), np.uint8)):
        Image.fromarray(pixels).save(tmp_path / "images" / f"{index}.png")
    (tmp_path / "images.json").write_text(json.dumps({"mean": 0.25, "std": 0.5}))
    options = [
        "--calibration",
        str(tmp_path / "images"),
        "--preprocess",
        str(tmp_path / "images.json"),
        "--std",
        "0.75",
    ]
    assert compile_digits(tmp_path / "out", *options) == 0
    assert "image preprocessing: " in capsys.readouterr().out
    stored = load(tmp_path / "out").manifest.preprocess
    assert stored is not None
    assert (stored["size"], stored["mean"], stored["std"], stored["channels"]) == ([16, 16], [0.25], [0.75], "L")
    command = ["verify", str(tmp_path / "out"), "--against", str(EXAMPLES / "digits.onnx")]
    assert cli.main([*command, "--data", str(tmp_path / "images")]) == 0
    assert "samples                 8" in capsys.readouterr().out


def test_synthetic_calibration_warns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compile_digits(tmp_path / "out", "--synthetic-calibration", "--limit", "4") == 0
    assert "warning: calibrated on 4 synthetic samples" in capsys.readouterr().out


def test_compile_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(code: int, message: str, *options: str, model: Path = EXAMPLES / "digits.onnx") -> None:
        assert compile_digits(tmp_path / "out", *options, model=model) == code
        error = capsys.readouterr().err
        assert error.startswith("tvm-ffn: error: ") and message in error and error.count("\n") == 1
        assert not (tmp_path / "out").exists()

    (tmp_path / "truncated.onnx").write_bytes((EXAMPLES / "digits.onnx").read_bytes()[:5000])
    (tmp_path / "text.onnx").write_text("hello\n")
    (tmp_path / "no_object.json").write_text("[]")
    nan = onnx.load(EXAMPLES / "digits.onnx")
    weight = numpy_helper.to_array(nan.graph.initializer[0]).copy()
    weight.flat[0] = np.nan
    nan.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, nan.graph.initializer[0].name))
    onnx.save(nan, tmp_path / "nan.onnx")
    synthetic, data = "--synthetic-calibration", str(EXAMPLES / "digits_calibration.npz")
    fails(4, "truncated.onnx", synthetic, model=tmp_path / "truncated.onnx")
    fails(4, "text.onnx", synthetic, model=tmp_path / "text.onnx")
    fails(4, f"'{nan.graph.initializer[0].name}' holds NaN", synthetic, model=tmp_path / "nan.onnx")
    fails(2, "missing.onnx", synthetic, model=tmp_path / "missing.onnx")
    fails(2, "no calibration data: give")
    fails(2, "nowhere", "--calibration", str(tmp_path / "nowhere"))
    fails(2, "preprocessing is for folders of images", "--calibration", data, "--mean", "0.5")
    fails(2, "must be a JSON object", "--calibration", data, "--preprocess", str(tmp_path / "no_object.json"))


def test_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", str(folder / "out"), "--input", str(folder / "data.npz"), "-o", str(folder / "new" / "y.npz")]
    assert cli.main(command) == 0
    assert "y: float32[20, 3]" in capsys.readouterr().out
    with np.load(folder / "data.npz") as data, np.load(folder / "new" / "y.npz") as results:
        np.testing.assert_allclose(results["y"], data["x"] @ WEIGHT, rtol=1e-5)
        assert results.files == ["y", "z"]


def test_run_of_a_fixed_batch(stage: Callable[..., Path], folder: Path) -> None:
    load(stage(symbolic=False), temporary=True).save(folder / "fixed")
    for count in (20, 1):
        with np.load(folder / "data.npz") as data:
            np.savez(folder / "x.npz", x=data["x"][:count])
        command = ["run", str(folder / "fixed"), "--input", str(folder / "x.npz"), "-o", str(folder / "y.npz")]
        assert cli.main(command) == 0
        with np.load(folder / "x.npz") as data, np.load(folder / "y.npz") as results:
            np.testing.assert_allclose(results["y"], data["x"] @ WEIGHT, rtol=1e-5)
    np.savez(folder / "x.npz", x=np.zeros((0, 4), np.float32))
    assert cli.main(command) == 2


@pytest.mark.parametrize(
    ("content", "message"), [(b"hello", "no .npz file"), (b"PK\x03\x04broken", "no .npz file"), (None, "No such file")]
)
def test_unreadable_input(
    folder: Path, content: bytes | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "bad.npz"
    if content is not None:
        path.write_bytes(content)
    assert cli.main(["run", str(folder / "out"), "--input", str(path), "-o", str(folder / "y.npz")]) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "y.npz").exists()


def test_verify(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "verify",
        str(folder / "out"),
        "--against",
        str(folder / "model.onnx"),
        "--data",
        str(folder / "data.npz"),
    ]
    assert cli.main([*command, "--max-drop", "0"]) == 0
    assert "agreement with fp32     100.00 %" in capsys.readouterr().out
    assert cli.main([*command, "--labels", str(folder / "labels.csv")]) == 0
    assert "top-1 module            75.00 %  (drop 0.00 points)" in capsys.readouterr().out
    assert cli.main([*command, "--max-drop", "-1"]) == 3
    assert "exceeds" in capsys.readouterr().err
    assert cli.main([*command, "--limit", "7"]) == 0
    assert "samples                 7\n" in capsys.readouterr().out


def test_verify_against_another_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = onnx.load(folder / "model.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, folder / "other.onnx")
    command = [
        "verify",
        str(folder / "out"),
        "--against",
        str(folder / "other.onnx"),
        "--data",
        str(folder / "data.npz"),
    ]
    assert cli.main(command) == 4
    assert "is not the model that was compiled" in capsys.readouterr().err


def test_bench(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TVM_NUM_THREADS", "1")  # undone after the test, which the command's own setting would not be
    assert cli.main(["bench", str(folder / "out"), "--json", "--repeat", "3"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["repeat"] == 3 and result["median_ms"] > 0 and "ratio" not in result
    pytest.importorskip("onnxruntime")
    assert cli.main(["bench", str(folder / "out"), "--json", "--against", str(folder / "model.onnx")]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["ratio"] == pytest.approx(result["median_ms"] / result["onnxruntime_median_ms"])


def test_bench_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TVM_NUM_THREADS", "1")
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"rounds": 0, "sweeps": 1, "optimize": "size"}))
    assert compile_digits(tmp_path / "out", "--synthetic-calibration", "--limit", "4", "--config", str(settings)) == 0
    capsys.readouterr()
    command = ["bench", str(tmp_path / "out"), "--layers", "--repeat", "2"]
    assert cli.main(command) == 0
    assert "block1.conv1" in capsys.readouterr().out
    assert cli.main([*command, "--json"]) == 0
    kernels = json.loads(capsys.readouterr().out)["kernels"]
    rows = sorted(load(tmp_path / "out").report.layers, key=lambda row: row.call)  # a residual comes first
    assert [kernel["layer"] for kernel in kernels if kernel["layer"]] == [row.name for row in rows]
    assert {kernel["family"] for kernel in kernels if kernel["layer"]} >= {"digits", "int8"}
    assert sum(kernel["share"] for kernel in kernels) == pytest.approx(1.0)
    assert kernels[-1]["function"] == "virtual machine"


def test_bench_without_onnxruntime_names_the_extra(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TVM_NUM_THREADS", "1")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert cli.main(["bench", str(folder / "out"), "--against", str(folder / "model.onnx")]) == 1
    assert "pip install 'tvm_ffn[bench]'" in capsys.readouterr().err
