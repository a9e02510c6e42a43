"""``tvm_ffn.compile``: an ONNX model to a module that is ready to run and to ship."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tvm_ffn import artifact, runtime, targets
from tvm_ffn.budget import overdrawn
from tvm_ffn.comparison import Verification
from tvm_ffn.config import FFNConfig
from tvm_ffn.observation import HELD_OUT
from tvm_ffn.oracle import Oracle
from tvm_ffn.pipeline import Compilation, for_target, run
from tvm_ffn.plan import Plan
from tvm_ffn.report import Report
from tvm_ffn.samples import check_batch
from tvm_ffn.summary import summarize
from tvm_ffn.tuning.shipped import tuned_table

if TYPE_CHECKING:
    import onnx
    import tvm.target

    from tvm_ffn.calibration import Calibration

    CalibrationSource = Calibration | str | os.PathLike[str] | np.ndarray | Iterable[Mapping[str, np.ndarray]] | None

log = logging.getLogger("tvm_ffn")

FEWEST_JUDGES = 20
"""Held-out samples from which on a drop of a point can be told from chance."""


def compile(
    model: str | os.PathLike[str] | onnx.ModelProto,
    target: str | Mapping[str, Any] | tvm.target.Target = "llvm",
    *,
    config: FFNConfig | None = None,
    calibration: CalibrationSource = None,
    plan: Plan | str | os.PathLike[str] | None = None,
    tuning_dir: str | os.PathLike[str] | None = None,
) -> runtime.Module:
    """Factorise ``model`` into ternary terms on ``calibration`` data and compile it for ``target``.

    ``model``: a path or a ModelProto, fp32. ``target``: "llvm" is this machine; TVM's legacy string form, a dict, a
    tag or a Target for others. ``calibration``: unlabelled inputs, as a folder of images, an .npz file, arrays or an
    iterable of ``{name: array}``; required. ``plan``: the settings of all layers, as `quantize` found them or as edited
    since; without one they are planned within ``config.budget``. ``tuning_dir``: a folder that `tune` filled for this
    target; without one the decisions about kernels are those that ship with the package. Raises ConfigError,
    TargetError, DataError, ModelError or OutputError, each with a message that says what to do.
    """
    parsed = targets.parse_target(target)
    targets.cross_compiler(parsed)  # a missing linker is said before the long work
    tuned = tuned_table(parsed, tuning_dir)
    c = run(Compilation(model, parsed, _settings(config, plan), calibration, tuned=tuned))
    _log_warnings(c)
    return finish(c)


def quantize(
    model: str | os.PathLike[str] | onnx.ModelProto,
    *,
    config: FFNConfig | None = None,
    calibration: CalibrationSource = None,
    plan: Plan | str | os.PathLike[str] | None = None,
) -> Quantized:
    """Do the accuracy work of `compile` without making code: plan the layers and solve them.

    Arguments and errors are those of `compile`. The result's factors are cached: compiling the same model with the same
    settings and data afterwards starts from them.
    """
    host = targets.parse_target("llvm")
    c = run(Compilation(model, host, _settings(config, plan), calibration), stop_after="factorize")
    _log_warnings(c)
    return Quantized(c)


class Quantized:
    """A network whose layers are planned and solved, before any code."""

    def __init__(self, compilation: Compilation) -> None:
        self._compilation = compilation
        self.plan: Plan = compilation.quantized.plan
        self.held_out: Verification | None = compilation.quantized.held_out

    @property
    def report(self) -> Report:
        """Every layer's row, counted on the kernels that this machine would run."""
        return _report(self._rewritten)

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs for inputs by name, by NumPy: bit for bit what a compiled module computes, slowly."""
        c = self._rewritten
        names = [parameter.name for parameter in c.mod["main"].params]
        checked = check_batch(inputs, c.imported.inputs, "inputs")
        given = {name: checked[info.name] for name, info in zip(names, c.imported.inputs, strict=True)}
        return Oracle(c.integer, c.record.operators).run(given)

    def compile(
        self,
        target: str | Mapping[str, Any] | tvm.target.Target = "llvm",
        *,
        tuning_dir: str | os.PathLike[str] | None = None,
    ) -> runtime.Module:
        """Make code for a target, as `tvm_ffn.compile` would."""
        parsed = targets.parse_target(target)
        targets.cross_compiler(parsed)
        tuned = tuned_table(parsed, tuning_dir)
        return finish(run(for_target(self._compilation, parsed, tuned), start_at="choose"))

    @cached_property
    def _rewritten(self) -> Compilation:
        c = self._compilation
        return run(for_target(c, c.target, c.tuned), start_at="choose", stop_after="rewrite")


def _settings(config: FFNConfig | None, plan: Plan | str | os.PathLike[str] | None) -> FFNConfig:
    config = config or FFNConfig()
    if plan is None:
        return config
    return (plan if isinstance(plan, Plan) else Plan.from_file(plan)).applied_to(config)


def finish(c: Compilation) -> runtime.Module:
    """Write a built compilation as an artefact in a temporary folder and load it from there."""
    folder = artifact.stage(
        c.executable,
        model=c.imported.name,
        target=c.target,
        inputs=c.imported.inputs,
        outputs=c.imported.outputs,
        symbolic_batch=c.imported.symbolic_batch,
        config=c.config.to_dict(),
        preprocess=c.data.preprocess.to_json() if c.data.preprocess is not None else None,
        report=_report(c),
    )
    return runtime.load(folder, temporary=True)


def _report(c: Compilation) -> Report:
    return summarize(
        c.quantized,
        c.record.linear,
        tasks=c.tasks,
        tuning=c.tuning,
        operators=c.operators,
        packed=c.packed,
        model=c.imported.name,
        target=targets.describe(c.target),
        warnings=_warnings(c),
    )


def _warnings(c: Compilation) -> tuple[str, ...]:
    if c.data.is_synthetic:
        return (f"calibrated on {c.data.description}: the accuracy of this module means nothing",)
    allowed, held_out = c.config.budget.get("max_drop"), c.quantized.held_out
    doubt = _doubt(0 if held_out is None else held_out.samples, len(c.data))
    missed = "" if allowed is None or held_out is None else overdrawn(held_out.expected_drop, allowed)
    alike = f"all {len(c.data)} calibration samples are the same: give different ones" if c.data.is_uniform else ""
    return tuple(text for text in (alike, doubt, missed) if text)


def _doubt(held_out: int, samples: int) -> str:
    """What to say where too few of the calibration samples could be held out, "" where enough were."""
    if held_out >= FEWEST_JUDGES:
        return ""
    few = (
        f"{held_out} of {samples} calibration samples are held out, and a drop of a point takes {FEWEST_JUDGES} to see"
    )
    needed = FEWEST_JUDGES * HELD_OUT
    remedy = "" if samples >= needed else f"give {needed} or more, and "
    return f"{few}: {remedy}check the accuracy with tvm-ffn verify"


def _log_warnings(c: Compilation) -> None:
    for warning in _warnings(c):
        log.warning(warning)
