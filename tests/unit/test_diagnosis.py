"""The damage table: order, shares, advice."""

from __future__ import annotations

import dataclasses

from tests.unit.test_report import INT8, TERNARY
from tvm_ffn.diagnosis import advice, damage_table
from tvm_ffn.report import LayerRow, Report

PLANES = dataclasses.replace(TERNARY, planes=6, rank=384, density_x=1 / 64, accumulated_error=0.1)


def row(name: str, damage: float | None, **changes: object) -> LayerRow:
    return dataclasses.replace(PLANES, name=name, damage=damage, **changes)  # type: ignore[arg-type]


def test_the_worst_layer_comes_first() -> None:
    report = Report((row("a", 0.001), row("b", 0.009), row("c", None), INT8), "net", "llvm")
    lines = damage_table(report).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["b", "a", "c", "stem"]
    assert "90%" in lines[2] and lines[2].endswith("lower its penalty")
    assert len(damage_table(report, most=1).splitlines()) == 3


def test_advice() -> None:
    assert advice(row("a", 0.1), 0.5) == "lower its penalty"
    assert advice(TERNARY, 0.5) == "give it more terms or method planes"
    assert advice(dataclasses.replace(INT8, response_error=0.3), 0.0) == "keep it in fp32"
    assert "layers before it" in advice(row("a", 0.0, accumulated_error=0.5), 0.0)
    assert advice(row("a", 0.0), 0.0) == ""
