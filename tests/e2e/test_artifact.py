"""Artefacts: what is saved loads and runs alike, what is damaged or foreign is refused, nothing is half-written."""

from __future__ import annotations

import bz2
import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tvm_ffn import atomic, targets
from tvm_ffn.compiler import finish
from tvm_ffn.config import FFNConfig
from tvm_ffn.errors import ArtifactError, DataError, OutputError, TargetError
from tvm_ffn.kernel_plan import default_plan
from tvm_ffn.manifest import LIBRARY_NAME, MANIFEST_NAME, PACKED_NAME
from tvm_ffn.packing import pack, unpack
from tvm_ffn.pipeline import run
from tvm_ffn.runtime import Module, check_destination, load
from tvm_ffn.synthetic import random_compilation

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "digits.onnx"
WEIGHT = np.arange(12, dtype=np.float32).reshape(4, 3)  # of the fixture ``stage``


@pytest.fixture(scope="module")
def built(stage: Callable[..., Path]) -> Module:
    return load(stage(), temporary=True)


@pytest.fixture
def saved(built: Module, tmp_path: Path) -> Path:
    return built.save(tmp_path / "out")


def test_saved_module_runs_alike(built: Module, saved: Path) -> None:
    x = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    module = load(saved)
    y, z = module.run({"x": x})
    np.testing.assert_allclose(y, x @ WEIGHT, rtol=1e-5)
    np.testing.assert_array_equal(z, x + x)
    for a, b in zip(built.run({"x": x}), (y, z), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [str(info) for info in module.inputs] == ["x: float32[N, 4]"]
    assert {entry.name for entry in saved.iterdir()} == {"model.so", "manifest.json", "report.json"}


def test_compressed_module_runs_alike(built: Module, saved: Path, tmp_path: Path) -> None:
    packed = built.save(tmp_path / "packed", compress=True)
    assert {entry.name for entry in packed.iterdir()} == {PACKED_NAME, MANIFEST_NAME, "report.json"}
    assert (packed / PACKED_NAME).stat().st_size < 0.7 * (saved / LIBRARY_NAME).stat().st_size
    module, x = load(packed), np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(module.run({"x": x})[0], built.run({"x": x})[0])
    again = module.save(tmp_path / "again", compress=False)
    assert (again / LIBRARY_NAME).read_bytes() == (saved / LIBRARY_NAME).read_bytes()
    assert (again / MANIFEST_NAME).read_text() == (saved / MANIFEST_NAME).read_text()
    assert module.save(packed, compress=False).samefile(packed) and (packed / LIBRARY_NAME).exists()
    temporary = module._library().parent
    assert temporary.exists()
    del module
    assert not temporary.exists()


def test_code_is_saved_compressed(tmp_path: Path) -> None:
    target = targets.parse_target("llvm")
    if not default_plan(target).isa:
        pytest.skip("the processor has no kernel of that kind")
    config = FFNConfig(rank_ratio=1.0)
    for key in ("speed", "size"):
        c = run(random_compilation(DIGITS, target, config.replace(optimize=key)), start_at="choose")
        saved = finish(c).save(tmp_path / key)
        assert (saved / PACKED_NAME).exists() == (key == "speed")
        assert (saved / LIBRARY_NAME).exists() == (key == "size")
    plain = load(tmp_path / "speed").save(tmp_path / "plain", compress=False)
    assert (plain / LIBRARY_NAME).exists()
    assert (load(plain).save(tmp_path / "copy") / LIBRARY_NAME).exists()
    assert (load(tmp_path / "speed").save(tmp_path / "again") / PACKED_NAME).exists()


def test_many_streams_are_one_file(tmp_path: Path) -> None:
    content = np.random.default_rng(0).integers(0, 9, 9_000_000, np.uint8).tobytes()
    (tmp_path / "library").write_bytes(content)
    pack(tmp_path / "library", tmp_path / "packed")
    assert bz2.decompress((tmp_path / "packed").read_bytes()) == content
    unpack(tmp_path / "packed", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == content


def test_compressed_module_needs_space_to_unpack(
    built: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = load(built.save(tmp_path / "packed", compress=True))

    def full(packed: Path, library: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tvm_ffn.runtime.unpack", full)
    with pytest.raises(OutputError, match=r"cannot write .*No space left"):
        module.run({"x": np.ones((1, 4), np.float32)})


@pytest.mark.parametrize(
    "damage", [lambda file: os.truncate(file, 1000), lambda file: os.truncate(file, 0), Path.unlink]
)
def test_compressed_module_damaged_after_loading(built: Module, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    module = load(built.save(tmp_path / "packed", compress=True))
    damage(tmp_path / "packed" / PACKED_NAME)
    with pytest.raises(ArtifactError, match=r"model.so.bz2"):
        module.run({"x": np.ones((1, 4), np.float32)})


def test_results_are_not_overwritten_by_the_next_run(built: Module) -> None:
    first = built.run({"x": np.ones((1, 4), np.float32)})[0]
    kept = first.copy()
    built.run({"x": np.zeros((1, 4), np.float32)})
    np.testing.assert_array_equal(first, kept)


def test_not_contiguous_input(built: Module) -> None:
    x = np.random.default_rng(0).standard_normal((4, 2)).astype(np.float32).T
    np.testing.assert_allclose(built.run({"x": x})[0], x @ WEIGHT, rtol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"x": np.zeros((1, 5), np.float32)}, r"shape \(1, 5\), the model takes \(N, 4\)"),
        ({"x": np.zeros(4, np.float32)}, "shape"),
        ({"x": np.zeros((1, 4))}, "is float64, the model takes float32"),
        ({"X": np.zeros((1, 4), np.float32)}, "unknown input 'X'"),
        ({}, "'x' is missing"),
        ({"x": np.full((1, 4), np.nan, np.float32)}, "NaN"),
        ({"x": np.zeros((0, 4), np.float32)}, "empty"),
        ([np.zeros((1, 4), np.float32)], "mapping"),
    ],
)
def test_wrong_inputs(built: Module, inputs: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(DataError, match=message):
        built.run(inputs)


def test_static_batch_is_strict(stage: Callable[..., Path]) -> None:
    module = load(stage(symbolic=False), temporary=True)
    assert module.run({"x": np.ones((1, 4), np.float32)})[0].shape == (1, 3)
    with pytest.raises(DataError, match=r"shape \(2, 4\), the model takes \(1, 4\): run batches of 1"):
        module.run({"x": np.ones((2, 4), np.float32)})


def damage_byte(folder: Path) -> None:
    content = bytearray((folder / LIBRARY_NAME).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / LIBRARY_NAME).write_bytes(content)


def truncate_packed(folder: Path) -> None:
    load(folder).save(folder, compress=True)
    os.truncate(folder / PACKED_NAME, 1000)


def newer_version(folder: Path) -> None:
    values = json.loads((folder / MANIFEST_NAME).read_text())
    (folder / MANIFEST_NAME).write_text(json.dumps({**values, "format_version": 3}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_byte, "model.so is damaged"),
        (truncate_packed, "model.so.bz2 is damaged"),
        (lambda folder: (folder / "report.json").unlink(), "incomplete: report.json"),
        (lambda folder: (folder / MANIFEST_NAME).unlink(), "not a compiled model"),
        (newer_version, "format version 3.*update"),
        (lambda folder: (folder / MANIFEST_NAME).write_text("hello\n"), "not JSON"),
        (lambda folder: (folder / MANIFEST_NAME).write_bytes(b"\xff\xfe\x00"), "not JSON"),
        (lambda folder: (folder / MANIFEST_NAME).write_text("{}"), "not the manifest"),
    ],
)
def test_damaged_artefact(saved: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(saved)
    with pytest.raises(ArtifactError, match=message):
        load(saved)


def test_no_artefact_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        load(tmp_path / "missing")
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="is a file"):
        load(tmp_path / "file")


def test_replacing_an_artefact(stage: Callable[..., Path], saved: Path) -> None:
    """The old code goes on running from memory, the new folder gives the new code, in one process."""
    x = np.ones((1, 4), np.float32)
    old = load(saved)
    np.testing.assert_allclose(old.run({"x": x})[0], x @ WEIGHT)
    load(stage(scale=2.0), temporary=True).save(saved)
    np.testing.assert_allclose(load(saved).run({"x": x})[0], 2 * x @ WEIGHT)
    np.testing.assert_allclose(old.run({"x": x})[0], x @ WEIGHT)
    assert [entry.name for entry in saved.parent.iterdir()] == ["out"]


def test_what_is_no_artefact_is_left_alone(built: Module, saved: Path, tmp_path: Path) -> None:
    (saved / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"notes\.txt"):
        built.save(saved)
    other = tmp_path / "other"
    other.mkdir()
    (other / "photo.jpg").write_text("mine")
    with pytest.raises(OutputError, match=r"photo\.jpg"):
        built.save(other)
    with pytest.raises(OutputError, match="is a file"):
        built.save(other / "photo.jpg")
    assert (other / "photo.jpg").read_text() == "mine" and (saved / "notes.txt").exists()
    empty = tmp_path / "empty"
    empty.mkdir()
    assert load(built.save(empty)).inputs == built.inputs


@pytest.mark.parametrize("place", ["/proc/out", "/dev/null/out"])
def test_unwritable_folder(built: Module, place: str) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        check_destination(Path(place))
    with pytest.raises(OutputError, match="cannot write"):
        built.save(place)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(built: Module, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        built.save(tmp_path / "out")
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_interrupted_save_leaves_the_old_artefact(saved: Path, error: BaseException) -> None:
    def fill(folder: Path) -> None:
        (folder / LIBRARY_NAME).write_text("half")
        raise error

    with pytest.raises((OutputError, KeyboardInterrupt)):
        atomic.write_folder(saved, fill)
    load(saved)
    assert [entry.name for entry in saved.parent.iterdir()] == ["out"]


def test_failed_save_leaves_no_parents(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left"):
        atomic.write_folder(tmp_path / "new" / "parents" / "out", fill)
    with pytest.raises(OutputError, match="No space left"):
        atomic.write_file(tmp_path / "new" / "y.npz", fill)
    assert list(tmp_path.iterdir()) == []


def test_full_temporary_disk_is_refused_before_llvm_writes(
    stage: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1 << 20))
    with pytest.raises(OutputError, match="1 MB free, compiling needs 32 MB: set TMPDIR"):
        stage()


def test_failed_rename_restores_the_old_artefact(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename, calls = os.rename, []

    def failing(source: Path, destination: Path) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        rename(source, destination)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OutputError, match="Input/output error"):
        atomic.write_folder(saved, lambda folder: None)
    load(saved)


def test_temporary_artefact_goes_with_its_module(stage: Callable[..., Path]) -> None:
    module = load(stage(), temporary=True)
    folder = module.directory
    assert folder.is_dir()
    del module
    assert not folder.exists()


def test_module_for_another_machine_loads_but_does_not_run(built: Module, saved: Path) -> None:
    values = json.loads((saved / MANIFEST_NAME).read_text())
    values["target"]["mtriple"] = "riscv64-linux-gnu"
    (saved / MANIFEST_NAME).write_text(json.dumps(values))
    module = load(saved)
    assert module.report.model == "linear"
    with pytest.raises(TargetError, match="compiled for riscv64"):
        module.run({"x": np.ones((1, 4), np.float32)})


def test_module_for_a_better_processor_does_not_run(built: Module, saved: Path) -> None:
    values = json.loads((saved / MANIFEST_NAME).read_text())
    values["features"].append("quantum")
    (saved / MANIFEST_NAME).write_text(json.dumps(values))
    with pytest.raises(TargetError, match="quantum, which this one lacks"):
        load(saved).run({"x": np.ones((1, 4), np.float32)})


@pytest.mark.skipif(shutil.which("aarch64-linux-gnu-g++") is None, reason="needs Debian's g++-aarch64-linux-gnu")
def test_cross_compiled_artefact(stage: Callable[..., Path]) -> None:
    module = load(stage(target="llvm -mtriple=aarch64"), temporary=True)
    assert (module.directory / LIBRARY_NAME).read_bytes()[18:20] == b"\xb7\x00"  # ELF e_machine: AArch64
    assert module.manifest.target["mtriple"] == "aarch64-linux-gnu"


def test_runs_without_the_compiler_library(saved: Path) -> None:
    script = """
import sys
import numpy as np
import tvm_ffn
module = tvm_ffn.load(sys.argv[1])
print(module.run({"x": np.ones((2, 4), np.float32)})[0].tolist())
assert not any("libtvm_compiler" in line for line in open("/proc/self/maps"))
assert "onnx" not in sys.modules and "tvm.relax" not in sys.modules
"""
    environment = {**os.environ, "TVM_USE_RUNTIME_LIB": "1", "PYTHONPATH": str(ROOT)}
    # A relative path: what dlopen gets must still hold a slash.
    command = [sys.executable, "-c", script, saved.name]
    done = subprocess.run(command, env=environment, cwd=saved.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str((np.ones((2, 4)) @ WEIGHT).tolist())


def test_benchmark(built: Module) -> None:
    result = built.benchmark(repeat=3)
    assert result["repeat"] == 3 and 0 < result["min_ms"] <= result["median_ms"]
