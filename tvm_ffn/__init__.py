"""tvm_ffn: ternary factorised CNN inference on TVM.

``compile`` turns an ONNX model into a deployable :class:`Module` whose convolutions and dense layers are
``W ~ X diag(d) Y^T`` with X and Y in {-1, 0, 1} (arXiv 1611.01972). Public names are loaded on first use, so that
``import tvm_ffn`` is quick and a device without the compiler library can ``load`` and run.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tvm_ffn.errors import FFNError
from tvm_ffn.version import __version__

if TYPE_CHECKING:
    from tvm_ffn.compiler import Quantized, compile, quantize
    from tvm_ffn.config import FFNConfig, LayerConfig
    from tvm_ffn.factorize import Factors, factorize
    from tvm_ffn.plan import Plan
    from tvm_ffn.report import Report
    from tvm_ffn.runtime import Module, load
    from tvm_ffn.tuner import TuningResult, tune

__all__ = [
    "FFNConfig",
    "FFNError",
    "Factors",
    "LayerConfig",
    "Module",
    "Plan",
    "Quantized",
    "Report",
    "TuningResult",
    "__version__",
    "compile",
    "factorize",
    "load",
    "quantize",
    "tune",
]

_HOMES = {
    "compile": "tvm_ffn.compiler",
    "quantize": "tvm_ffn.compiler",
    "Quantized": "tvm_ffn.compiler",
    "Plan": "tvm_ffn.plan",
    "load": "tvm_ffn.runtime",
    "Module": "tvm_ffn.runtime",
    "FFNConfig": "tvm_ffn.config",
    "LayerConfig": "tvm_ffn.config",
    "Report": "tvm_ffn.report",
    "Factors": "tvm_ffn.factorize",
    "tune": "tvm_ffn.tuner",
    "TuningResult": "tvm_ffn.tuner",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tvm_ffn' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps ``tvm_ffn.factorize`` the public function.

    The subpackage of the same name would take its place: importing a submodule assigns it to the parent package.
    """

    @property
    def factorize(self) -> Any:
        return importlib.import_module("tvm_ffn.factorize").factorize

    @factorize.setter
    def factorize(self, value: Any) -> None:
        if value is not sys.modules.get("tvm_ffn.factorize"):
            raise AttributeError("tvm_ffn.factorize is a public function and cannot be replaced")


sys.modules[__name__].__class__ = _Package
