"""A tracker and servers on this machine, as a farm of boards would have them.

python tests/tuning/farm.py --servers 2 --key boards      # prints the tracker's address, ends with Ctrl-C
python tests/tuning/farm.py --servers 1 --arm FOLDER      # and one for aarch64 under qemu, its key "aarch64"
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ARM_KEY = "aarch64"
SECONDS = 120  # until all servers have registered


@contextlib.contextmanager
def farm(servers: int, key: str, arm: Path | None = None) -> Iterator[str]:
    """Start a tracker and ``servers`` servers; give the tracker's "host:port" once all are there. ``arm`` is an
    interpreter that `arm_python` installed: it runs one more server, of the key `ARM_KEY`."""
    port = _free_port()
    address = f"127.0.0.1:{port}"
    tracker = ["rpc_tracker", "--host=127.0.0.1", f"--port={port}", f"--port-end={port + 1}", "--silent"]
    interpreters = [(sys.executable, key)] * servers + ([(str(arm), ARM_KEY)] if arm is not None else [])
    processes = []
    try:
        processes.append(_start(sys.executable, tracker))
        for interpreter, own in interpreters:
            start = _free_port()
            server = ["rpc_server", "--host=127.0.0.1", f"--tracker={address}", f"--key={own}", "--silent"]
            processes.append(_start(interpreter, [*server, f"--port={start}", f"--port-end={start + 1}"]))
        _wait(port, [own for _, own in interpreters])
        yield address
    finally:
        for process in processes:
            _end(process)


def _start(interpreter: str, command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([interpreter, "-m", f"tvm.exec.{command[0]}", *command[1:]], stderr=subprocess.DEVNULL)


def _end(process: subprocess.Popen[bytes]) -> None:
    """With the workers it started."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
    process.kill()
    process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(port: int, keys: list[str]) -> None:
    from tvm import rpc

    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, RuntimeError):
            known = rpc.connect_tracker("127.0.0.1", port).summary()["server_info"]
            if sorted(server["key"] for server in known) == sorted(f"server:{key}" for key in keys):
                return
        time.sleep(0.2)
    raise TimeoutError(f"{len(keys)} servers did not register within {SECONDS} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", type=int, default=2)
    parser.add_argument("--key", default="boards")
    parser.add_argument("--arm", type=Path, metavar="FOLDER", help="that tests/tuning/arm_python.py filled")
    options = parser.parse_args()
    with (
        contextlib.suppress(KeyboardInterrupt),
        farm(options.servers, options.key, options.arm and options.arm / "python") as address,
    ):
        print(f"tracker at {address}", flush=True)
        signal.pause()
