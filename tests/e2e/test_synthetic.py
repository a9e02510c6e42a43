"""Networks with random factors: as the solver would leave them in shape, spread over the integers' range, exact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.layer_values import compare_layers, compiled_values
from benchmarks.models import light_model
from tvm_ffn import targets
from tvm_ffn.compiler import finish
from tvm_ffn.config import FFNConfig
from tvm_ffn.feeds import random_inputs
from tvm_ffn.kernel_plan import default_plan
from tvm_ffn.pipeline import Compilation, run
from tvm_ffn.synthetic import random_compilation

DIGITS = Path(__file__).parents[2] / "examples" / "digits.onnx"


@pytest.fixture(scope="module")
def built() -> Compilation:
    config = FFNConfig(rank_ratio=1.0, optimize="speed")
    return run(random_compilation(DIGITS, targets.parse_target("llvm"), config, zeros=0.5), start_at="choose")


def test_shapes_and_density(built: Compilation) -> None:
    for unit, solution in built.quantized.layers.items():
        for factors in solution.factors:
            assert factors.weight().shape == unit.weight.shape[1:]
            assert factors.rank == min(unit.weight.shape[1:])
            assert {*np.unique(factors.x)} == {-1, 0, 1}
            assert factors.density_y == pytest.approx(0.5, abs=0.1)


def test_kernels_equal_the_oracle_on_values_that_fill_the_range(built: Compilation) -> None:
    inputs = random_inputs(built.imported.inputs)
    assert compare_layers([built], [inputs]) == {}
    for name, value in compiled_values(built, inputs):
        if value.dtype == np.int8:
            assert 10 < value[value != 0].std() < 90, name


def test_builds_with_other_layouts_are_compared(built: Compilation) -> None:
    packed = built.config.replace(optimize="size")
    other = run(random_compilation(DIGITS, targets.parse_target("llvm"), packed, zeros=0.5), start_at="choose")
    assert compare_layers([built, other], [random_inputs(built.imported.inputs)]) == {}


def test_code_stays_within_its_bytes() -> None:
    target = targets.parse_target("llvm -num-cores=2")  # by which layers are split, and so take their bytes
    if not default_plan(target).isa:
        pytest.skip("the processor has no kernel of that kind")
    bytes_of, layers = {}, {}
    for limit in (0.6, 1.0, None):
        config = FFNConfig(rank_ratio=1.0, optimize="speed", code_bytes=limit)
        report = finish(run(random_compilation(DIGITS, target, config, zeros=0.5), start_at="choose")).report
        bytes_of[limit] = report.totals["weight_bytes"] / report.totals["int8_bytes"]
        layers[limit] = {row.name for row in report.layers if row.packed_bytes is not None}
    assert bytes_of[0.6] <= 0.6 < bytes_of[1.0] <= 1.0 < bytes_of[None]
    assert layers[0.6] < layers[1.0] < layers[None]


def test_code_takes_less_than_int8_on_disk(tmp_path: Path) -> None:
    target = targets.parse_target("llvm")
    if not default_plan(target).isa:
        pytest.skip("the processor has no kernel of that kind")
    c = random_compilation(light_model("squeezenet"), target, FFNConfig(rank_ratio=1.0), zeros=0.5)
    module = finish(run(c, start_at="choose"))
    saved = sum(file.stat().st_size for file in module.save(tmp_path / "saved").iterdir())
    assert saved < module.report.totals["int8_bytes"] < module.report.totals["code_bytes"]


def test_the_same_seed_gives_the_same_factors() -> None:
    model, target, config = light_model("squeezenet"), targets.parse_target("llvm"), FFNConfig()
    first, second = (random_compilation(model, target, config, seed=3).quantized.layers for _ in range(2))
    for one, other in zip(first.values(), second.values(), strict=True):
        assert all((f.x == g.x).all() and (f.y == g.y).all() for f, g in zip(one.factors, other.factors, strict=True))
