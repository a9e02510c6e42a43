"""tvm-ffn tune on the example model, and compiling with what it found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from small_net import Net

import tvm_ffn
from tvm_ffn import cli
from tvm_ffn.errors import ConfigError, TargetError
from tvm_ffn.tuning.database import RECORDS
from tvm_ffn.tuning.operator import Operator
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


def float_network() -> onnx.ModelProto:
    net = Net(1, 4, 14, 14)
    x = net("LRN", "x", size=3, alpha=0.1, beta=0.75, bias=1.0)
    x = net("GlobalAveragePool", net("Relu", net.conv(x, 4, 16)))
    return net.model(net("Softmax", net.dense(net("Flatten", x), 16, 10), axis=1))


def test_other_operators_are_tuned_by_the_rules_of_tvm(tmp_path: Path) -> None:
    model, work, trials = float_network(), tmp_path / "work", 3
    config = tvm_ffn.FFNConfig(layers={"re:.*": None})
    result = tvm_ffn.tune(model, work_dir=work, config=config, trials=trials)
    others = {outcome.task: outcome for outcome in result.outcomes if isinstance(outcome.task, Operator)}
    [conv] = [outcome for task, outcome in others.items() if task.name == "conv2d_add_relu @1x16x14x14"]
    assert (conv.trials, conv.failures) == (trials, 0) and conv.tuned is not None and conv.tuned.gain > 1.2
    assert len(others) == len(result.outcomes) and result.errors == []
    assert all(outcome.tuned is not None and outcome.tuned.gain >= 1 for outcome in others.values())

    before = (work / RECORDS).read_bytes()
    again = tvm_ffn.tune(model, work_dir=work, config=config, trials=trials)
    assert (work / RECORDS).read_bytes().startswith(before)
    assert all(trials >= o.trials >= others[o.task].trials for o in again.outcomes if o.task in others)  # type: ignore[index]

    samples = np.random.default_rng(0).standard_normal((16, 4, 14, 14), np.float32)
    plain, tuned = (
        tvm_ffn.compile(model, config=config, calibration=samples, tuning_dir=folder) for folder in (None, work)
    )
    found = list(tuned.report.operators.values())
    assert found.count("hit") >= len(others) and "hit" not in plain.report.operators.values()
    assert f"other operators: {found.count('hit')} hit" in tuned.report.table()
    [expected] = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": samples[:1]})
    for module in (plain, tuned):
        np.testing.assert_allclose(module.run({"x": samples[:1]})[0], expected, rtol=1e-4)


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
