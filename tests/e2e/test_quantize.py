"""The accuracy work alone: plans that are stored, edited and compiled, budgets, the gate on held-out samples."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import tvm_ffn
from tvm_ffn import cli, targets
from tvm_ffn.kernel_plan import default_plan

EXAMPLES = Path(__file__).parents[2] / "examples"
MODEL, DATA = EXAMPLES / "digits.onnx", EXAMPLES / "digits_calibration.npz"
QUICK = tvm_ffn.FFNConfig(calibration_rows=2000, optimize="size")


@pytest.fixture(scope="module")
def quantized() -> tvm_ffn.Quantized:
    return tvm_ffn.quantize(MODEL, config=QUICK, calibration=DATA)


def digits_a_mac(report: tvm_ffn.Report) -> float:
    planned = [row for row in report.layers if row.damage is not None]
    return sum(row.macs * (row.nonzeros or 0.0) for row in planned) / sum(row.macs for row in planned)


def test_numpy_and_code_give_the_same_bits(quantized: tvm_ffn.Quantized) -> None:
    inputs = {"image": np.load(EXAMPLES / "digits_test.npz")["image"][:3]}
    module = quantized.compile()
    np.testing.assert_array_equal(quantized.run(inputs)[0], module.run(inputs)[0])


def test_every_layer_has_a_plan_and_a_row(quantized: tvm_ffn.Quantized) -> None:
    rows = quantized.report.layers
    assert [row.name for row in rows] == list(quantized.plan.layers)
    assert quantized.held_out is not None and quantized.held_out.samples >= 10
    assert quantized.held_out.agreement is not None and quantized.held_out.agreement > 0.9
    for row in rows:
        assert row.accumulated_error is not None and 0 < row.accumulated_error < 1
        if row.op == "conv2d":
            assert row.planes and row.damage is not None and row.damage > 0
    totals = quantized.report.totals
    assert totals["weights_to_int8"] < 1


def test_a_stored_plan_gives_the_same_network(quantized: tvm_ffn.Quantized, tmp_path: Path) -> None:
    quantized.plan.save(tmp_path / "plan.json")
    again = tvm_ffn.quantize(MODEL, config=QUICK, calibration=DATA, plan=tmp_path / "plan.json")
    inputs = {"image": np.load(EXAMPLES / "digits_test.npz")["image"][:3]}
    np.testing.assert_array_equal(quantized.run(inputs)[0], again.run(inputs)[0])


def test_an_edited_plan_changes_its_layer_alone(quantized: tvm_ffn.Quantized) -> None:
    values = quantized.plan.to_json()
    values["layers"]["block1.conv1"] = {"precision": "int8"}
    values["layers"]["block2.down"] = None
    edited = tvm_ffn.quantize(MODEL, config=QUICK, calibration=DATA, plan=tvm_ffn.Plan.from_json(values))
    kinds = {row.name: row.kind for row in edited.report.layers}
    before = {row.name: row.kind for row in quantized.report.layers}
    assert kinds == {**before, "block1.conv1": "int8", "block2.down": "fp32"}


@pytest.mark.parametrize("adds", [0.4, 0.7])
def test_a_budget_of_additions_is_kept(adds: float) -> None:
    found = tvm_ffn.quantize(MODEL, config=QUICK.replace(budget={"adds": adds}), calibration=DATA)
    assert 0.8 * adds < digits_a_mac(found.report) <= 1.01 * adds


def test_a_budget_of_bytes_holds_for_code_too() -> None:
    if not default_plan(targets.parse_target("llvm")).isa:
        pytest.skip("the processor has no kernel of that kind")
    config = QUICK.replace(budget={"bytes": 0.9}, optimize="speed")
    totals = tvm_ffn.quantize(MODEL, config=config, calibration=DATA).report.totals
    anything = tvm_ffn.quantize(MODEL, config=config.replace(code_bytes=100.0), calibration=DATA).report.totals
    assert totals["weights_to_int8"] <= 0.9 < anything["weights_to_int8"]


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [str(MODEL), "--calibration", str(DATA), "--adds", "0.6"]
    assert cli.main(["quantize", *options, "-o", str(tmp_path / "plan.json")]) == 0
    printed = capsys.readouterr().out
    assert "budget: adds 0.6" in printed and "advice" in printed and "held-out calibration samples" in printed
    values = json.loads((tmp_path / "plan.json").read_text())
    values["layers"]["block1.conv1"]["penalty"] = 0.1
    (tmp_path / "plan.json").write_text(json.dumps(values))
    compiled = ["compile", *options[:3], "-o", str(tmp_path / "out"), "--plan", str(tmp_path / "plan.json")]
    assert cli.main(compiled) == 0
    rows = {row.name: row for row in tvm_ffn.load(tmp_path / "out").report.layers}
    assert (rows["block1.conv1"].nonzeros or 1) < 0.4
    assert cli.main(["compile", *options[:3], "-o", str(tmp_path / "no"), "--plan", str(tmp_path / "absent")]) == 2
    assert "cannot read the plan" in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--penalty", "0.1"], ["--method", "response"]])
def test_a_missed_gate_leaves_the_artefact_and_exits_with_3(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compile", str(MODEL), "--calibration", str(DATA), "-o", str(tmp_path / "out"), *options]
    assert cli.main([*command, "--max-drop", "0.000001"]) == 3
    report = tvm_ffn.load(tmp_path / "out").report
    assert report.held_out is not None
    points = f"{report.held_out['expected_drop']:.2f} points"
    printed = capsys.readouterr()
    assert f"{points}, exceeds the budget of 1e-06" in printed.err and f"expected top-1 drop {points}" in printed.out


def test_a_missed_budget_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    config = QUICK.replace(budget={"max_drop": 1e-6}, method="sdd", rounds=0, sweeps=1)  # nothing to plan
    solved = tvm_ffn.quantize(MODEL, config=config, calibration=DATA)
    assert solved.held_out is not None
    assert f"{solved.held_out.expected_drop:.2f} points, exceeds the budget of 1e-06" in caplog.text


def test_samples_that_are_all_the_same_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    blank = np.zeros((12, 1, 16, 16), np.float32)
    tvm_ffn.quantize(MODEL, config=QUICK.replace(method="sdd", rounds=0, sweeps=1), calibration=blank)
    assert "all 12 calibration samples are the same" in caplog.text
    assert "1 of 12 calibration samples are held out" in caplog.text


def test_a_gate_needs_samples_to_be_judged_by(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["compile", str(MODEL), "--calibration", str(DATA), "-o", str(tmp_path / "out"), "--limit", "5"]
    assert cli.main([*command, "--max-drop", "1"]) == 2
    printed = capsys.readouterr()
    assert "at least 10 calibration samples" in printed.err
    assert "no held-out calibration samples" in printed.out
    assert "warning: 0 of 5 calibration samples are held out" in printed.out and "give 200 or more" in printed.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--plan", "plan.json", "--adds", "0.5"], "--adds changes nothing with --plan"),
        (["--penalty", "0.1", "--adds", "0.5"], "with --penalty there is nothing to plan"),
        (["--method", "sdd", "--bytes", "0.5"], "with --method there is nothing to plan"),
    ],
)
def test_options_that_would_be_ignored(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    tvm_ffn.Plan({}).save("plan.json")
    assert cli.main(["compile", str(MODEL), "--calibration", str(DATA), "-o", "out", *options]) == 2
    assert message in capsys.readouterr().err
