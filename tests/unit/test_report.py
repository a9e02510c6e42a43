"""The report: totals, JSON round trip, table."""

from __future__ import annotations

import dataclasses
import json

from tvm_ffn.report import LayerRow, Report

TERNARY = LayerRow(
    name="block1.conv1",
    op="conv2d",
    shape=(64, 64, 3, 3),
    output_shape=(1, 64, 56, 56),
    kind="ternary",
    rank=96,
    density_x=0.4,
    density_y=0.25,
    response_error=0.071,
    macs=1000,
    adds=500,
    multiplies=1,
    weight_bytes=60,
    int8_bytes=100,
    fp32_bytes=400,
    kernel="rowtable",
)
INT8 = dataclasses.replace(
    TERNARY, name="stem", kind="int8", rank=None, density_x=None, density_y=None, reason="first layer"
)
REPORT = Report((INT8, TERNARY), "net", "llvm", ("calibrated on synthetic data",))


def test_totals() -> None:
    totals = REPORT.totals
    assert totals["macs"] == 2000 and totals["weight_bytes"] == 120
    assert totals["layers"] == 2 and totals["ternary_layers"] == 1
    assert totals["weights_to_int8"] == 0.6 and totals["weights_to_fp32"] == 0.15
    assert Report((), "empty", "llvm").totals["weights_to_int8"] == 0.0


def test_nonzeros_of_a_weight() -> None:
    assert TERNARY.nonzeros is not None
    assert abs(TERNARY.nonzeros - (0.4 * 64 * 96 + 0.25 * 576 * 96) / (64 * 576)) < 1e-9
    planes = dataclasses.replace(TERNARY, planes=5, rank=5 * 64, density_x=1 / 64, density_y=0.12)
    assert planes.nonzeros is not None and abs(planes.nonzeros - 0.6) < 1e-9
    grouped = dataclasses.replace(planes, groups=4, shape=(256, 64, 3, 3))
    assert grouped.nonzeros == planes.nonzeros
    dense = dataclasses.replace(planes, op="matmul", shape=(576, 64))
    assert dense.nonzeros == planes.nonzeros
    assert INT8.nonzeros is None


def test_what_code_costs_is_told() -> None:
    code = dataclasses.replace(TERNARY, weight_bytes=2500, kernel="code-avx512", packed_bytes=400)
    assert (
        "of these 5 kB are machine code of 2 layers, 800B if packed" in Report((code, INT8, code), "net", "x").summary()
    )
    assert not any("machine code" in line for line in REPORT.summary())
    assert Report((code, INT8, code), "net", "x").totals["code_bytes"] == 5000 and REPORT.totals["code_bytes"] == 0


def test_json_round_trip() -> None:
    values = json.loads(json.dumps(REPORT.to_json()))
    assert Report.from_json(values) == REPORT
    assert [row["name"] for row in values["layers"]] == ["stem", "block1.conv1"]


def test_rows_of_a_later_version_are_read() -> None:
    values = REPORT.to_json()
    values["layers"][0]["invented_later"] = 1
    assert Report.from_json(values) == REPORT


def test_table() -> None:
    lines = REPORT.table().splitlines()
    assert lines[0].split()[:5] == ["layer", "op", "weight", "kind", "form"]
    assert lines[3].split()[:7] == ["block1.conv1", "conv2d", "64x64x3x3", "ternary", "rank", "96", "0.44"]
    assert any(line.split() == ["not", "ternary:", "stem:", "first", "layer"] for line in lines)
    assert "warning: calibrated on synthetic data" in lines
    assert any("1 of 2 layers ternary" in line for line in lines)
    assert any("no held-out calibration samples" in line for line in lines)
