"""Whole models through the importer and the interpreter: equal to onnxruntime, and in canonical form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import tvm
from onnx import numpy_helper
from tvm import relax

from benchmarks.models import LIGHT, light_model, load_onnx, mlp, transformer_block
from tvm_ffn.importer import ImportedModel, layer_calls, load_model
from tvm_ffn.interpreter import Interpreter

TOLERANCE = 5e-6  # of the largest output, for fp32 sums in another order
REAL = ("cifar10_resnet20", "darknet_tiny", "lenet_mnist", "mobilenet_v2", "resnet18", "squeezenet1_1")
GONE = {"nn.batch_norm", "nn.dropout", "stack", "call_tir"}
AFFINE = {"relax.add", "relax.subtract", "relax.multiply", "relax.divide"}


def reference(model: onnx.ModelProto, inputs: dict[str, np.ndarray], *, optimize: bool = True) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def random_inputs(imported: ImportedModel, batch: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    shapes = {info.name: [batch if isinstance(dim, str) else dim for dim in info.shape] for info in imported.inputs}
    return {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


def assert_equal(results: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert len(results) == len(expected)
    for result, value in zip(results, expected, strict=True):
        assert result.shape == value.shape and result.dtype == value.dtype
        assert np.abs(result - value).max() <= TOLERANCE * max(np.abs(value).max(), 0.1)


def assert_canonical(imported: ImportedModel, model: onnx.ModelProto) -> None:
    func = imported.mod["main"]
    assert [param.name for param in func.params] == [info.name for info in imported.inputs]
    (block,) = func.body.blocks
    assert isinstance(block, relax.DataflowBlock)
    readers: dict[relax.Var, list[relax.Expr]] = {}
    uses: Counter[relax.Var] = Counter()
    for binding in block.bindings:
        call = binding.value
        assert all(isinstance(dim, tvm.tirx.IntImm) for dim in getattr(binding.var.ty, "shape", None) or [])
        if isinstance(call, relax.Call):
            assert call.op.name.removeprefix("relax.") not in GONE
            for arg in call.args:
                if isinstance(arg, relax.Var):
                    uses[arg] += 1
                    readers.setdefault(arg, []).append(binding)
    for var, call in layer_calls(func):
        shape = [int(dim) for dim in call.args[1].ty.shape]
        constants = []
        while uses[var] == 1 and is_affine(readers[var][0].value):
            binding = readers[var][0]
            constants.append([int(dim) for dim in binding.value.args[1].ty.shape])
            var = binding.var
        wanted = [1, shape[0], 1, 1] if len(shape) == 4 else [shape[1]]
        assert constants in ([], [wanted]), f"{constants} after a layer of {shape}"
    assert_names(imported, model)


def is_affine(call: relax.Expr) -> bool:
    return isinstance(call, relax.Call) and call.op.name in AFFINE and isinstance(call.args[1], tvm.ir.GenericConst)


def assert_names(imported: ImportedModel, model: onnx.ModelProto) -> None:
    """Each name is that of the node whose weight the layer holds, in the graph's order."""
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    nodes = {node.name or node.output[0]: node for node in model.graph.node}
    order = list(nodes)
    layers = layer_calls(imported.mod["main"])
    assert len(imported.layer_names) == len(layers) == len(set(imported.layer_names))
    assert [order.index(name) for name in imported.layer_names] == sorted(map(order.index, imported.layer_names))
    for name, (_, call) in zip(imported.layer_names, layers, strict=True):
        node, shape = nodes[name], tuple(int(dim) for dim in call.args[1].ty.shape)
        assert node.op_type == "Conv" if len(shape) == 4 else node.op_type in ("Gemm", "MatMul")
        if node.input[1] in weights:
            transposed = any(a.name == "transB" and a.i for a in node.attribute)
            assert shape == (weights[node.input[1]][::-1] if transposed else weights[node.input[1]])


def check(model: onnx.ModelProto, layers: int) -> ImportedModel:
    imported = load_model(model)
    assert_canonical(imported, model)
    assert len(imported.layer_names) == layers
    inputs = random_inputs(imported)
    assert_equal(Interpreter(imported.mod).run(inputs), reference(model, inputs))
    return imported


LAYERS = dict(zip(LIGHT, (8, 121, 58, 70, 54, 50, 26, 19, 8), strict=True))


@pytest.mark.parametrize("name", LIGHT)
def test_light_topology(name: str) -> None:
    check(light_model(name), LAYERS[name])


@pytest.mark.parametrize(("name", "layers"), list(zip(REAL, (20, 16, 4, 53, 21, 26), strict=True)))
def test_real_model(name: str, layers: int, shared_data: Callable[[str], Path]) -> None:
    file = f"models/{name}.onnx"
    check(load_onnx(shared_data(f"{file}.gz" if name == "resnet18" else file)), layers)


@pytest.mark.parametrize(("name", "layers"), [("superres_core_224", 4), ("yunet_n_320_320", 59)])
def test_other_real_model(name: str, layers: int, shared_data: Callable[[str], Path]) -> None:
    check(load_onnx(shared_data(f"models_misc/{name}.onnx")), layers)


def test_quantised_model(shared_data: Callable[[str], Path]) -> None:
    """A tie rounded the other way spreads through the layers: compare the codes before the first one does."""
    model = load_onnx(shared_data("models_misc/mobilenet_v2_qdq_int8_lanznx.onnx"))
    imported = load_model(model)
    assert_canonical(imported, model)
    codes = [node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"][:12]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in codes)
    inputs = random_inputs(imported)
    expected = reference(model, inputs, optimize=False)[1:]
    quantized = {b.var for b in Interpreter(imported.mod).bindings if b.value.op.name == "relax.quantize"}
    results = [value for var, value in Interpreter(imported.mod).values(inputs) if var in quantized]
    for result, value in zip(results, expected, strict=False):
        difference = np.abs(result.astype(int) - value)
        assert result.dtype == np.int8 and difference.max() <= 1 and (difference > 0).mean() < 1e-3


def test_mlp_with_a_symbolic_batch() -> None:
    model = mlp()
    imported = check(model, 3)
    assert imported.symbolic_batch and imported.layer_names == ("dense0", "dense1", "dense2")
    assert (imported.inputs[0].shape, imported.outputs[0].shape) == (("N", 64), ("N", 10))
    inputs = random_inputs(imported, batch=7)
    assert_equal(Interpreter(imported.mod).run(inputs), reference(model, inputs))


def test_transformer_block() -> None:
    model = transformer_block()
    imported = check(model, 6)
    assert imported.layer_names[0] == "/query_product/MatMul" and not imported.symbolic_batch
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "query_w")
    value = layer_calls(imported.mod["main"])[0][1].args[1].value.numpy()
    np.testing.assert_array_equal(value, numpy_helper.to_array(weight))


def test_symbolic_batch_of_a_real_model(shared_data: Callable[[str], Path]) -> None:
    model = load_onnx(shared_data("models/cifar10_resnet20.onnx"))
    imported = load_model(model)
    assert imported.symbolic_batch and imported.inputs[0].shape[0] == imported.outputs[0].shape[0] == "N"
    inputs = random_inputs(imported, batch=3)
    assert_equal(Interpreter(imported.mod).run(inputs), reference(model, inputs))


def test_the_model_given_is_not_changed() -> None:
    model = light_model("squeezenet")
    before = model.SerializeToString(deterministic=True)
    load_model(model)
    assert model.SerializeToString(deterministic=True) == before
