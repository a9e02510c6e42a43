"""Models that cannot be imported: one short message each, and the right class of error (so the right exit code)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.models import mlp
from tvm_ffn.errors import DataError, ModelError
from tvm_ffn.importer import load_model

KERNEL = np.ones((4, 3, 3, 3), np.float32)
VECTOR = np.ones(4, np.float32)


def model(
    nodes: list[onnx.NodeProto], shape: tuple[int | str, ...] = (1, 3, 8, 8), **weights: np.ndarray
) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)] if shape else []
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    initializers = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "net", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def conv(output: str = "y") -> onnx.NodeProto:
    return helper.make_node("Conv", ["x", "w"], [output], "conv1")


def refused(broken: onnx.ModelProto | Path | str, message: str, error: type[Exception] = ModelError) -> None:
    with pytest.raises(error, match=message) as caught:
        load_model(broken)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_files_that_are_no_models(tmp_path: Path) -> None:
    content = mlp().SerializeToString()
    for name, data in (("half", content[: len(content) // 2]), ("cut", content[:-3]), ("text", b"just\nsome text\n")):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(data)
        refused(path, rf"{name}\.onnx: not a readable ONNX model")
    (tmp_path / "empty.onnx").touch()
    refused(str(tmp_path / "empty.onnx"), r"empty\.onnx: .*without nodes")


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    refused(tmp_path / "missing.onnx", "no such model file", DataError)
    refused(tmp_path, "is a folder", DataError)


def test_missing_external_weights(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(mlp(), path, save_as_external_data=True, location="weights.bin", size_threshold=64)
    assert len(load_model(path).layer_names) == 3
    refused(onnx.load(path, load_external_data=False), r"the data of initializer '.*' .* was not loaded; load it with")
    (tmp_path / "weights.bin").unlink()
    refused(path, r"cannot be read: .*weights\.bin")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_no_numbers(bad: float) -> None:
    kernel = KERNEL.copy()
    kernel[1, 2, 0, 1] = bad
    refused(model([conv()], w=kernel), "initializer 'w'")


def test_an_infinite_mask_is_no_weight() -> None:
    mask = np.where(np.eye(8, dtype=bool), 0, -np.inf).astype(np.float32)
    nodes = [helper.make_node("Add", ["x", "mask"], ["m"]), helper.make_node("Softmax", ["m"], ["y"])]
    assert load_model(model(nodes, mask=mask)).layer_names == ()


def test_every_unsupported_operator_is_listed() -> None:
    nodes = [
        helper.make_node("Det", ["x"], ["a"], "det_node"),
        helper.make_node("Det", ["x"], ["b"]),
        helper.make_node("Strange", ["a"], ["c"], "odd", domain="custom.domain"),
        helper.make_node("Loop", ["", ""], ["y"], "again", body=helper.make_graph([], "body", [], [])),
    ]
    refused(
        model(nodes), r"3 unsupported operators: Det \(det_node, b\); custom.domain::Strange \(odd\); Loop \(again\)"
    )


def test_results_of_unknown_size() -> None:
    nodes = [
        helper.make_node("NonMaxSuppression", ["x", "x"], ["a"], "boxes"),
        helper.make_node("NonZero", ["x"], ["y"], "where"),
    ]
    refused(model(nodes, (1, 4, 4)), r"2 unsupported operators: NonMaxSuppression \(boxes\); NonZero \(where\)")


def test_a_form_that_is_not_supported_names_its_node() -> None:
    refused(model([conv()], w=np.ones((4, 5, 3, 3), np.float32)), r"node 'conv1' \(Conv\)")


@pytest.mark.parametrize(
    ("scales", "attributes", "message"),
    [
        ([1, 1, 0.5, 0.5], {"mode": "linear", "antialias": 1}, "antialias is not supported"),
        ([1, 1, 1.3, 2], {"mode": "linear"}, r"scales \(1, 1, 1.3, 2\) give no whole sizes for shape \(1, 3, 8, 8\)"),
        ([1, 2, 2, 2], {}, "only the axes after batch and channels"),
    ],
)
def test_resizing_that_tvm_does_otherwise(scales: list[float], attributes: dict[str, str | int], message: str) -> None:
    resize = helper.make_node("Resize", ["x", "", "s"], ["y"], "up", **attributes)
    proto = model([resize], s=np.array(scales, np.float32))
    proto.opset_import[0].version = 18
    refused(proto, rf"node 'up' \(Resize\): cannot be imported: {message}")


def test_a_kept_aspect_ratio_that_gives_no_whole_sizes() -> None:
    attributes = {"mode": "linear", "axes": [2, 3], "keep_aspect_ratio_policy": "not_larger"}
    resize = helper.make_node("Resize", ["x", "", "", "s"], ["y"], "up", **attributes)
    proto = model([resize], (1, 3, 9, 8), s=np.array([5, 5]))
    proto.opset_import[0].version = 18
    refused(proto, r"node 'up' \(Resize\): .*\(1, 1, 0.555556, 0.555556\) give no whole sizes for shape \(1, 3, 9, 8\)")


def test_no_inputs() -> None:
    refused(model([helper.make_node("Relu", ["w"], ["y"])], (), w=KERNEL), "no inputs")


def test_malformed_graph() -> None:
    refused(model([helper.make_node("Add", ["x", "nowhere"], ["y"])]), "malformed ONNX graph")


def test_symbolic_dimensions_other_than_the_batch() -> None:
    refused(model([conv()], ("N", 3, "H", "W"), w=KERNEL), r"input 'x' has shape \(N, 3, H, W\)")


def test_output_that_mixes_the_batch() -> None:
    nodes = [helper.make_node("Reshape", ["x", "sizes"], ["y"])]
    refused(model(nodes, ("N", 3, 8, 8), sizes=np.array([-1, 8])), "does not start with the batch dimension")


def test_batch_norm_with_a_negative_variance() -> None:
    norm = helper.make_node("BatchNormalization", ["t", "g", "g", "g", "v"], ["y"])
    refused(model([conv("t"), norm], w=KERNEL, g=VECTOR, v=-VECTOR), "'conv1'.*positive")


@pytest.mark.parametrize(
    ("operator", "attributes", "weight", "message"),
    [
        ("Conv", {"strides": [2]}, KERNEL, "strides has incorrect size"),
        ("Conv", {"pads": [-1, 0, 0, 0]}, KERNEL, "pads must not contain negative values"),
        ("Conv", {}, KERNEL[0], "Number of spatial dimensions"),
        ("Conv", {}, KERNEL[:, :, :0], "kernel_shape must only contain positive values"),
        ("Gemm", {}, np.ones((8, 5), np.float32), "Input 0 expected to have rank 2 but has rank 4"),
        ("Concat", {"axis": 1}, np.ones((1, 3, 8), np.float32), "All inputs to Concat must have same rank"),
        ("Reshape", {}, np.array([-1, -1]), "Target shape may not have multiple -1"),
    ],
)
def test_shapes_that_contradict_each_other(
    operator: str, attributes: dict[str, Any], weight: np.ndarray, message: str
) -> None:
    node = helper.make_node(operator, ["x", "w"], ["y"], "odd", **attributes)
    refused(model([node], w=weight), rf"^net: malformed ONNX graph: node 'odd' \({operator}\): .*{message}")


def test_declared_shapes_of_outputs_are_not_believed() -> None:
    pool = helper.make_node("GlobalAveragePool", ["c"], ["y"])
    proto = model([conv("c"), pool], w=KERNEL)
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, (7, 3)))
    assert load_model(proto).outputs[0].shape == (1, 4, 1, 1)


def test_initializers_of_another_size_than_declared() -> None:
    short, negative = model([conv()], w=KERNEL), model([conv()], w=KERNEL)
    short.graph.initializer[0].raw_data = b"1234"
    refused(short, r"net: initializer 'w' is damaged: .*too small")
    negative.graph.initializer[0].dims[0] = -4
    refused(negative, r"net: initializer 'w' is damaged: Negative dimension")


def test_functions_that_call_themselves() -> None:
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("mine", 1)]
    node = helper.make_node("Again", ["x"], ["y"], domain="mine")
    proto = model([node])
    proto.opset_import.append(opsets[1])
    proto.functions.append(helper.make_function("mine", "Again", ["x"], ["y"], [node], opsets))
    refused(proto, "net: malformed ONNX functions: Cycle detected")


@pytest.mark.parametrize("dtype", ["STRING", "COMPLEX64", "FLOAT8E4M3FN", "99"])
def test_inputs_of_other_types(dtype: str) -> None:
    proto = model([helper.make_node("Identity", ["x"], ["y"])])
    proto.graph.input[0].type.tensor_type.elem_type = int(dtype) if dtype == "99" else TensorProto.DataType.Value(dtype)
    refused(proto, f"input 'x' is of type {dtype}, which is not supported")


@pytest.mark.parametrize(
    ("operator", "operands", "attributes"),
    [
        ("Reshape", ["x", "s"], {}),
        ("Expand", ["x", "s"], {}),
        ("Slice", ["x", "n", "n", "n", "s"], {}),
        ("Range", ["zero", "zero", "one"], {}),
        ("ConstantOfShape", ["s"], {}),
        ("Tile", ["x", "s"], {}),
        ("Pad", ["x", "s"], {}),
        ("Resize", ["x", "", "", "four"], {}),
        ("TopK", ["x", "s"], {}),
        ("Split", ["x", "s"], {"axis": 1}),
        ("Unsqueeze", ["x", "s"], {}),
        ("ReduceSum", ["x", "s"], {}),
    ],
)
def test_sizes_that_depend_on_the_data(operator: str, operands: list[str], attributes: dict[str, int]) -> None:
    """In mid-graph too: what follows could not be compiled."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("Cast", ["m"], ["one"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["one", "n"], ["s"]),
        helper.make_node("Concat", ["s"] * 4, ["four"], axis=0),
        helper.make_node(operator, operands, ["t", "u"][: 1 + (operator in ("TopK", "Split"))], "sized", **attributes),
        helper.make_node("Cast", ["t"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["f"], ["y"], keepdims=0),
    ]
    message = rf"node 'sized' \({operator}\): .*depends on the values of an input, by operand '{operands[-1]}'; export"
    refused(model(nodes, n=np.array([1]), zero=np.array(0)), message)


