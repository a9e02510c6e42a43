"""A Python for aarch64 with TVM's runtime, run by qemu: a board that is always there, for tests of tuning.

    dpkg --add-architecture arm64 && apt-get update && apt-get install qemu-user-static
    python tests/tuning/arm_python.py FOLDER      # some 150 MB are downloaded; FOLDER/python is the interpreter

Packages come from Debian 12, whose Python is the version that TVM's wheels are taken for, and from PyPI.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import version
from pathlib import Path

PYTHON = "3.11"
DEBIAN = (
    *(f"python{PYTHON}-minimal", f"libpython{PYTHON}-minimal", f"libpython{PYTHON}-stdlib"),
    *("libc6", "libgcc-s1", "libstdc++6", "zlib1g", "libexpat1", "libffi8", "libssl3", "libbz2-1.0", "liblzma5"),
    *("libuuid1", "libsqlite3-0", "libcrypt1", "libtirpc3", "libnsl2"),
)
PINNED = ("apache-tvm", "apache-tvm-ffi", "numpy", "ml_dtypes", "psutil", "cloudpickle", "tornado", "typing_extensions")
# Workers are started by ``sys.executable``: a script on this machine, as the interpreter itself only runs in qemu.
LAUNCHER = """#!/bin/sh
root=$(dirname "$(readlink -f "$0")")
exec qemu-aarch64-static -L "$root" -E TVM_USE_RUNTIME_LIB=1 -E PYTHONPATH="$root/site" \\
    "$root/usr/bin/python{python}" "$@"
"""
SITE = """import os
import sys

sys.executable = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "python")
"""


def install(folder: Path) -> Path:
    """Download and unpack everything into ``folder``; returns its interpreter."""
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as name:
        downloads = Path(name)
        packages = [f"{package}:arm64" for package in DEBIAN]
        subprocess.run(["apt-get", "download", "-qq", *packages], cwd=downloads, check=True)
        for package in downloads.glob("*.deb"):
            subprocess.run(["dpkg-deb", "--extract", package, folder], check=True)
        platforms = [f"--platform=manylinux_2_{minor}_aarch64" for minor in (28, 27, 24, 17)]
        wheels = [f"{package}=={version(package)}" for package in PINNED]
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", *platforms]
        subprocess.run([*pip, f"--python-version={PYTHON}", f"--dest={downloads}", *wheels], check=True)
        for wheel in downloads.glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(folder / "site")
    (folder / "site" / "tvm" / "lib" / "libtvm_compiler.so").unlink()
    (folder / "site" / "sitecustomize.py").write_text(SITE)
    interpreter = folder / "python"
    interpreter.write_text(LAUNCHER.format(python=PYTHON))
    interpreter.chmod(0o755)
    return interpreter


if __name__ == "__main__":
    print(install(Path(sys.argv[1])))
