"""Operators to libraries in a process of its own: of what MetaSchedule thinks of, some keeps LLVM busy for minutes."""

from __future__ import annotations

import tvm
from tvm.support.popen_pool import PopenPoolExecutor

from tvm_ffn import targets
from tvm_ffn.tuning.quick_import import import_intrinsics

BUILD_SECONDS = 20


class CompileWorker:
    """The process starts with the first library, and again after one that took longer than `BUILD_SECONDS`."""

    def __init__(self) -> None:
        self.pool = PopenPoolExecutor(max_workers=1, timeout=BUILD_SECONDS, initializer=import_intrinsics)

    def build(self, mod: tvm.IRModule, target: tvm.target.Target, path: str) -> None:
        """Write the library of a scheduled module; a TimeoutError or what TVM raises."""
        self.pool.submit(_build, tvm.ir.save_json(mod), targets.target_dict(target), path).result()


def _build(mod: str, target: dict[str, object], path: str) -> None:
    own = targets.parse_target(target)
    tvm.compile(tvm.ir.load_json(mod), target=own).export_library(path, fcompile=targets.cross_compiler(own))