def test_a_constant_that_cannot_be_computed_names_its_node() -> None:
    nodes = [helper.make_node("DequantizeLinear", ["q", "s"], ["w"], "weight", axis=0), conv()]
    weights = {"q": np.ones((4, 3, 3, 3), np.int8), "s": np.ones(5, np.float32)}
    refused(model(nodes, **weights), r"node 'weight' \(DequantizeLinear\): cannot be imported")


@pytest.mark.parametrize(
    ("operator", "weight", "kernel"), [("Conv", (4, 3, 3, 3), (5, 5)), ("ConvTranspose", (3, 4, 3, 2), (3, 3))]
)
def test_a_kernel_shape_that_contradicts_the_weight(operator: str, weight: tuple[int, ...], kernel: list[int]) -> None:
    node = helper.make_node(operator, ["x", "w"], ["y"], "odd", kernel_shape=kernel)
    message = f"kernel_shape {kernel} contradicts the weight of shape {weight}; set it to {weight[2:]} or leave it out"
    refused(
        model([node], w=np.ones(weight, np.float32)),
        re.escape(f"node 'odd' ({operator}): ") + f".*{re.escape(message)}",
    )


def test_a_kernel_shape_of_another_rank_than_the_input() -> None:
    pool = helper.make_node("MaxPool", ["x"], ["y"], "odd", kernel_shape=[3])
    refused(model([pool]), r"node 'odd' \(MaxPool\): Attribute kernel_shape has incorrect size")


