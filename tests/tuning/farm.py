"""A tracker and servers on this machine, as a farm of boards would have them.

python tests/tuning/farm.py --servers 2 --key boards      # prints the tracker's address, ends with Ctrl-C
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

SECONDS = 60  # until all servers have registered


@contextlib.contextmanager
def farm(servers: int, key: str) -> Iterator[str]:
    """Start a tracker and ``servers`` servers of one thread; give the tracker's "host:port" once all are there."""
    port = _free_port()
    address = f"127.0.0.1:{port}"
    tracker = ["rpc_tracker", "--host=127.0.0.1", f"--port={port}", f"--port-end={port + 1}", "--silent"]
    server = ["rpc_server", "--host=127.0.0.1", f"--tracker={address}", f"--key={key}", "--silent"]
    processes = []
    try:
        processes.append(_start(tracker))
        for _ in range(servers):
            start = _free_port()
            processes.append(_start([*server, f"--port={start}", f"--port-end={start + 1}"]))
        _wait(port, key, servers)
        yield address
    finally:
        for process in processes:
            _end(process)


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", f"tvm.exec.{command[0]}", *command[1:]], stderr=subprocess.DEVNULL)


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


def _wait(port: int, key: str, servers: int) -> None:
    from tvm import rpc

    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, RuntimeError):
            known = rpc.connect_tracker("127.0.0.1", port).summary()["server_info"]
            if sum(server["key"] == f"server:{key}" for server in known) == servers:
                return
        time.sleep(0.2)
    raise TimeoutError(f"{servers} servers did not register within {SECONDS} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", type=int, default=2)
    parser.add_argument("--key", default="boards")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt), farm(options.servers, options.key) as started:
        print(f"tracker at {started}, key {options.key}", flush=True)
        signal.pause()
