"""Single layers beside onnxruntime's and OpenVINO's int8 layer of the same shape: GMAC/s on one core, one thread.

    python -m benchmarks.kernel_peers --only 3x3 --cpu 1 --json OUT.json

A peer's model is one convolution or dense layer from uint8 to uint8 in QDQ form, which both fuse to one int8 kernel;
calling its runtime is part of its time, some 10 us. Ours are the kernels of the shape table: weights as code and as row
tables (rank ratio 1, half zeros), digit lists (0.6 digits a weight), int8, tables over outputs and masks for the dense
layer. All multiply and
accumulate as often as the dense layer does, so ratios are of times: above 1 is faster than the fastest peer. Medians of
CPU time, all in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONVOLUTIONS = (
    "conv3x3-64to64at56",
    "conv3x3-128to128at28",
    "conv3x3-256to256at14",
    "conv3x3-512to512at7",
    "conv1x1-64to256at56",
    "conv1x1-1024to256at14",
)
DENSE = (9216, 4096)
PEERS = ("ort int8", "openvino int8")


@dataclass(frozen=True)
class Layer:
    """A layer's name, multiply-accumulates, ONNX model, and our kernels by family."""

    name: str
    macs: int
    model: Any
    shapes: dict[str, Any]


def main() -> None:
    """Parse the command line, measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="part of the names of the layers")
    parser.add_argument("--repeat", type=int, default=30)
    parser.add_argument("--cpu", type=int, default=0, help="the core everything runs on")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.cpu})
    os.environ["TVM_NUM_THREADS"] = "1"
    results: dict[str, dict[str, float]] = {}
    for layer in layers():
        if options.only in layer.name:
            results[layer.name] = found = measure(layer, options.repeat)
            print(table(layer.name, found), flush=True)
            if options.json:
                options.json.write_text(json.dumps(results, indent=1) + "\n")


def layers() -> list[Layer]:
    """The layers, largest images first."""
    from benchmarks.cost_model import cases
    from benchmarks.shapes import RELU, Int8Matmul, TernaryMatmul

    found = []
    for name in CONVOLUTIONS:
        shapes = {
            family: shape
            for family, shape in cases("1.0")
            if f"-{name}" in shape.name and getattr(shape, "zeros", 0.5) in (0.5, 0.88) and family != "planes"
        }
        shape: Any = shapes["int8"]
        g = shape.geometry
        weight = (shape.outputs, g.channels, *g.kernel)
        model = quantized_layer("Conv", (1, g.channels, g.height, g.width), weight, list(g.padding))
        found.append(Layer(name, shape.outputs * g.inputs * g.out_pixels, model, shapes))
    inputs, outputs = DENSE
    dense = {
        **{kind: TernaryMatmul(kind, kind, 1, inputs, min(DENSE), outputs, RELU) for kind in ("lut", "masks")},
        "int8": Int8Matmul("int8", 1, inputs, outputs, RELU),
    }
    model = quantized_layer("Gemm", (1, inputs), (outputs, inputs), None)
    return [*found, Layer(f"dense-{inputs}to{outputs}", inputs * outputs, model, dense)]


def quantized_layer(operator: str, shape: tuple[int, ...], weight: tuple[int, ...], pads: list[int] | None) -> Any:
    """ONNX: uint8 in, dequantise, the layer on dequantised int8 weights, ReLU, quantise, uint8 out."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    spread = float(73 * 73 * np.sqrt(np.prod(weight[1:])))  # standard deviation of the sums, in steps
    constants = {
        "w": rng.integers(-127, 128, weight, np.int8),
        "b": rng.integers(-1000, 1000, weight[0], np.int32),
        "one": np.float32(1),
        "ones": np.ones(weight[0], np.float32),
        "out": np.float32(spread / 60),
        "middle": np.uint8(128),
        "zero": np.uint8(0),
        "zeros": np.zeros(weight[0], np.int8),
        "zeros32": np.zeros(weight[0], np.int32),
    }
    attributes: dict[str, Any] = {"transB": 1} if pads is None else {"pads": pads}
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "one", "middle"], ["xf"]),
        helper.make_node("DequantizeLinear", ["w", "ones", "zeros"], ["wf"], axis=0),
        helper.make_node("DequantizeLinear", ["b", "ones", "zeros32"], ["bf"], axis=0),
        helper.make_node(operator, ["xf", "wf", "bf"], ["s"], **attributes),
        helper.make_node("Relu", ["s"], ["r"]),
        helper.make_node("QuantizeLinear", ["r", "out", "zero"], ["y"]),
    ]
    out = [1, weight[0], *shape[2:]]
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, out)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def measure(layer: Layer, repeat: int) -> dict[str, float]:
    """GMAC/s of the peers and of ours by family."""
    import numpy as np
    import tvm

    from benchmarks.kernel_arguments import TYPICAL
    from benchmarks.kernel_build import ENTRY, build, plan
    from benchmarks.kernel_case import fits, kernel_case
    from benchmarks.peer_runtimes import onnxruntime_run, openvino_run
    from tvm_ffn import targets
    from tvm_ffn.bench import interleaved

    size = [dim.dim_value for dim in layer.model.graph.input[0].type.tensor_type.shape.dim]
    inputs = {"x": np.random.default_rng(0).integers(0, 256, size, np.uint8)}
    runs = {"ort int8": onnxruntime_run(layer.model, inputs), "openvino int8": openvino_run(layer.model, inputs)}
    target = targets.parse_target("llvm")
    for family, shape in layer.shapes.items():
        if fits(shape, plan(target)):
            case = kernel_case(shape, plan(target))
            kernel = build(case.operator.prim_func("kernel"), target)
            out = np.zeros(kernel.out_shape, kernel.out_dtype)
            arguments = [tvm.runtime.tensor(value) for value in (*case.runs[TYPICAL], out)]
            runs[family] = lambda f=kernel.library[ENTRY], values=arguments: f(*values)
    times = interleaved(runs, repeat, clock=time.process_time)
    return {name: layer.macs / statistics.median(values) / 1e6 for name, values in times.items()}


def table(name: str, found: dict[str, float]) -> str:
    """GMAC/s of one layer, of ours also over the fastest peer's."""
    fastest = max(found[peer] for peer in PEERS)
    cells = (
        f"{key} {speed:.1f}" if key in PEERS else f"{key} {speed:.1f} ({speed / fastest:.2f})"
        for key, speed in found.items()
    )
    return f"{name:24}" + "   ".join(cells)


if __name__ == "__main__":
    main()