@pytest.mark.parametrize(("operator", "shape"), [("Conv", (4, 3, 3, 3)), ("ConvTranspose", (3, 4, 3, 3))])
@pytest.mark.parametrize("bias", [(5,), (1,), (4, 1)])
def test_a_bias_that_contradicts_the_weight(operator: str, shape: tuple[int, ...], bias: tuple[int, ...]) -> None:
    proto = model(
        [helper.make_node(operator, ["x", "w", "b"], ["y"], "odd")],
        w=np.ones(shape, np.float32),
        b=np.ones(bias, np.float32),
    )
    refused(proto, rf"node 'odd' \({operator}\): .*a bias of shape {re.escape(str(bias))} contradicts .* \(4,\)")


def test_a_window_that_does_not_fit() -> None:
    pool = helper.make_node("AveragePool", ["x"], ["y"], "odd", kernel_shape=[9, 9])
    refused(model([pool]), r"node 'odd' \(AveragePool\): .*its result would have shape \(1, 3, 0, 0\)")
    refused(
        model([conv()], w=np.ones((4, 3, 10, 3), np.float32)), r"'conv1'.*its result would have shape \(1, 4, -1, 6\)"
    )


@pytest.mark.parametrize("operator", ["Conv", "MaxPool"])
def test_automatic_padding_of_another_name(operator: str) -> None:
    operands = ["x", "w"] if operator == "Conv" else ["x"]
    node = helper.make_node(operator, operands, ["y"], "odd", auto_pad="SAME", kernel_shape=[3, 3])
    refused(model([node], w=KERNEL), r"node 'odd' .*auto_pad 'SAME' is none of NOTSET, SAME_UPPER")


