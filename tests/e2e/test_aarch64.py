"""The repository's model cross-compiled for aarch64 and run by the C++ runner under qemu: the same numbers as on x86.

The aarch64 runtime libraries come out of the wheels of the installed TVM version, fetched once into ``.cache/``.
"""

from __future__ import annotations

import bz2
import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tvm_ffn
from tests.small_net import Net
from tvm_ffn.manifest import LIBRARY_NAME, PACKED_NAME

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
TRIPLE = "aarch64-linux-gnu"
PACKAGES = ("apache-tvm", "apache-tvm-ffi")
LIBRARIES = ("libtvm_ffi.so", "libtvm_runtime.so")
CONFIG = tvm_ffn.FFNConfig(rounds=1, sweeps=2)
SAMPLES = 8


def need(program: str, package: str) -> str:
    """The path of a program; the test is skipped where it is not installed."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is missing: apt-get install {package}")
    return path


def run(*command: str | Path) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def aarch64_libraries() -> Path:
    """Folder with aarch64's ``libtvm_ffi.so`` and ``libtvm_runtime.so``, of the versions installed here."""
    wanted = [f"{name}=={importlib.metadata.version(name)}" for name in PACKAGES]
    folder = ROOT / ".cache" / TRIPLE / "-".join(spec.split("==")[1] for spec in wanted)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        where = ["--platform", "manylinux_2_28_aarch64", "--python-version", "3.11", "--only-binary=:all:", "--no-deps"]
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", scratch]
        done = subprocess.run([*pip, *where, *wanted], capture_output=True, text=True, timeout=300)
        if done.returncode:
            pytest.skip(f"the aarch64 wheels cannot be fetched: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
        libraries = Path(scratch) / "lib"
        libraries.mkdir()
        for wheel in Path(scratch).glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                for member in archive.namelist():
                    if Path(member).name in LIBRARIES:
                        (libraries / Path(member).name).write_bytes(archive.read(member))
        assert sorted(path.name for path in libraries.iterdir()) == sorted(LIBRARIES)
        if not folder.exists():  # another test process may have been faster
            libraries.rename(folder)
    return folder


def build_runner(folder: Path, *options: str) -> Path:
    """Build ``csrc/runner`` in ``folder``."""
    cmake = (sys.executable, "-m", "cmake")
    run(*cmake, "-S", ROOT / "csrc" / "runner", "-B", folder, f"-DPython_EXECUTABLE={sys.executable}", *options)
    run(*cmake, "--build", folder)
    return folder / "tvm-ffn-runner"


@pytest.fixture(scope="module")
def aarch64_runner(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that runs the cross-compiled runner, without ``-cpu``."""
    compiler = need(f"{TRIPLE}-g++", f"g++-{TRIPLE}")
    qemu = need("qemu-aarch64-static", "qemu-user-static")
    options = (f"-DCMAKE_CXX_COMPILER={compiler}", f"-DRUNTIME_DIR={aarch64_libraries()}")
    runner = build_runner(tmp_path_factory.mktemp("runner"), *options)
    return [qemu, "-L", f"/usr/{TRIPLE}", str(runner)]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, np.ndarray]:
    """Artefact for this machine, test images (SAMPLES, 1, 16, 16), their logits (SAMPLES, 10)."""
    module = tvm_ffn.compile(EXAMPLES / "digits.onnx", config=CONFIG, calibration=EXAMPLES / "digits_calibration.npz")
    folder = tmp_path_factory.mktemp("here") / "digits"
    module.save(folder, compress=False)
    images = np.load(EXAMPLES / "digits_test.npz")["image"][:SAMPLES]
    return folder, images, module.run({"image": images})[0]


@pytest.fixture
def run_model(tmp_path: Path) -> Callable[..., np.ndarray]:
    """A function (images, artefact, command) -> logits of the runner started by ``command``."""

    def call(images: np.ndarray, artefact: Path, *command: str | Path) -> np.ndarray:
        images.tofile(tmp_path / "image.bin")
        printed = run(*command, artefact, tmp_path, f"image={tmp_path / 'image.bin'}")
        assert printed.split() == ["logits", "float32", str(tmp_path / "0.bin")]
        return np.fromfile(tmp_path / "0.bin", np.float32).reshape(len(images), -1)

    return call


def test_runner_on_this_machine(
    expected: tuple[Path, np.ndarray, np.ndarray], run_model: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    artefact, images, logits = expected
    runner = build_runner(tmp_path / "build")
    np.testing.assert_array_equal(run_model(images, artefact, runner), logits)
    packed = tvm_ffn.load(artefact).save(tmp_path / "packed", compress=True)
    command = [runner, packed, tmp_path, f"image={tmp_path / 'image.bin'}"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 4 and "bunzip2" in refused.stderr
    (packed / LIBRARY_NAME).write_bytes(bz2.decompress((packed / PACKED_NAME).read_bytes()))
    np.testing.assert_array_equal(run_model(images, packed, runner), logits)


@pytest.mark.parametrize(
    ("target", "cpu"),
    [
        ("llvm -mtriple=aarch64", "cortex-a53"),
        (f"llvm -mtriple={TRIPLE} -mcpu=cortex-a72", "cortex-a72"),
        ("llvm -mcpu=neoverse-n1", "neoverse-n1"),
    ],
)
def test_aarch64_gives_the_same_numbers(
    target: str,
    cpu: str,
    aarch64_runner: list[str],
    expected: tuple[Path, np.ndarray, np.ndarray],
    run_model: Callable[..., np.ndarray],
    tmp_path: Path,
) -> None:
    _, images, logits = expected
    module = tvm_ffn.compile(
        EXAMPLES / "digits.onnx", target, config=CONFIG, calibration=EXAMPLES / "digits_calibration.npz"
    )
    module.save(tmp_path / "digits")
    qemu, *command = aarch64_runner
    np.testing.assert_array_equal(run_model(images, tmp_path / "digits", qemu, "-cpu", cpu, *command), logits)


@pytest.mark.parametrize(
    ("changes", "target", "cpu", "kernel"),
    [
        ({"last_layer": "ternary"}, "llvm -mtriple=aarch64", "cortex-a53", "lut"),  # the last layer as factors: tbl
        ({"layers": {"re:.*": {"precision": "int8"}}}, "llvm -mcpu=neoverse-n1", "neoverse-n1", "int8"),  # sdot
    ],
    ids=["lut", "int8"],
)
def test_other_kernels_give_the_same_numbers(
    changes: dict[str, Any],
    target: str,
    cpu: str,
    kernel: str,
    aarch64_runner: list[str],
    run_model: Callable[..., np.ndarray],
    tmp_path: Path,
) -> None:
    given = {"config": CONFIG.replace(**changes), "calibration": EXAMPLES / "digits_calibration.npz"}
    images = np.load(EXAMPLES / "digits_test.npz")["image"][:SAMPLES]
    (logits,) = tvm_ffn.compile(EXAMPLES / "digits.onnx", **given).run({"image": images})
    module = tvm_ffn.compile(EXAMPLES / "digits.onnx", target, **given)
    assert module.report.layers[-1].kernel == kernel
    module.save(tmp_path / "digits")
    qemu, *command = aarch64_runner
    np.testing.assert_array_equal(run_model(images, tmp_path / "digits", qemu, "-cpu", cpu, *command), logits)


@pytest.mark.parametrize("cpu", ["cortex-a53", "neoverse-n1"])
def test_depthwise_layers_sums_and_affine_steps_give_the_same_numbers(
    cpu: str, aarch64_runner: list[str], run_model: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    net = Net(image=(SAMPLES, 6, 17, 15))
    x = net("Relu", net.conv("image", 6, 6, groups=6))
    x = net("Relu", net.conv(x, 6, 12, groups=6, strides=[2, 2]))
    x = net("Relu", net("Add", net.conv(x, 12, 12, groups=12), x))  # a residual
    x = net("Relu", net("Add", net("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4), x))  # a sum
    x = net("Add", net("Mul", x, net.random(1, 12, 1, 1)), net.random(1, 12, 1, 1))
    net.dense(net("Flatten", net("GlobalAveragePool", x)), 12, 5)
    net.nodes[-1].output[0] = "logits"
    model, images = net.model("logits"), np.random.default_rng(1).normal(size=(SAMPLES, 6, 17, 15)).astype(np.float32)
    given = {"config": CONFIG, "calibration": [{"image": images}]}
    here = tvm_ffn.compile(model, **given)
    kernels = {row.name: row.kernel for row in here.report.layers}
    assert sum(kernel == "int8" for kernel in kernels.values()) >= 3
    (logits,) = here.run({"image": images})
    tvm_ffn.compile(model, f"llvm -mtriple=aarch64 -mcpu={cpu}", **given).save(tmp_path / "net")
    qemu, *command = aarch64_runner
    np.testing.assert_array_equal(run_model(images, tmp_path / "net", qemu, "-cpu", cpu, *command), logits)
