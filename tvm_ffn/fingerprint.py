"""The hash of everything a solution depends on: canonical model, settings, calibration data, the solver itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvm_ffn.config import FFNConfig, LayerConfig
from tvm_ffn.graph import Network

SOLVER_VERSION = 15  # raise it with every change that gives other factors or scales, or another record
# Settings of the solver's speed, of later steps, resolved ones.
_WITHOUT_EFFECT = ("threads", "optimize", "code_bytes", "layers")


def solution_key(
    mod: tvm.IRModule,
    network: Network,
    config: FFNConfig,
    layers: Mapping[str, LayerConfig | None],
    batches: Iterable[Mapping[str, np.ndarray]],
) -> str:
    """SHA-256 as hexadecimal digits.

    ``network``: the units that cover ``mod``; ``layers``: the resolved settings; ``batches``: the calibration data.
    """
    digest = hashlib.sha256()
    settings = {key: value for key, value in config.to_dict().items() if key not in _WITHOUT_EFFECT}
    resolved = [(name, None if layer is None else layer.to_dict()) for name, layer in layers.items()]
    units = [(unit.kind, unit.output.name, [var.name for var in unit.reads]) for unit in network.units]
    digest.update(json.dumps([SOLVER_VERSION, settings, resolved, units], sort_keys=True).encode())
    digest.update(mod.script(show_meta=False).encode())
    for constant in _constants(mod["main"]):
        _add_array(digest, constant)
    for batch in batches:
        for name in sorted(batch):
            digest.update(name.encode())
            _add_array(digest, batch[name])
    return digest.hexdigest()


def _constants(function: relax.Function) -> list[np.ndarray]:
    """Values of all constants, in the order of the graph (its text has them as references)."""
    found: list[np.ndarray] = []

    def note(expr: relax.Expr) -> None:
        if isinstance(expr, tvm.ir.GenericConst):
            found.append(expr.value.numpy())

    relax.analysis.post_order_visit(function, note)
    return found


def _add_array(digest: Any, array: np.ndarray) -> None:
    digest.update(f"{array.dtype}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array))
