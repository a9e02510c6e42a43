"""The manifest: JSON round trip, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tvm_ffn.errors import ArtifactError
from tvm_ffn.manifest import MANIFEST_NAME, Manifest, TensorInfo, file_entry, read_manifest, verify_files

MANIFEST = Manifest(
    model="net",
    versions={"tvm_ffn": "0.1.0"},
    target={"kind": "llvm", "mtriple": "x86_64-linux-gnu"},
    features=("avx2",),
    inputs=(TensorInfo("x", ("N", 3, 8, 8), "float32"),),
    outputs=(TensorInfo("y", ("N", 10), "float32"),),
    symbolic_batch=True,
    config={"rank_ratio": 1.5},
    files={"model.so": {"sha256": "0" * 64, "bytes": 3}, "report.json": {"sha256": "0" * 64, "bytes": 3}},
)


def test_round_trip() -> None:
    assert Manifest.from_json(json.loads(json.dumps(MANIFEST.to_json()))) == MANIFEST


def test_keys_of_a_later_version_are_ignored() -> None:
    assert Manifest.from_json({**MANIFEST.to_json(), "invented_later": 1}) == MANIFEST


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "onnx"}, "not the manifest"),
        ({"format_version": 3}, "reads up to 2: update"),
        ({"format_version": "1"}, "not a positive integer"),
        ({"format_version": True}, "not a positive integer"),
        ({"inputs": [{"name": "x"}]}, "damaged"),
        ({"inputs": [{"name": "x", "shape": [1.5], "dtype": "float32"}]}, "damaged"),
        ({"files": {"model.so": "abc"}}, "damaged"),
    ],
)
def test_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        Manifest.from_json({**MANIFEST.to_json(), **change})


@pytest.mark.parametrize("key", [key for key in MANIFEST.to_json() if not key.startswith(("format", "preprocess"))])
@pytest.mark.parametrize("value", [None, 3])
def test_fields_of_another_type_are_damages(key: str, value: Any) -> None:
    with pytest.raises(ArtifactError, match=f"the manifest is damaged: TypeError: {key} is {json.dumps(value)}"):
        Manifest.from_json({**MANIFEST.to_json(), key: value})


@pytest.mark.parametrize("key", ["name", "shape", "dtype"])
def test_tensors_without_a_property_are_damages(key: str) -> None:
    values = MANIFEST.to_json()
    values["outputs"][0][key] = None
    with pytest.raises(ArtifactError, match=f"the manifest is damaged: TypeError: {key} is null"):
        Manifest.from_json(values)


def test_only_preprocessing_may_be_null() -> None:
    values = json.loads(json.dumps(MANIFEST.to_json()))
    assert [key for key, value in values.items() if value is None] == ["preprocess"]


@pytest.mark.parametrize("key", ["model", "target", "files", "symbolic_batch"])
def test_missing_key(key: str) -> None:
    values = MANIFEST.to_json()
    del values[key]
    with pytest.raises(ArtifactError, match=key):
        Manifest.from_json(values)


@pytest.mark.parametrize("name", ["../model.so", "sub/model.so", "/etc/passwd"])
def test_files_lie_in_the_folder(tmp_path: Path, name: str) -> None:
    values = MANIFEST.to_json()
    for listed in values["files"]:
        (tmp_path / listed).write_bytes(b"abc")
        values["files"][listed] = file_entry(tmp_path / listed)
    verify_files(tmp_path, Manifest.from_json(values))
    values["files"][name] = {"sha256": "0" * 64, "bytes": 1}
    with pytest.raises(ArtifactError, match="not a file name"):
        verify_files(tmp_path, Manifest.from_json(values))


def test_error_names_the_file(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).write_text('{"format": "tvm_ffn", "format_version": 9}')
    with pytest.raises(ArtifactError, match=r"manifest\.json: .*format version 9"):
        read_manifest(tmp_path)
