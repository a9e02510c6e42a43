"""Operators that are no layers of ours: which they are, what they must compute, and candidates that lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tvm
from small_net import Net

from tvm_ffn import targets
from tvm_ffn.config import FFNConfig
from tvm_ffn.kernel_plan import default_plan
from tvm_ffn.pipeline import run
from tvm_ffn.synthetic import random_compilation
from tvm_ffn.tuning import compile_worker
from tvm_ffn.tuning.boards import local_board
from tvm_ffn.tuning.builder import Built, CandidateBuilder
from tvm_ffn.tuning.operator import Operator, operator_of, operators_of
from tvm_ffn.tuning.operator_case import OperatorCase
from tvm_ffn.tuning.session import Session

TARGET = targets.parse_target("llvm")


def lowered(channels: int = 8) -> tvm.IRModule:
    """Two equal LRNs, a convolution of ours between them, and a softmax."""
    net = Net(1, channels, 6, 6)
    x = net.conv(net("LRN", "x", size=3), channels, channels)
    model = net.model(net("Softmax", net("LRN", x, size=3), axis=1))
    return run(random_compilation(model, TARGET, FFNConfig()), start_at="choose", stop_after="lower").mod


def test_equal_functions_are_one_operator() -> None:
    found = operators_of(lowered())
    assert [operator.name for operator in found if found[operator] == 1] == ["softmax @1x8x6x6"]
    assert all(count == 2 for operator, count in found.items() if operator.name != "softmax @1x8x6x6")
    assert found == operators_of(lowered())
    assert not found.keys() & operators_of(lowered(9)).keys()


def test_kernels_of_ours_and_scheduled_functions_are_none() -> None:
    mod = lowered()
    functions = {variable.name_hint: function for variable, function in mod.functions_items()}
    assert operator_of("quantize", functions["quantize"]) is None and operator_of("main", mod["main"]) is None
    assert operator_of("softmax", functions["softmax"]) is not None
    assert operator_of("softmax", functions["softmax"].with_attr("tirx.is_scheduled", True)) is None


def softmax() -> Operator:
    return next(operator for operator in operators_of(lowered()) if "softmax" in operator.name)


def test_a_case_knows_its_outputs() -> None:
    case = OperatorCase(softmax())
    x, out = case.arguments
    assert tuple(case.outputs) == (1,) and not out.any() and 0.1 <= x.min() < x.max() <= 1.0
    powers = np.exp(x - x.max(1, keepdims=True))
    np.testing.assert_allclose(case.expected[0], powers / powers.sum(1, keepdims=True), rtol=1e-5)
    value = case.expected[0].copy()
    assert case.difference([value]) == ""
    value.flat[3] *= 1.001
    assert case.difference([value]) == "1 of 288 outputs differ from those without a schedule"


class Faster(CandidateBuilder):
    """Scheduled operators that were searched compute something else, but "faster"."""

    def build(self, mod: tvm.IRModule) -> Built:
        built = super().build(mod)
        if "tirx.is_scheduled" not in mod["main"].attrs:
            wrong = OperatorCase(built.case.operator)  # type: ignore[attr-defined]
            wrong.__dict__["expected"] = [value + 1 for value in wrong.expected]
            self.built[built.path] = Built(built.path, wrong)
        return self.built[built.path]


def test_a_wrong_schedule_never_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvm_ffn.tuning.session.CandidateBuilder", Faster)
    with local_board(1) as board:
        plan, operators = default_plan(TARGET), {softmax(): 1}
        session = Session({}, TARGET, plan, tmp_path, board, 2, 600.0, 0, operators=operators)
        [outcome] = session.run()
    assert outcome.trials == outcome.failures == 2 and outcome.tuned is None
    [error] = session.errors
    assert "288 of 288 outputs differ" in error


def made_up(remote: object, built: Sequence[Built]) -> list[float]:
    """All alike."""
    return [1e-3] * len(built)


def test_what_takes_no_time_gets_no_trials(tmp_path: Path) -> None:
    operators = dict(operators_of(lowered()))
    rare = softmax()
    with local_board(1) as board:
        weights = {operator: 1 if operator == rare else 1000 for operator in operators}
        session = Session(
            {}, TARGET, default_plan(TARGET), tmp_path, board, 1, 600.0, 0, measure=made_up, operators=weights
        )
        outcomes = session.run()
    assert {outcome.task for outcome in outcomes} == operators.keys() - {rare}


def test_a_schedule_that_llvm_thinks_about_for_too_long_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compile_worker, "BUILD_SECONDS", 0.001)
    worker = compile_worker.CompileWorker()
    with pytest.raises(TimeoutError):
        worker.build(softmax().module, TARGET, str(tmp_path / "kernel.so"))
    assert not list(tmp_path.iterdir())
