"""``tvm_ffn.compile``: an ONNX model to a module that is ready to run and to ship."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tvm_ffn import artifact, runtime, targets
from tvm_ffn.config import FFNConfig
from tvm_ffn.pipeline import Compilation, run
from tvm_ffn.summary import summarize

if TYPE_CHECKING:
    import onnx
    import tvm.target

    from tvm_ffn.calibration import Calibration


def compile(
    model: str | os.PathLike[str] | onnx.ModelProto,
    target: str | Mapping[str, Any] | tvm.target.Target = "llvm",
    *,
    config: FFNConfig | None = None,
    calibration: Calibration | str | os.PathLike[str] | np.ndarray | Iterable[Mapping[str, np.ndarray]] | None = None,
) -> runtime.Module:
    """Factorise ``model`` into ternary terms on ``calibration`` data and compile it for ``target``.

    ``model``: a path or a ModelProto, fp32. ``target``: "llvm" is this machine; TVM's legacy string form, a dict, a
    tag or a Target for others. ``calibration``: unlabelled inputs, as a folder of images, an .npz file, arrays or an
    iterable of ``{name: array}``; required. Raises ConfigError, TargetError, DataError, ModelError or OutputError,
    each with a message that says what to do.
    """
    parsed = targets.parse_target(target)
    targets.cross_compiler(parsed)  # a missing linker is said before the long work
    return finish(run(Compilation(model, parsed, config or FFNConfig(), calibration)))


def finish(c: Compilation) -> runtime.Module:
    """Write a built compilation as an artefact in a temporary folder and load it from there."""
    report = summarize(
        c.quantized, c.record.linear, model=c.imported.name, target=targets.describe(c.target), warnings=_warnings(c)
    )
    folder = artifact.stage(
        c.executable,
        model=c.imported.name,
        target=c.target,
        inputs=c.imported.inputs,
        outputs=c.imported.outputs,
        symbolic_batch=c.imported.symbolic_batch,
        config=c.config.to_dict(),
        preprocess=c.data.preprocess.to_json() if c.data.preprocess is not None else None,
        report=report,
    )
    return runtime.load(folder, temporary=True)


def _warnings(c: Compilation) -> tuple[str, ...]:
    if not c.data.is_synthetic:
        return ()
    return (f"calibrated on {c.data.description}: the accuracy of this module means nothing",)
