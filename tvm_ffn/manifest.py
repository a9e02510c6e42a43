"""The manifest of a compiled artefact: what it takes and gives, for which machine, and the hash of every file.

``manifest.json`` lies beside ``report.json`` and ``model.so``, or ``model.so.bz2`` (format 2). A manifest of a newer
format is refused; keys that this version does not know are ignored, so that a later version may add some without a new
format.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tvm_ffn.errors import ArtifactError, DataError

FORMAT = "tvm_ffn"
FORMAT_VERSION = 2
MANIFEST_NAME = "manifest.json"
LIBRARY_NAME = "model.so"
PACKED_NAME = "model.so.bz2"
REPORT_NAME = "report.json"

JSON_TYPES: dict[str, type | tuple[type, ...]] = {
    "model": str,
    "versions": dict,
    "target": dict,
    "features": list,
    "inputs": list,
    "outputs": list,
    "symbolic_batch": bool,
    "config": dict,
    "preprocess": (dict, type(None)),
    "files": dict,
}
"""What each field of a manifest is in JSON."""


@dataclass(frozen=True)
class TensorInfo:
    """An input or output: a dimension is a number, or the name of a symbolic one."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict."""
        return {"name": self.name, "shape": list(self.shape), "dtype": self.dtype}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TensorInfo:
        """Build from what :meth:`to_json` returned."""
        shape = tuple(_typed(values, "shape", list))
        if not all(isinstance(dim, (int, str)) for dim in shape):
            raise TypeError(f"shape {shape}")
        return cls(_typed(values, "name", str), shape, _typed(values, "dtype", str))

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Manifest:
    """Everything about an artefact except its code and its report."""

    model: str
    versions: Mapping[str, str]  # of tvm_ffn, tvm, tvm_ffi that compiled it
    target: Mapping[str, Any]  # TVM's target as a dict: kind, mtriple, mcpu, mattr, ...
    features: tuple[str, ...]  # CPU features the code needs, LLVM's names
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    symbolic_batch: bool  # compiled for batch 1, run for any
    config: Mapping[str, Any]
    preprocess: Mapping[str, Any] | None = None
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # name -> {"sha256", "bytes"}

    @property
    def library_name(self) -> str:
        """The library's file: as it is, or stored by `packing.pack`."""
        return PACKED_NAME if PACKED_NAME in self.files else LIBRARY_NAME

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values["features"] = list(self.features)
        values["inputs"] = [info.to_json() for info in self.inputs]
        values["outputs"] = [info.to_json() for info in self.outputs]
        values["files"] = {name: dict(entry) for name, entry in self.files.items()}
        return {
            "format": FORMAT,
            "format_version": 1 if self.library_name == LIBRARY_NAME else FORMAT_VERSION,
            **values,
        }

    @classmethod
    def from_json(cls, values: Any) -> Manifest:
        """Build from a manifest's JSON; another format, a newer version or a missing key is an ArtifactError."""
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise ArtifactError(f"this is not the manifest of a {FORMAT} artefact")
        version = values.get("format_version")
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise ArtifactError(f"the manifest's format_version {version!r} is not a positive integer")
        if version > FORMAT_VERSION:
            raise ArtifactError(
                f"the artefact has format version {version}, this tvm_ffn reads up to {FORMAT_VERSION}: update tvm_ffn"
            )
        try:
            known = {name: _typed(values, name, kind) for name, kind in JSON_TYPES.items()}
            known["features"] = tuple(str(feature) for feature in known["features"])
            known["inputs"] = tuple(TensorInfo.from_json(info) for info in known["inputs"])
            known["outputs"] = tuple(TensorInfo.from_json(info) for info in known["outputs"])
            known["files"] = {
                name: {"sha256": _typed(entry, "sha256", str), "bytes": _typed(entry, "bytes", int)}
                for name, entry in known["files"].items()
            }
        except (KeyError, TypeError) as error:
            raise ArtifactError(f"the manifest is damaged: {type(error).__name__}: {error}") from error
        return cls(**known)


def _typed(values: Mapping[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    """The value of a key, of the type that it must have."""
    if not isinstance(values[name], kind):
        raise TypeError(f"{name} is {json.dumps(values[name])}")
    return values[name]


def file_entry(path: Path) -> dict[str, Any]:
    """Return {"sha256", "bytes"} of a file."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"sha256": digest, "bytes": path.stat().st_size}


def read_manifest(directory: Path) -> Manifest:
    """Read the manifest in ``directory``; DataError if there is no such path, ArtifactError if it holds no good one."""
    if not directory.exists():
        raise DataError(f"{directory}: no such folder; compile a model to it with tvm-ffn compile")
    if not directory.is_dir():
        raise ArtifactError(f"{directory} is a file, not the folder of a compiled model")
    path = directory / MANIFEST_NAME
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{directory} is not a compiled model: it holds no {MANIFEST_NAME}") from error
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ArtifactError(f"{path} is damaged: it is not JSON ({error})") from error
    try:
        return Manifest.from_json(values)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from error


def verify_files(directory: Path, manifest: Manifest) -> None:
    """Compare every file with the manifest; the first missing or changed one is an ArtifactError."""
    for name in (manifest.library_name, REPORT_NAME):
        if name not in manifest.files:
            raise ArtifactError(f"{directory / MANIFEST_NAME} is damaged: it does not list {name}")
    for name, expected in manifest.files.items():
        if Path(name).name != name:
            raise ArtifactError(f"{directory / MANIFEST_NAME} is damaged: {name!r} is not a file name")
        path = directory / name
        try:
            found = file_entry(path)
        except OSError as error:
            raise ArtifactError(f"{directory} is incomplete: {name}: {error.strerror}") from error
        if found != dict(expected):
            raise ArtifactError(f"{path} is damaged: its content differs from the manifest; compile or copy it again")
