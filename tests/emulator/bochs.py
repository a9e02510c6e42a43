"""A processor with AVX-512 and VNNI that is always there: Debian's Linux in the emulator Bochs (PACKAGES).

    make test-emulated

Code runs some hundred times slower than on a processor: for small kernels and networks. What has no result in the end
(an instruction that the processor lacks, a wrong address) ends in an AssertionError with what the program printed.
"""

from __future__ import annotations

import atexit
import functools
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from tvm.support import cc

from tvm_ffn import host, targets

SWITCH = "TVM_FFN_EMULATE"  # an environment variable: tests of code that does not run here use the emulator
LACKS = {"avxvnni", "gfni"}  # of the features that targets may have (Bochs 2.7: gf2p8affineqb inverts what it gives)
PACKAGES = "bochs busybox-static cpio isolinux linux-image-cloud-amd64 syslinux-common xorriso"
BOOT_LOADER = "/usr/lib/ISOLINUX/isolinux.bin"
HERE = Path(__file__).parent
MIB = 2**20
ANSWER = 256 * MIB  # where the guest writes, as in guest.sh
BOOT_SECONDS, JOB_SECONDS = 300, 1200

BOCHSRC = """\
cpu: model=corei7_icelake_u, count=1, ips=50000000
memory: guest=1024, host=1024
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
ata0: enabled=1
ata0-master: type=disk, path=disk, mode=flat
ata0-slave: type=cdrom, path=boot.iso, status=inserted
boot: cdrom
display_library: rfb, options="timeout=0"
com1: enabled=1, mode=file, dev=console
clock: sync=none
log: bochs.log
panic: action=fatal
error: action=ignore
"""
# Bochs 2.7 has "fast short rep mov" without "enhanced rep movsb", which Linux's memmove does not expect, and states
# the size of the plain register image where the compact one's is asked for.
ISOLINUX = """\
DEFAULT linux
LABEL linux
KERNEL /vmlinuz
APPEND initrd=/initrd console=ttyS0 quiet mitigations=off audit=0 nosmp nohpet clearcpuid=fsrm,xsaves,xsavec,pku,ospke
"""


def runs(target: tvm.target.Target) -> bool:
    """Whether code for ``target`` is to run in the emulator."""
    return (
        bool(os.environ.get(SWITCH))
        and host.machine() == "x86_64" == host.architecture(targets.triple_of(target))
        and not LACKS & set(targets.required_features(target))
    )


def call(library: Any, runs: Mapping[str, Sequence[np.ndarray]], out: np.ndarray) -> dict[str, np.ndarray]:
    """The kernel's result, of ``out``'s shape and dtype, for every run's arguments."""
    with tempfile.TemporaryDirectory() as scratch:
        job = Path(scratch)
        library.export_library(str(job / "kernel.so"), fcompile=cc.create_shared)
        _skip_if_refused(job / "kernel.so")
        calls = []
        for number, arguments in enumerate(runs.values()):
            words = [_word(job, f"{number}-{i}.bin", value) for i, value in enumerate(arguments)]
            calls.append(" ".join([*words, _word(job, f"results/{number}.bin", out)]))
        machine().run(job, f"exec call_kernel ./kernel.so {' -- '.join(calls)}")
        return {
            name: np.fromfile(job / f"results/{number}.bin", out.dtype).reshape(out.shape)
            for number, name in enumerate(runs)
        }


def _skip_if_refused(library: Path) -> None:
    """Bochs 2.7 takes scatters with an index in one of the upper 16 registers for no instructions."""
    disassembled = subprocess.run(["objdump", "-d", library], check=True, capture_output=True, text=True).stdout
    if re.search(r"scatter.*,%[yz]mm(1[6-9]|[23]\d),", disassembled):
        pytest.skip("Bochs 2.7 refuses an instruction of this kernel: vscatter with an upper index register")


def _word(job: Path, name: str, value: np.ndarray) -> str:
    path = job / name
    path.parent.mkdir(exist_ok=True)
    np.ascontiguousarray(value).tofile(path)
    return f"{value.dtype}:{','.join(map(str, value.shape))}:{name}"


@functools.cache
def machine() -> Machine:
    """The emulated machine of this process."""
    return Machine()


