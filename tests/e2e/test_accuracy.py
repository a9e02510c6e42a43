"""Default settings on real models: top-1 within a point of fp32, fewer additions than MACs, packed in fewer
bytes than int8."""

from __future__ import annotations

import pytest

from benchmarks.accuracy import Task
from benchmarks.models import SHARED


@pytest.mark.shared
@pytest.mark.parametrize("name", ["lenet_mnist", "cifar10_resnet20"])
def test_defaults(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = SHARED / "models" / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"{name} lies beside the repository, and is not here")
    monkeypatch.setenv("TVM_FFN_CACHE", "0")
    figures = Task(name, path).measure("default")
    assert figures["accuracy_fp32"] - figures["accuracy"] <= 0.01
    assert figures["agreement"] > 0.95 and figures["divergence"] < 0.04
    assert figures["adds"] < 1 and figures["bytes"] < 1
