"""Where candidates are measured: TVM's RPC servers, one on this machine or those that a tracker knows.

Also this machine is reached by RPC: a candidate that crashes or hangs takes its session with it, not the search.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from typing import Any, Protocol

from tvm_ffn.errors import ConfigError

CONNECT_SECONDS = 5
SESSION_SECONDS = 60  # after which a server ends a session
PORTS = (9190, 9590)  # of the local server: the first that is free


class Boards(Protocol):
    """One or more machines of the same kind."""

    count: int

    def session(self) -> Any:
        """A new RPC session on a free machine; waits for one."""

    def failed(self) -> None:
        """Said after a session that did not end well."""


class TrackedBoards:
    """The servers that registered with the tracker at ``address`` ("host:port") under ``key``."""

    def __init__(self, address: str, key: str) -> None:
        from tvm import rpc

        host, colon, port = address.rpartition(":")
        if not colon or not port.isdigit():
            raise ConfigError(f"an RPC tracker is given as host:port, not {address!r}")
        self.host, self.port, self.key = host, int(port), key
        try:
            # TVM itself would try again for a minute.
            socket.create_connection((self.host, self.port), timeout=CONNECT_SECONDS).close()
            servers = rpc.connect_tracker(self.host, self.port).summary()["server_info"]
        except (OSError, RuntimeError) as error:
            raise ConfigError(f"no RPC tracker answers at {address}: {error}") from error
        self.count = sum(server["key"] == f"server:{key}" for server in servers)
        if not self.count:
            known = sorted({server["key"].removeprefix("server:") for server in servers})
            raise ConfigError(f"the tracker at {address} knows no server of key {key!r}; its keys: {known}")

    def session(self) -> Any:
        """A connection of its own to the tracker: one is not made for several threads."""
        from tvm import rpc

        return rpc.connect_tracker(self.host, self.port).request(self.key, session_timeout=SESSION_SECONDS)

    def failed(self) -> None:
        """The boards are somebody else's."""


class LocalBoard:
    """A server on this machine that listens to itself only, its kernels on ``threads`` threads; to be closed."""

    count = 1

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._start()

    def session(self) -> Any:
        """A new session."""
        from tvm import rpc

        return rpc.connect("127.0.0.1", self.server.port, session_timeout=SESSION_SECONDS)

    def failed(self) -> None:
        """TVM's server does not outlive a session that crashed: another takes its place."""
        self.close()
        self._start()

    def close(self) -> None:
        """End the server."""
        self.server.terminate()

    def _start(self) -> None:
        from tvm import rpc

        before = os.environ.get("TVM_NUM_THREADS")
        os.environ["TVM_NUM_THREADS"] = str(self.threads)
        try:
            self.server = rpc.Server("127.0.0.1", *PORTS, silent=True)
        finally:
            if before is None:
                del os.environ["TVM_NUM_THREADS"]
            else:
                os.environ["TVM_NUM_THREADS"] = before


@contextlib.contextmanager
def local_board(threads: int) -> Iterator[LocalBoard]:
    """A `LocalBoard`, closed afterwards."""
    board = LocalBoard(threads)
    try:
        yield board
    finally:
        board.close()
