"""The peers of a whole model: onnxruntime and OpenVINO, fp32 and int8, as functions that run one sample.

int8 is onnxruntime's static quantisation to a QDQ graph (weights int8 per channel, activations uint8: the fastest form
for both), which OpenVINO reads too; where NNCF is installed, OpenVINO's int8 model can be NNCF's instead.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.version_converter

Inputs = Mapping[str, np.ndarray]
Run = Callable[[], Any]
PER_CHANNEL_OPSET = 13  # the first whose DequantizeLinear knows an axis
QUANTIZERS = ("NNCF", "QDQ") if importlib.util.find_spec("nncf") else ("QDQ",)  # whose int8 model OpenVINO runs


def onnxruntime_run(model: onnx.ModelProto, inputs: Inputs, threads: int = 1) -> Run:
    """The model in onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, dict(inputs))


def openvino_run(
    model: onnx.ModelProto, inputs: Inputs, calibration: list[Inputs] | None = None, threads: int = 1
) -> Run:
    """The model in OpenVINO; with ``calibration`` samples it is quantised with NNCF first."""
    import openvino

    core = openvino.Core()
    read = core.read_model(model=model.SerializeToString())
    if calibration is not None:
        import nncf

        read = nncf.quantize(read, nncf.Dataset(calibration), subset_size=len(calibration))
    properties = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = core.compile_model(read, "CPU", properties).create_infer_request()
    return lambda: request.infer(dict(inputs))


def quantized(model: onnx.ModelProto, calibration: list[Inputs]) -> onnx.ModelProto:
    """onnxruntime's static int8 form of a model: QDQ, int8 weights per channel, uint8 activations."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Samples(CalibrationDataReader):
        def __init__(self) -> None:
            self.samples: Iterator[Inputs] = iter(calibration)

        def get_next(self) -> Any:
            return next(self.samples, None)

    with tempfile.TemporaryDirectory() as folder:
        original, prepared, stored = (Path(folder) / f"{name}.onnx" for name in ("fp32", "prepared", "int8"))
        onnx.save(_with_opset(model, PER_CHANNEL_OPSET), original)
        quant_pre_process(original, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            stored,
            Samples(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(stored)


def _with_opset(model: onnx.ModelProto, least: int) -> onnx.ModelProto:
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    return model if max(versions) >= least else onnx.version_converter.convert_version(model, least)


def peer_runs(
    model: onnx.ModelProto,
    inputs: Inputs,
    calibration: list[Inputs],
    names: list[str],
    threads: int = 1,
    quantizer: str = QUANTIZERS[0],
) -> dict[str, Run]:
    """The peers called ``names``, of "ort fp32", "ort int8", "openvino fp32", "openvino int8" (by ``quantizer``)."""
    quantizing = "ort int8" in names or ("openvino int8" in names and quantizer == "QDQ")
    int8 = quantized(model, calibration) if quantizing else model
    made: dict[str, Callable[[], Run]] = {
        "ort fp32": lambda: onnxruntime_run(model, inputs, threads),
        "ort int8": lambda: onnxruntime_run(int8, inputs, threads),
        "openvino fp32": lambda: openvino_run(model, inputs, threads=threads),
        "openvino int8": lambda: (
            openvino_run(int8, inputs, threads=threads)
            if quantizer == "QDQ"
            else openvino_run(model, inputs, calibration, threads)
        ),
    }
    return {name: made[name]() for name in names}


def random_samples(model: onnx.ModelProto, count: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Standard normal samples for the model's inputs, a symbolic dimension as 1."""
    rng = np.random.default_rng(seed)
    stored = {tensor.name for tensor in model.graph.initializer}
    shapes = {
        value.name: [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
        for value in model.graph.input
        if value.name not in stored
    }
    return [
        {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()} for _ in range(count)
    ]
