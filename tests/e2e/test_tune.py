"""tvm-ffn tune on the example model, and compiling with what it found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import tvm_ffn
from tvm_ffn import cli
from tvm_ffn.errors import ConfigError, TargetError
from tvm_ffn.tuning.table import TABLE_FILE

EXAMPLES = Path(__file__).parents[2] / "examples"
MODEL = str(EXAMPLES / "digits.onnx")
CALIBRATION = ["--calibration", str(EXAMPLES / "digits_calibration.npz"), "--limit", "32", "--penalty", "0.02"]


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def test_tune_then_compile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = tmp_path / "work"
    assert run("tune", MODEL, "--work-dir", work, "--trials", 2) == 0
    printed = capsys.readouterr().out
    assert "geometric mean of the gains" in printed and f"--tuning-dir {work}" in printed

    assert run("compile", MODEL, "-o", tmp_path / "plain", *CALIBRATION) == 0
    capsys.readouterr()
    assert run("compile", MODEL, "-o", tmp_path / "tuned", *CALIBRATION, "--tuning-dir", work) == 0
    assert "tuned decisions:" in capsys.readouterr().out
    plain, tuned = (tvm_ffn.load(tmp_path / name) for name in ("plain", "tuned"))
    x = {"image": np.load(EXAMPLES / "digits_test.npz")["image"][:20]} if "image" in plain.inputs[0].name else None
    x = x or {plain.inputs[0].name: np.load(EXAMPLES / "digits_test.npz")[plain.inputs[0].name][:20]}
    for one, other in zip(plain.run(x), tuned.run(x), strict=True):
        np.testing.assert_array_equal(one, other)
    found = [row.tuned for row in tuned.report.layers]
    assert set(found) <= {"hit", "near", "miss"} and found.count("miss") < len(found)

    # A compiled module knows its tasks, densities included: what tuning it finds are hits.
    assert run("tune", tmp_path / "tuned", "--work-dir", work, "--trials", 2, "--time-budget", 100) == 0
    module = tvm_ffn.compile(
        MODEL,
        calibration=np.load(EXAMPLES / "digits_calibration.npz")[plain.inputs[0].name][:32],
        config=tvm_ffn.FFNConfig(penalty=0.02),
        tuning_dir=work,
    )
    decided = [row for row in module.report.layers if row.task is not None and row.task["form"] == "planes"]
    assert decided and all(row.tuned == "hit" for row in decided)


def test_a_foreign_or_damaged_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = tmp_path / "work"
    assert run("tune", MODEL, "--work-dir", work, "--trials", 1) == 0
    capsys.readouterr()
    out = tmp_path / "out"
    other = ["compile", MODEL, "-o", out, *CALIBRATION, "--target", "llvm -mtriple=x86_64 -mcpu=x86-64-v2"]
    assert run(*other, "--tuning-dir", work) == 2
    assert "another folder" in capsys.readouterr().err
    assert run("compile", MODEL, "-o", out, *CALIBRATION, "--tuning-dir", tmp_path / "none") == 2
    assert "does not exist" in capsys.readouterr().err
    (work / TABLE_FILE).write_text(json.dumps({"format": 1, "layers": [{}]}))
    assert run("compile", MODEL, "-o", out, *CALIBRATION, "--tuning-dir", work) == 2
    assert "damaged" in capsys.readouterr().err
    (work / "target.json").write_text("{")
    assert run("tune", MODEL, "--work-dir", work, "--trials", 1) == 2
    assert not out.exists()


def test_what_cannot_be_tuned(tmp_path: Path) -> None:
    work = tmp_path / "work"
    for arguments in ({"trials": 0}, {"time_budget": 0.0}, {"rpc_key": "k"}):
        with pytest.raises(ConfigError):
            tvm_ffn.tune(MODEL, work_dir=work, **arguments)  # type: ignore[arg-type]
    with pytest.raises(TargetError, match="RPC tracker"):
        tvm_ffn.tune(MODEL, "llvm -mtriple=aarch64", work_dir=work)
    assert not work.exists()
    assert run("tune", tmp_path / "absent.onnx", "--work-dir", work) == 2


def test_an_artefact_without_tasks_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run("compile", MODEL, "-o", out, *CALIBRATION) == 0
    shutil.copytree(out, tmp_path / "damaged")
    report = tmp_path / "damaged" / "report.json"
    report.write_text(report.read_text().replace('"task"', '"tusk"'))
    capsys.readouterr()
    assert run("tune", tmp_path / "damaged", "--work-dir", tmp_path / "work") == 4
    assert "report.json" in capsys.readouterr().err
