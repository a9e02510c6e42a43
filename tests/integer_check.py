"""Compile a small model and check the integer graph against its oracle, the fp32 model and its report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
import tvm
from tvm import relax

from tvm_ffn import targets
from tvm_ffn.config import FFNConfig, LayerConfig
from tvm_ffn.importer import load_model
from tvm_ffn.manifest import TensorInfo
from tvm_ffn.oracle import Oracle
from tvm_ffn.pipeline import Compilation, run
from tvm_ffn.report import Report
from tvm_ffn.summary import summarize

CHEAP = FFNConfig(rank_ratio=0.7, rounds=1, sweeps=1, calibration_rows=500, threads=1)
INT8 = CHEAP.replace(layers={"re:.*": LayerConfig(precision="int8")})
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Built:
    """A compiled model with one run's inputs and outputs."""

    model: onnx.ModelProto
    compilation: Compilation
    report: Report
    inputs: Arrays
    outputs: list[np.ndarray]

    @property
    def calls(self) -> list[tuple[str, str, str]]:
        """(operator, kernel or "", dtype) of every call in the integer graph, in order."""
        found = []
        for binding in self.compilation.integer["main"].body.blocks[0].bindings:
            call = binding.value
            if isinstance(call, relax.Call):
                operator = call.op.name.removeprefix("relax.")
                kernel = call.args[0].name_hint.rstrip("0123456789") if operator == "call_tir" else ""
                found.append((operator, kernel, str(getattr(binding.var.ty, "dtype", ""))))
        return found

    @property
    def kernels(self) -> list[str]:
        return [kernel for _, kernel, _ in self.calls if kernel]

    @property
    def float_operators(self) -> list[str]:
        return [operator for operator, kernel, dtype in self.calls if not kernel and dtype != "int8"]

    @property
    def oracle(self) -> list[np.ndarray]:
        return Oracle(self.compilation.integer, self.compilation.record.operators).run(self.inputs)

    @property
    def errors(self) -> list[float]:
        """Relative error of each output against onnxruntime's fp32."""
        session = onnxruntime.InferenceSession(self.model.SerializeToString(), providers=["CPUExecutionProvider"])
        expected = session.run(None, self.inputs)
        pairs = list(zip(self.outputs, expected, strict=True))
        assert all(out.shape == want.shape and out.dtype == want.dtype for out, want in pairs)
        return [relative_error(out, want) for out, want in pairs]


def relative_error(value: np.ndarray, expected: np.ndarray) -> float:
    """Norm of the difference over the norm of what is expected."""
    difference = np.linalg.norm(value.astype(np.float64) - expected)
    return float(difference / max(np.linalg.norm(expected.astype(np.float64)), 1e-9))


def noise(inputs: Iterable[TensorInfo], runs: int) -> Arrays:
    """Standard normal inputs for ``runs`` runs."""
    rng = np.random.default_rng(1)
    return {
        info.name: rng.standard_normal((runs * batch_of(info), *info.shape[1:])).astype(np.float32) for info in inputs
    }


def batch_of(info: TensorInfo) -> int:
    """Samples of one run."""
    return info.shape[0] if isinstance(info.shape[0], int) else 1


def build(model: onnx.ModelProto, config: FFNConfig = INT8, calibration: Any = None, runs: int = 24) -> Built:
    """Compile for this machine, calibrated on noise unless data is given, and run the first calibration sample.

    Asserts what holds for every model: each integer kernel computes what its NumPy reference does, on the inputs it
    meets in this run; every TensorIR function is scheduled; every layer has a row, and a reason unless factorised.
    """
    imported = load_model(model)
    data = noise(imported.inputs, runs) if calibration is None else calibration
    compilation = run(Compilation(model, targets.parse_target("llvm"), config, data))
    c = compilation
    report = summarize(
        c.quantized,
        c.record.linear,
        tasks=c.tasks,
        tuning=c.tuning,
        operators=c.operators,
        packed=c.packed,
        model="",
        target="",
        warnings=(),
    )
    inputs = {info.name: data[info.name][: batch_of(info)] for info in imported.inputs}
    built = Built(model, compilation, report, inputs, _run(compilation, inputs))
    for var, function in compilation.mod.functions_items():
        scheduled = not isinstance(function, tvm.tirx.PrimFunc) or function.attrs.get("tirx.is_scheduled", False)
        assert scheduled, f"{var.name_hint} has no schedule"
    assert [row.name for row in report.layers] == layers_of(model)
    assert all(row.reason for row in report.layers if row.kind != "ternary")
    return built


def layers_of(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes with a constant weight."""
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {node.output[0] for node in model.graph.node if set(node.input) <= constants}
    return [node.name for node in model.graph.node if node.op_type in LAYERS and constants & set(node.input[:2])]


def _run(compilation: Compilation, inputs: Arrays) -> list[np.ndarray]:
    """Outputs of the virtual machine; every integer kernel is compared with its reference on the way."""
    operators = compilation.record.operators
    wrong: list[str] = []

    def compare(_function: Any, name: str, before_run: bool, _result: Any, *arguments: Any) -> None:
        if not before_run and name in operators:
            *operands, result = (argument.numpy() for argument in arguments)
            if not np.array_equal(operators[name].reference(*operands), result):
                wrong.append(name)

    machine = relax.VirtualMachine(compilation.executable, tvm.cpu())
    machine.set_instrument(compare)
    parameters = compilation.imported.mod["main"].params
    result = machine["main"](*(tvm.runtime.tensor(inputs[parameter.name]) for parameter in parameters))
    assert not wrong, f"not what the references compute: {wrong}"
    return [result.numpy()] if hasattr(result, "numpy") else [part.numpy() for part in result]
