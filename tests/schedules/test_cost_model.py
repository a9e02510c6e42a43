"""Measured kernels rank as they are predicted to."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.cost_model import cases, measure, spearman
from benchmarks.kernel_build import plan
from tvm_ffn import targets


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llvm", "llvm -mcpu=x86-64-v3"])
def test_times_rank_as_predicted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two layers and a dense one in every family: factors of ten between them, so that noise does not matter."""
    monkeypatch.setenv("TVM_NUM_THREADS", "1")
    target = targets.parse_target(name)
    if not targets.runs_here(target) or not plan(target).isa:
        pytest.skip("this processor was not measured")
    wanted = ("128to128at28", "1024to256at14", "2048to1000")
    found = measure([case for case in cases("1.0") if any(part in case[1].name for part in wanted)], name, rounds=5)
    assert len(found) == 33
    assert spearman(np.array([m.cycles for m in found]), np.array([m.nanoseconds for m in found])) > 0.8
