"""The decisions that compilation starts from: those of a folder that `tune` filled, or those that ship.

``shipped/<architecture>-<vector bytes>.json`` holds the tasks of common networks, tuned on one processor of the kind.
"""

from __future__ import annotations

import os
from pathlib import Path

import tvm

from tvm_ffn import targets
from tvm_ffn.errors import ConfigError
from tvm_ffn.tuning.database import check_target
from tvm_ffn.tuning.table import TABLE_FILE, TunedTable

SHIPPED = Path(__file__).with_name("shipped")


def tuned_table(target: tvm.target.Target, folder: str | os.PathLike[str] | None) -> TunedTable:
    """The table of a folder, or the package's for ``target``, empty where there is none. A folder that was not tuned,
    or not for this target, is a ConfigError."""
    if folder is None:
        return TunedTable.read(SHIPPED / f"{targets.architecture(target)}-{targets.vector_bytes(target)}.json")
    path = Path(folder)
    if not path.is_dir():
        raise ConfigError(f"the tuning folder {path} does not exist: fill it with tvm-ffn tune")
    check_target(path, target)
    return TunedTable.read(path / TABLE_FILE)
