"""Write a compiled model as an artefact: ``model.so``, ``report.json`` and the manifest with their hashes.

A fresh artefact is staged in a private temporary folder and loaded from there, so that what runs after ``compile`` is
byte for byte what ``Module.save`` ships.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvm_ffn import targets
from tvm_ffn.atomic import output_errors
from tvm_ffn.errors import OutputError
from tvm_ffn.json_file import write_json
from tvm_ffn.manifest import LIBRARY_NAME, MANIFEST_NAME, REPORT_NAME, Manifest, TensorInfo, file_entry
from tvm_ffn.report import Report
from tvm_ffn.version import __version__

if TYPE_CHECKING:
    import tvm.runtime
    import tvm.target


def stage(
    executable: tvm.runtime.Executable,
    *,
    model: str,
    target: tvm.target.Target,
    inputs: Sequence[TensorInfo],
    outputs: Sequence[TensorInfo],
    symbolic_batch: bool,
    config: Mapping[str, Any],
    preprocess: Mapping[str, Any] | None,
    report: Report,
) -> Path:
    """Write an artefact to a new temporary folder and return it; load it with ``load(path, temporary=True)``.

    ``executable`` is a Relax VM executable with the function "main" and its constants inside. A missing linker is a
    TargetError, a full disk an OutputError; nothing is left then.
    """
    link = targets.cross_compiler(target)
    _check_space(Path(tempfile.gettempdir()), report)
    with output_errors(Path(tempfile.gettempdir())):
        folder = Path(tempfile.mkdtemp(prefix="tvm_ffn-"))
        try:
            _export(executable, folder / LIBRARY_NAME, link)
            write_json(folder / REPORT_NAME, report.to_json())
            manifest = Manifest(
                model=model,
                versions=_versions(),
                target=targets.target_dict(target),
                features=targets.required_features(target),
                inputs=tuple(inputs),
                outputs=tuple(outputs),
                symbolic_batch=symbolic_batch,
                config=config,
                preprocess=preprocess,
                files={name: file_entry(folder / name) for name in (LIBRARY_NAME, REPORT_NAME)},
            )
            write_json(folder / MANIFEST_NAME, manifest.to_json())
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return folder


def _check_space(folder: Path, report: Report) -> None:
    """Refuse a disk that is too full: LLVM ends the process when it cannot write an object file.

    Weights pass through object files, the linker and the library; code takes a few megabytes.
    """
    needed, free = (32 << 20) + 4 * int(report.totals["weight_bytes"]), shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"{folder} has {free >> 20} MB free, compiling needs {needed >> 20} MB: set TMPDIR to another disk"
        )


def _export(executable: tvm.runtime.Executable, path: Path, link: Any) -> None:
    try:
        executable.export_library(str(path), fcompile=link)
    except RuntimeError as error:
        if "No space left on device" in str(error):
            raise OutputError(f"cannot write {path}: no space left on device") from error
        raise


def _versions() -> dict[str, str]:
    import tvm
    import tvm_ffi

    return {"tvm_ffn": __version__, "tvm": str(tvm.__version__), "tvm_ffi": str(tvm_ffi.__version__)}