def test_results_without_elements() -> None:
    nodes = [helper.make_node("Slice", ["x", "one", "one", "one"], ["y"], "odd")]
    refused(model(nodes, one=np.array([1])), r"node 'odd' \(Slice\): .*shape \(1, 0, 8, 8\), without elements")


def test_operators_in_training_mode() -> None:
    norm = helper.make_node("BatchNormalization", ["x", *"vvvv"], ["y", "m", "s"], "odd", training_mode=1)
    proto = model([norm], v=np.ones(3, np.float32))
    proto.opset_import[0].version = 15
    refused(proto, r"node 'odd' \(BatchNormalization\): .*in training mode; export")
    dropout = helper.make_node("Dropout", ["x", "", "t"], ["y"], "odd")
    refused(model([dropout], t=np.array(True)), r"node 'odd' \(Dropout\): .*in training mode; export")
    assert load_model(model([dropout], t=np.array(False))).outputs[0].shape == (1, 3, 8, 8)


@pytest.mark.parametrize("operator", ["Div", "Mod"])
def test_division_by_zero(operator: str) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64),
        helper.make_node(operator, ["i", "z"], ["d"], "odd"),
        helper.make_node("Cast", ["d"], ["y"], to=TensorProto.FLOAT),
    ]
    refused(model(nodes, z=np.array([1, 2, 3, 4, 0, 5, 6, 7])), rf"node 'odd' \({operator}\): .*divides by zero")


def test_division_of_floats_by_zero() -> None:
    node = helper.make_node("Div", ["x", "z"], ["y"], "odd")
    refused(model([node], z=np.array(0, np.float32)), r"node 'odd' \(Div\): .*divides by zero")


@pytest.mark.parametrize("slope", [(5,), (3,), (1, 1, 3, 1, 1)])
def test_a_slope_that_does_not_fit(slope: tuple[int, ...]) -> None:
    node = helper.make_node("PRelu", ["x", "s"], ["y"], "odd")
    refused(model([node], s=np.ones(slope, np.float32)), r"node 'odd' \(PRelu\): ")


def test_a_fill_value_that_is_no_constant() -> None:
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("Pad", ["x", "p", "m"], ["y"], "odd"),
    ]
    refused(model(nodes, p=np.ones(8, np.int64)), r"node 'odd' \(Pad\): .*fill value is no constant")
