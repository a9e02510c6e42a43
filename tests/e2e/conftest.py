"""A small artefact that needs neither calibration nor factorising."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tvm_ffn import artifact, targets
from tvm_ffn.manifest import TensorInfo
from tvm_ffn.report import Report

WEIGHT = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.fixture(scope="session")
def stage() -> Callable[..., Path]:
    """Give the function that stages y = x (scale * WEIGHT), z = x + x."""
    return _stage


def _stage(scale: float = 1.0, target: str = "llvm", symbolic: bool = True) -> Path:
    """Stage the model y = x (scale * WEIGHT), z = x + x."""
    import tvm
    from tvm import relax

    parsed = targets.parse_target(target)
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 4), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            y = builder.emit(relax.op.matmul(x, relax.const(scale * WEIGHT)))
            out = builder.emit_output(relax.Tuple([y, builder.emit(relax.op.add(x, x))]))
        builder.emit_func_output(out)
    batch = "N" if symbolic else 1
    return artifact.stage(
        tvm.compile(builder.get(), target=parsed),
        model="linear",
        target=parsed,
        inputs=[TensorInfo("x", (batch, 4), "float32")],
        outputs=[TensorInfo("y", (batch, 3), "float32"), TensorInfo("z", (batch, 4), "float32")],
        symbolic_batch=symbolic,
        config={},
        preprocess=None,
        report=Report((), "linear", target),
    )
