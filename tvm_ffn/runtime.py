"""Load a compiled artefact and run it. Needs no compiler library: ``TVM_USE_RUNTIME_LIB=1`` is enough.

Loading reads and checks files only; the model's code is loaded when it first runs. So an artefact for another
machine can be loaded and inspected anywhere.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tvm_ffn import atomic, feeds, host
from tvm_ffn.errors import ArtifactError, OutputError, TargetError
from tvm_ffn.json_file import write_json
from tvm_ffn.manifest import (
    LIBRARY_NAME,
    MANIFEST_NAME,
    PACKED_NAME,
    REPORT_NAME,
    Manifest,
    TensorInfo,
    file_entry,
    read_manifest,
    verify_files,
)
from tvm_ffn.packing import pack, unpack
from tvm_ffn.report import Report

# Hashes of the libraries this process opened, by path: see _library_path.
_opened: dict[Path, list[str]] = {}


def load(directory: str | os.PathLike[str], *, temporary: bool = False) -> Module:
    """Load the artefact in ``directory`` and check every file against its manifest.

    A damaged or newer artefact is an ArtifactError, a path that does not exist a DataError. With ``temporary`` the
    folder belongs to the module and is removed when the module is gone.
    """
    path = Path(directory).absolute()
    manifest = read_manifest(path)
    verify_files(path, manifest)
    try:
        report = Report.from_json(json.loads((path / REPORT_NAME).read_text(encoding="utf-8")))
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path / REPORT_NAME} is damaged: {type(error).__name__}: {error}") from error
    module = Module(path, manifest, report, stored=not temporary)
    if temporary:
        weakref.finalize(module, shutil.rmtree, path, ignore_errors=True)
    return module


class Module:
    """A compiled model: inputs and outputs by name, :meth:`run`, :meth:`save`, :meth:`benchmark`.

    One call runs at a time; calls from several threads wait for each other.
    """

    def __init__(self, directory: Path, manifest: Manifest, report: Report, *, stored: bool) -> None:
        self._directory = directory
        self._stored = stored
        self._manifest = manifest
        self._report = report
        self._lock = threading.Lock()
        self._unpacked: Path | None = None
        self._machine: Any = None
        self._buffers: list[Any] = []

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """Name, shape and dtype of every input; a batch dimension that is a name takes any size."""
        return self._manifest.inputs

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """Name, shape and dtype of every output."""
        return self._manifest.outputs

    @property
    def report(self) -> Report:
        """What became of each layer."""
        return self._report

    @property
    def manifest(self) -> Manifest:
        """The artefact's manifest: target, configuration, preprocessing, versions, hashes."""
        return self._manifest

    @property
    def directory(self) -> Path:
        """Where the artefact lies (a temporary folder for a module that was just compiled)."""
        return self._directory

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Run the model and return the outputs in order.

        Names, shapes and dtypes must be those of ``inputs`` exactly (DataError says what differs). A symbolic batch
        runs sample by sample. On a machine the artefact is not for, TargetError.
        """
        arrays = feeds.checked(inputs, self.inputs)
        batch = feeds.batch_size(arrays, self.inputs, self.outputs) if self._manifest.symbolic_batch else 1
        with self._lock:
            self._started()
            if batch == 1:
                return self._run_once(arrays)
            samples = [self._run_once(feeds.sample(arrays, self.inputs, index)) for index in range(batch)]
        return [np.concatenate(parts) for parts in zip(*samples, strict=True)]

    def save(self, directory: str | os.PathLike[str], *, compress: bool | None = None) -> Path:
        """Copy the artefact to ``directory``, complete or not at all, and return the path.

        An earlier artefact there is replaced; any other folder that is not empty is an OutputError and left alone.
        With ``compress`` the library takes a quarter to two thirds of its bytes, and a loaded module unpacks it to a
        temporary folder before it first runs (43 MB: one to two seconds of a core). None: as it was loaded, and where
        weights are code for a module that was just compiled.
        """
        path = Path(directory).absolute()
        check_destination(path)
        known = self._manifest.files
        if compress is None:
            compress = PACKED_NAME in known if self._stored else self.report.totals["code_bytes"] > 0
        names = (PACKED_NAME if compress else LIBRARY_NAME, REPORT_NAME)

        def fill(folder: Path) -> None:
            for name in names:
                if name in known:
                    shutil.copyfile(self._directory / name, folder / name)
                elif name == PACKED_NAME:
                    pack(self._directory / LIBRARY_NAME, folder / name)
                else:
                    unpack(self._directory / PACKED_NAME, folder / name)
            files = {name: known.get(name) or file_entry(folder / name) for name in names}
            write_json(folder / MANIFEST_NAME, replace(self._manifest, files=files).to_json())

        atomic.write_folder(path, fill)
        return path

    def benchmark(
        self, inputs: Mapping[str, np.ndarray] | None = None, *, repeat: int = 30, warmup: int = 3
    ) -> dict[str, Any]:
        """Time :meth:`run`, copies in and out included; return milliseconds: median, min, mean and all ``times_ms``.

        Without ``inputs``, one random sample. Threads are TVM's: ``TVM_NUM_THREADS``.
        """
        sample = feeds.random_inputs(self.inputs) if inputs is None else inputs
        for _ in range(max(1, warmup)):
            self.run(sample)
        times = []
        for _ in range(max(1, repeat)):
            start = time.perf_counter()
            self.run(sample)
            times.append(1e3 * (time.perf_counter() - start))
        return {
            "median_ms": statistics.median(times),
            "min_ms": min(times),
            "mean_ms": statistics.fmean(times),
            "repeat": len(times),
            "times_ms": times,
        }

    def trace(self, inputs: Mapping[str, np.ndarray]) -> list[tuple[str, float]]:
        """Run one sample; return the functions that were called, in order, each with its milliseconds.

        They are the model's kernels and the virtual machine's own "vm.builtin." functions.
        """
        calls: list[tuple[str, float]] = []
        start = 0.0

        def clock(_function: Any, name: str, before: bool, _result: Any, *_arguments: Any) -> None:
            nonlocal start
            now = time.perf_counter()
            if before:
                start = time.perf_counter()
            else:
                calls.append((name, 1e3 * (now - start)))

        arrays = feeds.checked(inputs, self.inputs)
        with self._lock:
            machine = self._started()
            machine.set_instrument(clock)
            try:
                self._run_once(arrays)
            finally:
                machine.set_instrument(None)
        return calls

    def __repr__(self) -> str:
        inputs, outputs = (", ".join(map(str, infos)) for infos in (self.inputs, self.outputs))
        return f"<tvm_ffn.Module {self._manifest.model}: ({inputs}) -> ({outputs})>"

    def _run_once(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        views = [np.from_dlpack(buffer) for buffer in self._buffers]
        for view, array in zip(views, arrays, strict=True):
            np.copyto(view, array)
        feeds.check_finite(views, self.inputs)  # while they are in the caches
        results = self._machine["main"](*self._buffers)
        # One output is a tensor, several are an array of tensors.
        tensors = [results] if hasattr(results, "numpy") else list(results)
        return [np.from_dlpack(tensor).copy() for tensor in tensors]

    def _started(self) -> Any:
        if self._machine is None:
            self._machine, self._buffers = self._start()
        return self._machine

    def _start(self) -> tuple[Any, list[Any]]:
        """Load the code; return the virtual machine and input tensors (TVM aligns them to 64 bytes)."""
        self._check_machine()
        import tvm_ffi
        from tvm import runtime
        from tvm.runtime.vm import VirtualMachine

        library = self._library_path()
        try:
            machine = VirtualMachine(tvm_ffi.load_module(library), runtime.cpu())
        except (RuntimeError, OSError, ValueError) as error:
            made = ", ".join(f"{name} {version}" for name, version in self._manifest.versions.items())
            reason = str(error).strip().splitlines()[-1]
            raise ArtifactError(
                f"cannot load {self._directory / LIBRARY_NAME} (compiled with {made}): {reason}"
            ) from error
        shapes = [tuple(dim if isinstance(dim, int) else 1 for dim in info.shape) for info in self.inputs]
        buffers = [runtime.empty(shape, info.dtype) for info, shape in zip(self.inputs, shapes, strict=True)]
        return machine, buffers

    def _check_machine(self) -> None:
        architecture = host.architecture(str(self._manifest.target.get("mtriple", "")))
        if architecture != host.machine():
            raise TargetError(
                f"{self._manifest.model} is compiled for {architecture}; this machine is {host.machine()}"
            )
        missing = host.missing_features(self._manifest.features)
        if missing:
            raise TargetError(
                f"{self._manifest.model} is compiled for a processor with {', '.join(missing)}, which this one lacks; "
                f"compile it for this machine (target now: {self.report.target})"
            )

    def _library(self) -> Path:
        """The library's file; that of a packed artefact lies in a temporary folder that goes with the module."""
        if self._manifest.library_name == LIBRARY_NAME:
            return self._directory / LIBRARY_NAME
        if self._unpacked is None:
            verify_files(self._directory, self._manifest)  # bzip2 would not see a missing stream
            with atomic.output_errors(Path(tempfile.gettempdir())):
                folder = Path(tempfile.mkdtemp(prefix="tvm_ffn-"))
                weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
                unpack(self._directory / PACKED_NAME, folder / LIBRARY_NAME)
            self._unpacked = folder / LIBRARY_NAME
        return self._unpacked

    def _library_path(self) -> str:
        """Return a path to open the library by.

        The dynamic linker takes an open library of the same path for the same library, even if the file was replaced
        since. So the n-th content opened at one path gets n redundant "./" in it.
        """
        library = self._library()
        hashes = _opened.setdefault(library.parent, [])
        digest = self._manifest.files[self._manifest.library_name]["sha256"]
        if digest not in hashes:
            hashes.append(digest)
        return f"{library.parent}/{'./' * hashes.index(digest)}{library.name}"


def check_destination(path: Path) -> None:
    """Raise OutputError unless an artefact can be saved at ``path``: writable, and nothing but an artefact replaced."""
    if path.exists():
        if not path.is_dir():
            raise OutputError(f"cannot write {path}: it is a file, not a folder")
        with atomic.output_errors(path):
            names = {entry.name for entry in path.iterdir()}
        if names:
            try:
                foreign = names - {MANIFEST_NAME, *read_manifest(path).files}
            except ArtifactError:
                foreign = names
            if foreign:
                raise OutputError(
                    f"{path} holds files that are not of a compiled model ({min(foreign)}); it is left alone"
                )
    atomic.check_writable(path)
