"""What each command of the command line does: call the library, print the outcome on standard output."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
import shutil
import zipfile
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvm_ffn.errors import AccuracyError, ConfigError, DataError
from tvm_ffn.json_file import read_object
from tvm_ffn.version import __version__

if TYPE_CHECKING:
    from tvm_ffn.calibration import Calibration, Preprocess
    from tvm_ffn.config import FFNConfig
    from tvm_ffn.report import Report

SYNTHETIC_SAMPLES = 32


def command_compile(options: Namespace) -> None:
    """Compile, save, print the report; destination, target and settings are checked before the long work."""
    from tvm_ffn.plan import Plan
    from tvm_ffn.runtime import check_destination
    from tvm_ffn.targets import parse_target

    destination = Path(options.output).absolute()
    check_destination(destination)
    config = _config(options).replace(**_kernel_settings(options))
    plan = None if options.plan is None else Plan.from_file(options.plan)
    for key in ("adds", "bytes", "penalty", "method", "rank_ratio"):
        if plan is not None and getattr(options, key) is not None:
            raise ConfigError(f"--{key.replace('_', '-')} changes nothing with --plan, which settles every layer")
    target = parse_target(options.target)
    calibration = _calibration(options)

    from tvm_ffn.compiler import compile

    module = compile(
        options.model, target, config=config, calibration=calibration, plan=plan, tuning_dir=options.tuning_dir
    )
    module.save(destination, compress=options.compress)
    print(module.report.table())
    print(f"wrote {destination} ({_megabytes(destination)})")
    _check_drop(module.report, options.max_drop)


def _kernel_settings(options: Namespace) -> dict[str, Any]:
    """The settings of kernels that the options give."""
    given = {"optimize": options.optimize, "code_bytes": options.code_bytes}
    return {name: value for name, value in given.items() if value is not None}


def command_tune(options: Namespace) -> None:
    """Tune and print a row for each task; the records stay whatever happens."""
    from tvm_ffn.atomic import check_writable
    from tvm_ffn.config import FFNConfig

    folder = Path(options.work_dir).absolute()
    check_writable(folder / "tuned.json")
    config = FFNConfig() if options.config is None else FFNConfig.from_file(options.config)
    config = config.replace(**_kernel_settings(options))

    from tvm_ffn.tuner import tune

    result = tune(
        options.model,
        options.target,
        work_dir=folder,
        config=config,
        trials=options.trials,
        time_budget=options.time_budget,
        rpc_tracker=options.rpc_tracker,
        rpc_key=options.rpc_key,
        threads=options.threads,
        seed=options.seed,
    )
    print(result.table())
    print(f"compile with --tuning-dir {options.work_dir}")


def command_quantize(options: Namespace) -> None:
    """Plan and solve without making code; print the plan, what hurts most and the held-out figures."""
    from tvm_ffn.atomic import check_writable
    from tvm_ffn.diagnosis import damage_table

    config = _config(options)
    if options.output is not None:
        check_writable(Path(options.output).absolute())
    calibration = _calibration(options)

    from tvm_ffn.compiler import quantize

    quantized = quantize(options.model, config=config, calibration=calibration)
    report = quantized.report
    print(quantized.plan.table())
    print()
    print(damage_table(report))
    print()
    print("\n".join(report.summary()))
    if options.output is not None:
        quantized.plan.save(options.output)
        print(f"wrote {options.output}")
    _check_drop(report, options.max_drop)


def _config(options: Namespace) -> FFNConfig:
    """The settings of a file, with what the options say on top."""
    from tvm_ffn.config import BUDGETS, FFNConfig

    config = FFNConfig() if options.config is None else FFNConfig.from_file(options.config)
    given = {key: getattr(options, key) for key in ("rank_ratio", "method", "penalty")}
    budget = {key: getattr(options, key) for key in BUDGETS if getattr(options, key) is not None}
    if budget:
        given["budget"] = budget
    settled = [key for key in ("penalty", "rank_ratio") if given[key] is not None]
    settled += ["method"] if given["method"] not in (None, "planes") else []
    if settled and not budget.keys() <= {"max_drop"}:
        raise ConfigError(f"with --{settled[0].replace('_', '-')} there is nothing to plan within a budget")
    return config.replace(**{key: value for key, value in given.items() if value is not None})


def _check_drop(report: Report, allowed: float | None) -> None:
    """AccuracyError where a gate was asked for and the held-out samples say that it is missed."""
    from tvm_ffn.budget import overdrawn

    if allowed is None:
        return
    if report.held_out is None:
        raise DataError("--max-drop is judged by held-out samples: give at least 10 calibration samples")
    if missed := overdrawn(report.held_out["expected_drop"], allowed):
        raise AccuracyError(missed)


def command_run(options: Namespace) -> None:
    """Run a module on one file of arrays, batch by batch if its batch is fixed, and write one file of outputs."""
    import numpy as np

    from tvm_ffn.array_file import read_arrays
    from tvm_ffn.atomic import check_writable, write_file
    from tvm_ffn.runtime import load
    from tvm_ffn.verify import run_samples

    output = Path(options.output).absolute()
    check_writable(output)
    module = load(options.artefact)
    arrays = read_arrays(options.input)
    if not isinstance(arrays, dict):
        raise DataError(f"{options.input} is one array without a name: give an .npz file, an array for each input")
    outputs = run_samples(module, arrays, options.input)
    results = {info.name: result for info, result in zip(module.outputs, outputs, strict=True)}

    def write(path: Path) -> None:
        # np.savez takes names as keywords, which fails for an output called "file".
        with zipfile.ZipFile(path, "w") as archive:
            for name, result in results.items():
                with archive.open(f"{name}.npy", "w") as stream:
                    np.lib.format.write_array(stream, result)

    write_file(output, write)
    for name, result in results.items():
        print(f"{name}: {result.dtype}{list(result.shape)}")
    print(f"wrote {output}")


def command_inspect(options: Namespace) -> None:
    """Print report and manifest of an artefact."""
    from tvm_ffn.runtime import load

    module = load(options.artefact)
    if options.json:
        print(json.dumps({**module.report.to_json(), "manifest": module.manifest.to_json()}, indent=1))
        return
    print(module.report.table())
    print(f"inputs   {', '.join(map(str, module.inputs))}")
    print(f"outputs  {', '.join(map(str, module.outputs))}")
    if module.manifest.preprocess is not None:
        print(f"images   {json.dumps(module.manifest.preprocess)}")
    print(f"made by  {', '.join(f'{name} {version}' for name, version in module.manifest.versions.items())}")
    print(f"folder   {module.directory} ({_megabytes(module.directory)})")


def command_verify(options: Namespace) -> None:
    """Compare a module with its fp32 original; a missed gate is an AccuracyError after the figures are printed."""
    from tvm_ffn.diagnosis import damage_table
    from tvm_ffn.runtime import load
    from tvm_ffn.verify import verify

    module = load(options.artefact)
    outcome = verify(module, options.against, options.data, labels=options.labels, limit=options.limit)
    print(outcome.text())
    print(f"\n{damage_table(module.report)}")
    if options.max_drop is not None:
        outcome.check(options.max_drop)


def command_bench(options: Namespace) -> None:
    """Time a module, on one thread unless ``TVM_NUM_THREADS`` says otherwise."""
    os.environ.setdefault("TVM_NUM_THREADS", "1")

    from tvm_ffn.bench import bench, kernel_table, kernel_times
    from tvm_ffn.runtime import load

    module = load(options.artefact)
    result = bench(module, options.against, repeat=options.repeat)
    kernels = kernel_times(module, repeat=options.repeat) if options.layers else None
    if options.json:
        if kernels is not None:
            result["kernels"] = [dataclasses.asdict(kernel) for kernel in kernels]
        print(json.dumps(result))
        return
    if kernels is not None:
        print(kernel_table(kernels))
    print(f"module       median {result['median_ms']:.3f} ms, minimum {result['min_ms']:.3f} ms")
    if "ratio" in result:
        peer, best = result["onnxruntime_median_ms"], result["onnxruntime_min_ms"]
        print(f"onnxruntime  median {peer:.3f} ms, minimum {best:.3f} ms")
        print(f"ratio        {result['ratio']:.3f} (module / onnxruntime fp32)")
    print(f"batch 1, {result['threads']} thread{'s' * (result['threads'] > 1)}, {result['repeat']} runs")


def command_targets(options: Namespace) -> None:
    """List targets, or the CPU names of an architecture."""
    from tvm_ffn.target_names import ARCHITECTURES, known_cpus
    from tvm_ffn.targets import host_options

    if options.cpus is not None:
        print("\n".join(known_cpus(options.cpus)))
        return
    own = host_options()
    print(f'"llvm"{"":22}this machine: {own["mtriple"]}, {own["mcpu"]} {" ".join(own.get("mattr", []))}'.rstrip())
    for name, architecture in ARCHITECTURES.items():
        found = platform.machine() == name or shutil.which(architecture.compiler) is not None
        needs = "" if found else f" (linking needs Debian's {architecture.package})"
        print(f'"llvm -mtriple={name}"'.ljust(28) + f"any {name} Linux{needs}")
    print("narrow one by -mcpu=CPU (tvm-ffn targets --cpus ARCHITECTURE) and -mattr=+feature,-feature;")
    print("also a TVM tag such as raspberry-pi/4b-aarch64. CUDA is not there yet.")


def command_env(options: Namespace) -> None:
    """Print versions and what was found."""
    from tvm.target.codegen import llvm_version_major

    from tvm_ffn.cache import Cache
    from tvm_ffn.factorize.native import library_path
    from tvm_ffn.targets import host_options

    print(f"tvm_ffn            {__version__}")
    print(f"python             {platform.python_version()} on {platform.platform()}")
    for package in ("apache-tvm", "apache-tvm-ffi", "numpy", "onnx", "onnxruntime", "openvino"):
        try:
            print(f"{package:18} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            print(f"{package:18} not installed")
    print(f"LLVM               {llvm_version_major()}")
    print(f"this machine       {host_options()['mtriple']}, {host_options()['mcpu']}, {os.cpu_count()} processors")
    print(f"native solver      {library_path() or 'not built: factorising runs in NumPy, slowly'}")
    print(f"cache              {Cache.of_user().describe()}")


def _calibration(options: Namespace) -> Calibration | None:
    """Open the calibration data, or return None for ``compile`` to say what it needs."""
    if options.calibration is None and not options.synthetic_calibration:
        return None
    from tvm_ffn.calibration import Calibration, open_calibration
    from tvm_ffn.importer import load_model

    inputs, preprocess = load_model(options.model).inputs, _preprocess(options)
    if options.synthetic_calibration:
        calibration = Calibration.synthetic(inputs, options.limit or SYNTHETIC_SAMPLES, 0)
    else:
        calibration = open_calibration(options.calibration, inputs, preprocess=preprocess, limit=options.limit)
    if calibration.preprocess is not None:
        print(f"image preprocessing: {json.dumps(calibration.preprocess.to_json())}")
    elif preprocess is not None:
        raise ConfigError(f"preprocessing is for folders of images, but the calibration is {calibration.description}")
    return calibration


def _preprocess(options: Namespace) -> Preprocess | None:
    """Merge --preprocess FILE.json and the single options; None if neither is given."""
    from tvm_ffn.calibration import Preprocess

    given: dict[str, Any] = {}
    if options.preprocess is not None:
        given = read_object(options.preprocess, "preprocessing")
    named = {"size": options.image_size, "mean": options.mean, "std": options.std, "layout": options.layout}
    given |= {key: value for key, value in named.items() if value is not None}
    return Preprocess.from_json(given) if given else None


def _megabytes(folder: Path) -> str:
    return f"{sum(file.stat().st_size for file in folder.iterdir()) / 1e6:.2f} MB"