class Machine:
    """A booted guest; ``run`` gives it a folder and a shell command, and takes the folder's ``results`` back."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tvm_ffn-bochs-"))
        self.jobs = 0
        _image(self.folder)
        with (self.folder / "disk").open("wb") as disk:
            disk.truncate(2 * ANSWER // (16 * 63 * 512) * (16 * 63 * 512))  # whole cylinders
        (self.folder / "bochsrc").write_text(BOCHSRC)
        (self.folder / "continue").write_text("c\n")  # Debian's build starts in its debugger
        command = ["bochs-bin", "-q", "-f", "bochsrc", "-rc", "continue"]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, cwd=self.folder, **quiet)
        atexit.register(self.close)

    def run(self, folder: Path, command: str) -> str:
        """Run ``command`` in a copy of ``folder`` without its ``results``, which come back; gives what it printed."""
        (folder / "run").write_text(command)
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w", format=tarfile.GNU_FORMAT) as tar:
            tar.add(folder, ".")
        seconds = JOB_SECONDS if self.jobs else BOOT_SECONDS + JOB_SECONDS
        self.jobs += 1
        job = archive.getvalue()
        assert len(job) < ANSWER - MIB, f"{folder} is too large for the emulated disk"
        with (self.folder / "disk").open("r+b") as disk:
            disk.seek(MIB)
            disk.write(job)
            disk.flush()
            disk.seek(0)
            disk.write(f"{self.jobs} {len(job)}".encode().ljust(512, b"\0"))
        with tarfile.open(fileobj=io.BytesIO(self._answer(time.monotonic() + seconds))) as tar:
            tar.extractall(folder, filter="data")
        output = (folder / "output").read_text(errors="replace")
        assert (folder / "status").read_text().strip() == "0", f"in the emulator: {output}"
        return output

    def _answer(self, deadline: float) -> bytes:
        while True:
            with (self.folder / "disk").open("rb") as disk:
                disk.seek(512)
                number, size, *_ = (*disk.read(512).strip(b"\0 ").split(), b"0", b"0")
                if int(number) == self.jobs:
                    disk.seek(ANSWER)
                    return disk.read(int(size))
            assert self.process.poll() is None and time.monotonic() < deadline, self._console()
            time.sleep(0.02)

    def _console(self) -> str:
        console = self.folder / "console"
        return "the emulated machine does not answer:\n" + (
            console.read_text(errors="replace") if console.exists() else ""
        )

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder)


def _image(folder: Path) -> None:
    """Write ``boot.iso``: the kernel, its disk drivers, busybox, the programs and what they are linked with."""
    kernels, programs = sorted(Path("/boot").glob("vmlinuz-*-cloud-amd64")), ("bochs-bin", "busybox", "cpio", "xorriso")
    if not kernels or not all(map(shutil.which, programs)) or not Path(BOOT_LOADER).exists():
        pytest.fail(f"the emulated machine is made of Debian's packages: apt-get install {PACKAGES}")
    kernel = kernels[-1]
    drivers = Path("/usr/lib/modules") / kernel.name.removeprefix("vmlinuz-") / "kernel" / "drivers"
    root, iso = folder / "root", folder / "iso"
    for name in ("bin", "dev", "job", "lib", "lib64", "modules", "proc"):
        (root / name).mkdir(parents=True)
    shutil.copy(HERE / "guest.sh", root / "init")
    (root / "init").chmod(0o755)
    for module in drivers.glob("scsi/s[cd]_mod.ko"), drivers.glob("scsi/scsi_*.ko"), drivers.glob("ata/*ata*.ko"):
        for path in module:
            shutil.copy(path, root / "modules")
    shutil.copy("/bin/busybox", root / "bin")
    subprocess.run([root / "bin" / "busybox", "--install", "-s", root / "bin"], check=True)
    for link in (root / "bin").iterdir():
        if link.is_symlink():
            link.unlink()
            link.symlink_to("busybox")
    for program in _programs(folder / "programs"):
        shutil.copy(program, root / "bin")
        for line in subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout.splitlines():
            paths = [word for word in line.split() if word.startswith("/")]
            if paths:
                shutil.copy(paths[0], root / ("lib64" if "ld-linux" in paths[0] else "lib"))
    names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
    (iso / "isolinux").mkdir(parents=True)
    with (iso / "initrd").open("wb") as initrd:
        subprocess.run(
            ["cpio", "--quiet", "-o", "-H", "newc"], cwd=root, input=names.encode(), stdout=initrd, check=True
        )
    shutil.copy(kernel, iso / "vmlinuz")
    shutil.copy(BOOT_LOADER, iso / "isolinux")
    shutil.copy("/usr/lib/syslinux/modules/bios/ldlinux.c32", iso / "isolinux")
    (iso / "isolinux" / "isolinux.cfg").write_text(ISOLINUX)
    boot = "-b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot -boot-load-size 4 -boot-info-table"
    command = ["xorriso", "-as", "mkisofs", "-quiet", "-o", folder / "boot.iso", *boot.split(), iso]
    subprocess.run(command, check=True, capture_output=True)


def _programs(folder: Path) -> list[Path]:
    """``call_kernel`` and the runner of artefacts, built for any x86-64."""
    folder.mkdir()
    cmake = (sys.executable, "-m", "cmake")
    configure = (*cmake, "-S", HERE, "-B", folder, f"-DPython_EXECUTABLE={sys.executable}")
    for command in configure, (*cmake, "--build", folder):
        subprocess.run(command, check=True, capture_output=True)
    return [folder / "call_kernel", folder / "runner" / "tvm-ffn-runner"]
