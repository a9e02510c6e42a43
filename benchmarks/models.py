"""The models that tests and benchmarks share: real topologies with random weights, real models beside the repository,
small built ones.

The onnx wheel holds nine ImageNet topologies without their weights. ``light_model`` gives them random ones: He scale
(std sqrt(2 / fan_in)) for kernels, positive scales and variances for batch norms. The final softmax is dropped, as it
saturates on random weights: what is compared is logits.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
LIGHT = (
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
)
IR_VERSION, OPSET = 8, 17
CLASSES = 1000
KERNELS = {("Conv", 1), ("Gemm", 1), ("Reshape", 0)}
POSITIVE = {("BatchNormalization", 1), ("BatchNormalization", 4), ("Mul", 1)}


def light_model(name: str, seed: int = 0) -> onnx.ModelProto:
    """Return one of the ``LIGHT`` topologies with random weights, the same for the same seed."""
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    model = onnx.load(folder / f"light_{name}.onnx")
    graph = model.graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    declared = set(stored)
    shapes = {name: value.shape for name, value in stored.items() if value.dtype == np.float32}
    filled = [node for node in graph.node if node.op_type == "ConstantOfShape"]
    shapes |= {node.output[0]: tuple(int(size) for size in stored[node.input[0]]) for node in filled}
    roles = _roles(graph)
    rng = np.random.default_rng(seed)
    for weight, shape in shapes.items():
        if weight in roles:
            stored[weight] = _random(rng, roles[weight], shape)
    for node in filled:
        graph.node.remove(node)
    last = graph.node[-1]
    if last.op_type == "Softmax":
        graph.node.remove(last)
        graph.output[0].name = last.input[0]
    read = {name for node in graph.node for name in node.input}
    del graph.initializer[:]
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in stored.items() if name in read)
    for value in [value for value in graph.input if value.name in declared]:
        graph.input.remove(value)
    model.ir_version = IR_VERSION
    graph.name = name
    return model


def _roles(graph: onnx.GraphProto) -> dict[str, tuple[str, int]]:
    """(operator, operand) that reads each tensor; a weight that is unsqueezed first has the role of the result."""
    roles = {name: (node.op_type, place) for node in graph.node for place, name in enumerate(node.input)}
    for node in graph.node:
        if node.op_type == "Unsqueeze":
            roles[node.input[0]] = roles[node.output[0]]
    return roles


def _random(rng: np.random.Generator, role: tuple[str, int], shape: tuple[int, ...]) -> np.ndarray:
    if role in KERNELS:
        fan_in = (
            np.prod(shape[1:]) if role[0] == "Conv" else np.prod(shape) / CLASSES if role[0] == "Reshape" else shape[1]
        )
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(np.sqrt(2 / fan_in))
    if role in POSITIVE:
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(0.1)


def load_onnx(path: Path) -> onnx.ModelProto:
    """Read an ONNX file, decompressing ``.gz`` in memory."""
    return onnx.load_from_string(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())


def shared_models() -> Iterator[Path]:
    """The model files beside the repository; none if they are absent."""
    for folder in ("models", "models_misc"):
        yield from sorted((SHARED / folder).glob("*.onnx*"))


def mlp(widths: tuple[int, ...] = (64, 128, 96, 10), seed: int = 0) -> onnx.ModelProto:
    """Return a multilayer perceptron as an exporter writes it: MatMul, Add, Relu; symbolic batch "N"."""
    rng = np.random.default_rng(seed)
    nodes, weights, value = [], [], "x"
    for layer, (inputs, outputs) in enumerate(pairwise(widths)):
        weights += [_kernel(rng, f"w{layer}", inputs, outputs), _vector(rng, f"b{layer}", outputs)]
        nodes.append(helper.make_node("MatMul", [value, f"w{layer}"], [f"m{layer}"], f"dense{layer}"))
        nodes.append(helper.make_node("Add", [f"b{layer}", f"m{layer}"], [f"a{layer}"], f"bias{layer}"))
        value = f"a{layer}"
        if layer < len(widths) - 2:
            nodes.append(helper.make_node("Relu", [value], [f"r{layer}"], f"relu{layer}"))
            value = f"r{layer}"
    return _model("mlp", nodes, weights, ["N", widths[0]], value, ["N", widths[-1]])


def transformer_block(tokens: int = 12, width: int = 32, heads: int = 4, seed: int = 0) -> onnx.ModelProto:
    """Return one block of a transformer, input and output (1, tokens, width).

    x + attention(norm(x)), then + mlp(norm(.)), with the layer norms spelled out in primitive operators as older
    exporters do.
    """
    rng = np.random.default_rng(seed)
    depth = width // heads
    nodes: list[onnx.NodeProto] = []
    weights = [
        numpy_helper.from_array(np.array([1, tokens, heads, depth]), "split"),
        numpy_helper.from_array(np.array([1, tokens, width]), "join"),
        numpy_helper.from_array(np.array(np.sqrt(depth), np.float32), "root"),
        numpy_helper.from_array(np.array(2.0, np.float32), "two"),
        numpy_helper.from_array(np.array(1e-5, np.float32), "epsilon"),
    ]

    def add(operator: str, operands: list[str], result: str, **attributes: object) -> str:
        nodes.append(helper.make_node(operator, operands, [result], f"/{result}/{operator}", **attributes))
        return result

    def norm(value: str, name: str) -> str:
        weights.append(numpy_helper.from_array(rng.uniform(0.5, 1.5, width).astype(np.float32), f"{name}_gamma"))
        weights.append(_vector(rng, f"{name}_beta", width))
        mean = add("ReduceMean", [value], f"{name}_mean", axes=[-1])
        centred = add("Sub", [value, mean], f"{name}_centred")
        square = add("Pow", [centred, "two"], f"{name}_square")
        variance = add("ReduceMean", [square], f"{name}_variance", axes=[-1])
        shifted = add("Add", [variance, "epsilon"], f"{name}_shifted")
        scaled = add("Div", [centred, add("Sqrt", [shifted], f"{name}_deviation")], f"{name}_scaled")
        return add("Add", [add("Mul", [scaled, f"{name}_gamma"], f"{name}_gained"), f"{name}_beta"], f"{name}_out")

    def dense(value: str, name: str, inputs: int, outputs: int) -> str:
        weights.extend([_kernel(rng, f"{name}_w", inputs, outputs), _vector(rng, f"{name}_b", outputs)])
        return add("Add", [add("MatMul", [value, f"{name}_w"], f"{name}_product"), f"{name}_b"], name)

    normed = norm("x", "norm1")
    parts = []
    for name, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
        split = add("Reshape", [dense(normed, name, width, width), "split"], f"{name}_split")
        parts.append(add("Transpose", [split], f"{name}_heads", perm=order))
    scores = add("Div", [add("MatMul", parts[:2], "products"), "root"], "scores")
    mixed = add("MatMul", [add("Softmax", [scores], "attention", axis=-1), parts[2]], "mixed")
    joined = add("Reshape", [add("Transpose", [mixed], "mixed_tokens", perm=[0, 2, 1, 3]), "join"], "joined")
    middle = add("Add", ["x", dense(joined, "projection", width, width)], "middle")
    hidden = add("Relu", [dense(norm(middle, "norm2"), "expand", width, 4 * width)], "hidden")
    output = add("Add", [middle, dense(hidden, "contract", 4 * width, width)], "y")
    return _model("transformer_block", nodes, weights, [1, tokens, width], output, [1, tokens, width])


def _kernel(rng: np.random.Generator, name: str, inputs: int, outputs: int) -> onnx.TensorProto:
    values = rng.standard_normal((inputs, outputs)) * np.sqrt(2 / inputs)
    return numpy_helper.from_array(values.astype(np.float32), name)


def _vector(rng: np.random.Generator, name: str, size: int) -> onnx.TensorProto:
    return numpy_helper.from_array((rng.standard_normal(size) * 0.1).astype(np.float32), name)


def _model(
    name: str,
    nodes: list[onnx.NodeProto],
    weights: list[onnx.TensorProto],
    shape: list[int | str],
    output: str,
    output_shape: list[int | str],
) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, output_shape)]
    graph = helper.make_graph(nodes, name, inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
