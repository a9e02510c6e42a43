"""The package's layers, checked on its sources: a file imports from lower layers and its own folder only."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "tvm_ffn"

# Lowest first. A new module or folder of tvm_ffn takes its place here; two on one line never import each other.
LAYERS = (
    ("errors", "progress", "suggest", "host", "version"),
    ("atomic", "text_table"),
    ("json_file", "array_file", "packing"),
    ("config", "target_names", "manifest", "report", "comparison"),
    ("targets", "feeds", "parallel", "cache", "plan", "diagnosis"),
    ("runtime", "artifact"),
    ("factorize", "graph", "kernel_plan", "preprocess", "samples", "numpy_conv", "batching"),
    ("onnx_one_row",),
    (
        "onnx_float16",
        "onnx_constants",
        "onnx_forms",
        "onnx_pool",
        "onnx_resize",
        "onnx_sizes",
        "onnx_transposed",
        "onnx_windows",
    ),
    ("onnx_reader", "onnx_frontend", "unit_kinds", "equalize"),
    ("zero_points",),
    (
        "numpy_ops",
        "calibration",
        "fingerprint",
        "ranges",
        "layer_rows",
        "solution",
        "kernels",
        "placement",
        "unit_rows",
    ),
    ("interpreter", "matcher", "solution", "cost", "forms"),
    ("oracle", "observation", "solution_record", "layer_fit"),
    ("network_solver", "sensitivity", "sharing"),
    ("planner",),
    ("budget",),
    ("passes", "schedules"),
    ("importer", "tuning"),
    ("summary",),
    ("pipeline",),
    ("synthetic",),
    ("compiler", "verify", "bench"),
    ("network_play_off",),
    ("tuner",),
    ("commands",),
    ("cli",),
    ("__init__", "__main__"),
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
DEVICE_SIDE = {name for layer in LAYERS[:4] for name in layer} - {"config", "target_names", "comparison"} | {
    "feeds",
    "runtime",
}
FILES = sorted(path for pattern in ("*.py", "*/*.py", "*/*/*.py") for path in PACKAGE.glob(pattern))


def component(path: Path) -> str:
    """The module or folder directly under ``tvm_ffn`` that a file belongs to."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path) -> Iterator[str]:
    """Dotted names of all that a file imports, inside functions too; ``from tvm_ffn import x`` gives ``tvm_ffn.x``."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_downwards(path: Path) -> None:
    own = component(path)
    assert own in RANK, f"{own} has no layer yet: name it in LAYERS of this test"
    for name in imports(path):
        top, *rest = name.split(".")
        assert top, f"{path.name}: relative import {name}"
        assert top not in {"passes", "schedules", "kernels", "factorize"}, f"{path.name}: import tvm_ffn.{name} instead"
        if top == "tvm_ffn" and rest and rest[0] != own:
            assert rest[0] in RANK, f"{path.name} imports {name}, which has no layer: name it in LAYERS of this test"
            assert RANK[rest[0]] < RANK[own], f"{path.name} imports {name}: {own} is not above {rest[0]}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_tvm_is_needed_where(path: Path) -> None:
    own = component(path)
    for name in imports(path):
        top = name.split(".")[0]
        if own == "factorize":
            assert top != "tvm" and (top != "tvm_ffi" or path.name == "native.py"), f"{path.name} imports {name}"
        if own in DEVICE_SIDE:
            allowed = top in {"__future__", "numpy", "tqdm", "tvm_ffi", "tvm_ffn", *sys.stdlib_module_names}
            assert allowed or name.startswith("tvm.runtime"), f"{path.name} imports {name}, absent on a device"
            assert top != "tvm_ffn" or name.split(".")[1] in DEVICE_SIDE, f"{path.name} imports {name}"
