"""Tuning through TVM's RPC tracker, on one server and on two."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest
from farm import ARM_KEY, farm
from tasks import planes

import tvm_ffn
from tvm_ffn import targets
from tvm_ffn.errors import ConfigError
from tvm_ffn.kernel_plan import default_plan
from tvm_ffn.tuning.boards import TrackedBoards
from tvm_ffn.tuning.builder import Built, CandidateBuilder
from tvm_ffn.tuning.runner import Bench
from tvm_ffn.tuning.space import space_of
from tvm_ffn.tuning.workload import decide, workload

EXAMPLES = Path(__file__).parents[2] / "examples"
KEY = "test-boards"


def sleeping(session: object, built: list[Built]) -> list[float]:
    """Holds a board as long as a measurement would."""
    time.sleep(0.3)
    return [1.0] * len(built)


def seconds_for(address: str, count: int, built: Built) -> float:
    bench = Bench(TrackedBoards(address, KEY), sleeping)
    start = time.monotonic()
    results = [bench.submit([built]) for _ in range(count)]
    assert all(not result.result().error for result in results)
    bench.close()
    return time.monotonic() - start


def test_two_servers_measure_twice_as_much(tmp_path: Path) -> None:
    from tvm import s_tir

    target = targets.parse_target("llvm")
    plan = default_plan(target)
    space = space_of(planes(), plan)
    built = CandidateBuilder(target, plan).build(decide(s_tir.Schedule(workload(planes())), space, space.default).mod)
    with farm(1, KEY) as address:
        assert TrackedBoards(address, KEY).count == 1
        one = seconds_for(address, 12, built)
    with farm(2, KEY) as address:
        assert TrackedBoards(address, KEY).count == 2
        two = seconds_for(address, 12, built)
        result = tvm_ffn.tune(
            EXAMPLES / "digits.onnx", work_dir=tmp_path / "d", trials=2, rpc_tracker=address, rpc_key=KEY
        )
    assert one > 1.6 * two
    assert not result.errors and all(outcome.failures == 0 for outcome in result.outcomes)
    assert sum(outcome.tuned is not None for outcome in result.outcomes) > 3
    Path(built.path).unlink()
    Path(built.path).parent.rmdir()


def test_a_server_for_aarch64_under_qemu(tmp_path: Path) -> None:
    folder = os.environ.get("TVM_FFN_ARM_PYTHON")
    if folder is None:
        pytest.skip("needs TVM_FFN_ARM_PYTHON, a folder that tests/tuning/arm_python.py filled")
    target = "llvm -mtriple=aarch64 -mcpu=cortex-a72"
    with farm(1, KEY, Path(folder) / "python") as address:
        result = tvm_ffn.tune(
            EXAMPLES / "digits.onnx", target, work_dir=tmp_path, trials=2, rpc_tracker=address, rpc_key=ARM_KEY
        )
    assert not result.errors and all(outcome.failures == 0 for outcome in result.outcomes)
    assert sum(outcome.tuned is not None for outcome in result.outcomes) > 3


@pytest.mark.parametrize("address", ["127.0.0.1", "nowhere:port"])
def test_an_address_has_a_port(address: str) -> None:
    with pytest.raises(ConfigError, match="host:port"):
        TrackedBoards(address, KEY)


def test_nobody_at_the_address() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(ConfigError, match="no RPC tracker answers"):
        TrackedBoards(f"127.0.0.1:{port}", KEY)


def test_a_key_that_nobody_has() -> None:
    with farm(0, KEY) as address, pytest.raises(ConfigError, match="no server of key 'other'"):
        TrackedBoards(address, "other")


def test_tracker_and_key_belong_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="together"):
        tvm_ffn.tune(EXAMPLES / "digits.onnx", work_dir=tmp_path, rpc_tracker="127.0.0.1:9190")
