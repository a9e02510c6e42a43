"""Single operators and small chains: imported to the canonical form, and equal to onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tvm
from onnx import TensorProto, helper, numpy_helper
from tvm import relax

from tvm_ffn.importer import ImportedModel, layer_calls, load_model
from tvm_ffn.interpreter import Interpreter

RNG = np.random.default_rng(0)


def random(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def graph(
    nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], shape: tuple[int | str, ...], opset: int = 17
) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    initializers = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    body = helper.make_graph(nodes, "net", inputs, outputs, initializers)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def check(
    nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], shape: tuple[int, ...] = (1, 4, 9, 8), opset: int = 17
) -> tuple[list[str], ImportedModel]:
    """Compare with onnxruntime; return the operators of the imported graph, in order, and the model."""
    model = graph(nodes, weights, shape, opset)
    imported = load_model(model)
    x = 3 * random(*shape)
    (result,) = Interpreter(imported.mod).run({"x": x})
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": x})
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5 * max(1.0, float(np.abs(expected).max())))
    return operators(imported), imported


def operators(imported: ImportedModel) -> list[str]:
    calls = [binding.value for block in imported.mod["main"].body.blocks for binding in block.bindings]
    return [call.op.name.removeprefix("relax.") for call in calls if isinstance(call, relax.Call)]


def node(operator: str, operands: list[str], result: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, operands, [result], f"{operator}_{result}", **attributes)


def norm(source: str, result: str, prefix: str = "") -> onnx.NodeProto:
    return node("BatchNormalization", [source, *(f"{prefix}{name}" for name in "gbmv")], result)


def statistics(channels: int, prefix: str = "") -> dict[str, np.ndarray]:
    positive = RNG.uniform(0.5, 1.5, (2, channels)).astype(np.float32)
    values = {"g": positive[0], "b": random(channels), "m": random(channels), "v": positive[1]}
    return {f"{prefix}{name}": value for name, value in values.items()}


@pytest.mark.parametrize("attributes", [{"min": 0.0, "max": 6.0}, {"min": -1.0}, {"max": 0.5}])
def test_clip_by_attributes(attributes: dict[str, float]) -> None:
    assert check([node("Clip", ["x"], **attributes)], {}, opset=6)[0] == ["clip"]


@pytest.mark.parametrize(
    ("operands", "names"), [(["low", "high"], ["clip"]), (["", "high"], ["clip"]), (["zero"], ["nn.relu"]), ([], [])]
)
def test_clip_by_operands(operands: list[str], names: list[str]) -> None:
    weights = {"low": np.float32(-0.5), "high": np.float32(2), "zero": np.float32(0)}
    used = {name: np.array(weights[name]) for name in operands if name}
    result, _ = check([node("Clip", ["x", *operands], "t"), node("Abs", ["t"])], used)
    assert result == [*names, "abs"]


def test_clip_between_crossed_bounds_is_the_upper_one() -> None:
    bounds = {"low": np.array(0.5, np.float32), "high": np.array(0, np.float32)}
    assert check([node("Clip", ["x", "low", "high"])], bounds)[0] == ["clip"]


def test_pad() -> None:
    pads = {"pads": np.array([0, 1, 2, 0, 0, 0, 1, 3]), "value": np.array(1.5, np.float32)}
    assert check([node("Pad", ["x", "pads", "value"])], pads)[0] == ["nn.pad"]
    chosen = {"pads": np.array([1, 2, 3, 0]), "axes": np.array([-1, 2])}
    assert check([node("Pad", ["x", "pads", "", "axes"])], chosen, opset=18)[0] == ["nn.pad"]
    assert check([node("Pad", ["x"], pads=[0, 0, 1, 1, 0, 0, 1, 1])], {}, opset=2)[0] == ["nn.pad"]


def test_pad_of_another_mode_goes_through_tvm() -> None:
    assert check([node("Pad", ["x", "p"], mode="reflect")], {"p": np.array([0, 0, 1, 2, 0, 0, 1, 1])})[0] == [
        "call_tir"
    ]


SCALES = {"s": np.array([1, 1, 3, 1.5], np.float32)}


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_upsample_and_resize_of_old_opsets(mode: str) -> None:
    attributes = {"mode": mode, "scales": SCALES["s"].tolist()}
    assert check([node("Upsample", ["x"], **attributes)], {}, opset=7)[0] == ["image.resize2d"]
    for operator, opset in (("Upsample", 9), ("Resize", 10)):
        assert check([node(operator, ["x", "s"], mode=mode)], SCALES, opset=opset)[0] == ["image.resize2d"]
    smaller = {"s": np.array([1, 1, 2 / 3, 0.375], np.float32)}
    check([node("Resize", ["x", "s"], mode=mode)], smaller, opset=10)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "half_pixel_symmetric", "asymmetric", "align_corners"])
def test_resize(mode: str, coordinates: str) -> None:
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates}
    check([node("Resize", ["x", "", "s"], **attributes)], SCALES, opset=19)
    check([node("Resize", ["x", "", "s"], axes=[-1, 2], **attributes)], {"s": SCALES["s"][[3, 2]]}, opset=19)
    check([node("Resize", ["x", "", "", "s"], axes=[3, 2], **attributes)], {"s": np.array([5, 13])}, opset=19)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize(("policy", "sizes"), [("not_larger", [18, 30]), ("not_smaller", [18, 3])])
def test_resize_that_keeps_the_aspect_ratio(mode: str, policy: str, sizes: list[int]) -> None:
    attributes = {"mode": mode, "keep_aspect_ratio_policy": policy}
    check([node("Resize", ["x", "", "", "s"], axes=[2, 3], **attributes)], {"s": np.array(sizes)}, opset=18)
    given = {"s": np.array([1, 4, *sizes])[[3, 2]]}
    check([node("Resize", ["x", "", "", "s"], axes=[3, 2], **attributes)], given, opset=19)


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
@pytest.mark.parametrize("sizes", [[5, 5], [20, 20], [3, 12]])
def test_resize_by_corners_that_keeps_the_aspect_ratio_in_rounded_sizes(policy: str, sizes: list[int]) -> None:
    attributes = {"mode": "linear", "coordinate_transformation_mode": "align_corners", "axes": [2, 3]}
    resize = node("Resize", ["x", "", "", "s"], keep_aspect_ratio_policy=policy, **attributes)
    check([resize], {"s": np.array(sizes)}, opset=19)


def test_resize_of_a_region_by_axes() -> None:
    attributes = {"mode": "linear", "axes": [2, 3], "coordinate_transformation_mode": "tf_crop_and_resize"}
    weights = {"roi": np.array([0.2, 0.3, 0.9, 0.8], np.float32), "s": np.array([6, 7])}
    check([node("Resize", ["x", "roi", "", "s"], **attributes)], weights, opset=19)


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize(("kernel", "stride"), [((3, 3), 2), ((2, 4), 1), ((5, 2), 3)])
def test_conv_with_automatic_padding(mode: str, kernel: tuple[int, int], stride: int) -> None:
    attributes = {"auto_pad": mode, "strides": [stride] * 2}
    names, _ = check([node("Conv", ["x", "w"], **attributes)], {"w": random(6, 4, *kernel)})
    assert names == ["nn.conv2d"]


@pytest.mark.parametrize("attributes", [{}, {"auto_pad": "SAME_UPPER"}, {"output_padding": [1, 0]}])
@pytest.mark.parametrize("sizes", [[17, 24], [20, 26]])
def test_transposed_conv_of_a_given_output_shape(sizes: list[int], attributes: dict[str, Any]) -> None:
    attributes = {**attributes, "output_shape": sizes, "strides": [2, 3], "dilations": [1, 2]}
    names, _ = check([node("ConvTranspose", ["x", "w", "c"], **attributes)], {"w": random(4, 5, 3, 2), "c": random(5)})
    assert names == ["nn.conv2d_transpose", "add"]


def test_conv_with_groups_bias_and_uneven_padding() -> None:
    attributes = {"group": 2, "pads": [1, 0, 2, 1], "strides": [2, 1]}
    names, imported = check([node("Conv", ["x", "w", "c"], **attributes)], {"w": random(6, 2, 3, 3), "c": random(6)})
    assert names == ["nn.conv2d", "add"] and imported.layer_names == ("Conv_y",)


@pytest.mark.parametrize(
    "flags", [{}, {"transA": 1}, {"transB": 1}, {"alpha": 0.5, "beta": 2.0, "transA": 1, "transB": 1}]
)
@pytest.mark.parametrize("bias", [None, (5,), (1, 5), (1,), (7, 1)])
def test_gemm(flags: dict[str, Any], bias: tuple[int, ...] | None) -> None:
    weights = {"w": random(5, 6) if flags.get("transB") else random(6, 5)}
    weights |= {} if bias is None else {"c": random(*bias)}
    names, imported = check(
        [node("Gemm", ["x", *weights], **flags)], weights, (6, 7) if flags.get("transA") else (7, 6)
    )
    assert names == ["permute_dims"] * bool(flags.get("transA")) + ["matmul"] + ["add"] * (bias is not None)
    assert imported.layer_names == ("Gemm_y",)


def test_sum_of_several() -> None:
    weights = {"c": random(4, 1, 1)}
    nodes = [node("Relu", ["x"], "r"), node("Sum", ["x", "r", "c"], "s"), node("Sum", ["s", "x"])]
    assert check(nodes, weights)[0] == ["nn.relu", "add", "add", "add"]


def test_dropout_and_identity_vanish() -> None:
    nodes = [node("Identity", ["x"], "i"), node("Dropout", ["i"], "d"), node("Relu", ["d"])]
    assert check(nodes, {}, opset=12)[0] == ["nn.relu"]


@pytest.mark.parametrize("attributes", [{}, {"count_include_pad": 1}, {"ceil_mode": 1}])
@pytest.mark.parametrize("operator", ["AveragePool", "MaxPool"])
def test_pooling(operator: str, attributes: dict[str, int]) -> None:
    if operator == "MaxPool" and "count_include_pad" in attributes:
        attributes = {"dilations": [2, 1]}
    nodes = [node(operator, ["x"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], **attributes)]
    check(nodes, {}, opset=17)


@pytest.mark.parametrize(("kernel", "pads"), [([2, 3], [0, 0, 0, 0]), ([3, 3], [1, 1, 1, 1]), ([3, 2], [0, 1, 1, 0])])
def test_average_whose_last_window_overhangs(kernel: list[int], pads: list[int]) -> None:
    pool = node("AveragePool", ["x"], kernel_shape=kernel, strides=[2, 2], pads=pads, ceil_mode=1, count_include_pad=1)
    names, _ = check([pool], {}, (1, 4, 9, 10), opset=19)
    assert names == (["nn.pad"] if any(pads) else []) + ["nn.avg_pool2d"]


def test_average_without_a_window_that_starts_beyond_the_data() -> None:
    attributes = {"kernel_shape": [2, 2], "strides": [3, 3], "pads": [1] * 4, "ceil_mode": 1, "count_include_pad": 1}
    assert check([node("AveragePool", ["x"], **attributes)], {}, (1, 4, 4, 4), opset=19)[0] == ["nn.avg_pool2d"]


@pytest.mark.parametrize("operator", ["AveragePool", "MaxPool"])
@pytest.mark.parametrize("ceil_mode", [0, 1])
def test_pooling_of_one_dimension(operator: str, ceil_mode: int) -> None:
    counted = {"count_include_pad": 1} if operator == "AveragePool" else {}
    pool = node(operator, ["x"], kernel_shape=[3], strides=[2], pads=[1, 0], ceil_mode=ceil_mode, **counted)
    names, _ = check([pool], {}, (1, 4, 9), opset=19)
    assert names[-2:] == [f"nn.{'max' if operator == 'MaxPool' else 'avg'}_pool2d", "squeeze"]


@pytest.mark.parametrize("operator", ["AveragePool", "LpPool", "MaxPool"])
@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_pooling_with_automatic_padding(operator: str, mode: str, stride: int) -> None:
    check([node(operator, ["x"], kernel_shape=[3, 4], strides=[stride, stride], auto_pad=mode)], {}, opset=18)


@pytest.mark.parametrize("padding", [(0, 0), (1, 1), (0, 1)])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(2, 2, 1), (2, 3, 1), (2, 3, 2), (3, 2, 1), (3, 3, 2)])
def test_pooling_over_the_end(padding: tuple[int, int], kernel: int, stride: int, dilation: int) -> None:
    """What lies behind the padding does not count, and no window begins behind the input."""
    attributes = {"ceil_mode": 1, "count_include_pad": 1, "pads": [padding[0]] * 2 + [padding[1]] * 2}
    attributes |= {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "dilations": [dilation] * 2}
    check([node("AveragePool", ["x"], **attributes)], {}, opset=19)


def test_average_of_the_whole_map_is_a_mean() -> None:
    assert check([node("AveragePool", ["x"], kernel_shape=[9, 8])], {})[0] == ["mean"]
    assert check([node("GlobalAveragePool", ["x"])], {})[0] == ["mean"]


@pytest.mark.parametrize(
    ("indices", "axis", "names"),
    [
        (1, 1, ["strided_slice", "squeeze"]),
        (-1, 3, ["strided_slice", "squeeze"]),
        ([2], -1, ["strided_slice"]),
        ([1, 3, 5], 2, ["strided_slice"]),
        ([-2, -1], 2, ["strided_slice"]),
        ([1, 0], 1, ["take"]),
        ([0, 1, 3], 1, ["take"]),
        ([2, 2], 1, ["take"]),
        ([[0, 1]], 1, ["take"]),
    ],
)
def test_gather_by_constants(indices: Any, axis: int, names: list[str]) -> None:
    assert check([node("Gather", ["x", "i"], axis=axis)], {"i": np.array(indices)})[0] == names


def test_chain_of_affine_steps_folds_into_the_convolution() -> None:
    weights = {
        "w": random(6, 4, 3, 3),
        "c": random(6),
        **statistics(6),
        "scale": random(6, 1, 1),
        "shift": random(1, 6, 1, 1),
    }
    nodes = [
        node("Conv", ["x", "w", "c"], "t0"),
        norm("t0", "t1"),
        node("Mul", ["t1", "scale"], "t2"),
        node("Add", ["shift", "t2"], "t3"),
        node("Sub", ["t3", "c2"], "t4"),
        node("Relu", ["t4"]),
    ]
    names, imported = check(nodes, weights | {"c2": np.array([0.25], np.float32)})
    assert names == ["nn.conv2d", "add", "nn.relu"] and imported.layer_names == ("Conv_t0",)


def test_chain_folds_into_a_dense_layer() -> None:
    weights = {"w": random(6, 5), "c": random(5), **statistics(5), "half": np.array(2, np.float32)}
    nodes = [
        node("MatMul", ["x", "w"], "t0"),
        node("Add", ["t0", "c"], "t1"),
        norm("t1", "t2"),
        node("Div", ["t2", "half"]),
    ]
    names, imported = check(nodes, weights, (7, 6))
    assert names == ["matmul", "add"]
    ((_, call),) = layer_calls(imported.mod["main"])
    assert [int(dim) for dim in call.args[1].ty.shape] == [6, 5]


def test_batch_norm_on_its_own_becomes_multiply_and_add() -> None:
    nodes = [node("Relu", ["x"], "r"), norm("r", "n"), norm("n", "y", "second_")]
    names, imported = check(nodes, statistics(4) | statistics(4, "second_"))
    assert names == ["nn.relu", "multiply", "add"]
    constants = [
        tuple(int(dim) for dim in binding.value.args[1].ty.shape)
        for binding in imported.mod["main"].body.blocks[0].bindings
        if isinstance(binding.value, relax.Call) and binding.value.op.name != "relax.nn.relu"
    ]
    assert constants == [(1, 4, 1, 1), (1, 4, 1, 1)]


def test_batch_norm_of_three_axes() -> None:
    assert check([norm("x", "y")], statistics(4), (2, 4, 5))[0] == ["multiply", "add"]


def test_a_layer_that_is_read_twice_keeps_its_weight() -> None:
    weights = {"w": random(6, 4, 3, 3), **statistics(6)}
    nodes = [node("Conv", ["x", "w"], "t"), norm("t", "n"), node("Add", ["t", "n"])]
    names, imported = check(nodes, weights)
    assert sorted(names) == ["add", "add", "multiply", "nn.conv2d"]
    np.testing.assert_array_equal(layer_calls(imported.mod["main"])[0][1].args[1].value.numpy(), weights["w"])


def test_a_constant_map_stays_an_add_of_its_own() -> None:
    weights = {"w": random(4, 4, 1, 1), "c": random(4), "map": random(4, 9, 8)}
    names, _ = check([node("Conv", ["x", "w", "c"], "t"), node("Add", ["t", "map"])], weights)
    assert names == ["nn.conv2d", "add", "add"]


def test_weights_behind_constant_operators() -> None:
    """Dequantised and transposed weights are constants, and the layers keep their names."""
    weights = {
        "q": RNG.integers(-127, 127, (3, 4), dtype=np.int8),
        "scale": np.array([0.1, 0.2, 0.3], np.float32),
        "zero": np.zeros(3, np.int8),
    }
    nodes = [
        node("DequantizeLinear", ["q", "scale", "zero"], "d", axis=0),
        node("Transpose", ["d"], "w", perm=[1, 0]),
        node("MatMul", ["x", "w"]),
    ]
    names, imported = check(nodes, weights, (1, 4), opset=13)
    assert names == ["matmul"] and imported.layer_names == ("MatMul_y",)


SIZES = {"0": np.array(0), "1": np.array([1]), "2": np.array(2), "3": np.array([3]), "-1": np.array([-1])}
BATCH = [node("Shape", ["x"], "s"), node("Gather", ["s", "0"], "b0"), node("Unsqueeze", ["b0", "axis"], "b")]
WIDTH = [node("Shape", ["x"], "s"), node("Gather", ["s", "3"], "w", axis=0)]


@pytest.mark.parametrize("batch", [3, "N"])
@pytest.mark.parametrize(
    "nodes",
    {
        "view": [*BATCH, node("Concat", ["b", "-1"], "t", axis=0), node("Reshape", ["x", "t"])],
        "sliced": [
            node("Shape", ["x"], "s"),
            node("Slice", ["s", "axis", "1"], "b"),
            node("Concat", ["b", "-1"], "t", axis=0),
            node("Reshape", ["x", "t"]),
        ],
        "ones": [
            node("Shape", ["x"], "s"),
            node("ConstantOfShape", ["s"], "c", value=numpy_helper.from_array(np.ones(1, np.float32))),
            node("Add", ["x", "c"]),
        ],
        "range": [
            *WIDTH,
            node("Squeeze", ["w"], "w0"),
            node("Range", ["0", "w0", "2"], "r"),
            node("Gather", ["x", "r"], axis=3),
        ],
        "half": [*WIDTH, node("Div", ["w", "2"], "h"), node("Slice", ["x", "axis", "h", "3"])],
        "twice": [
            node("Shape", ["x"], "s", start=2),
            node("Cast", ["s"], "f", to=TensorProto.FLOAT),
            node("Mul", ["f", "factor"], "g"),
            node("Floor", ["g"], "h"),
            node("Cast", ["h"], "i", to=TensorProto.INT64),
            node("Shape", ["x"], "b", end=2),
            node("Concat", ["b", "i"], "t", axis=0),
            node("Resize", ["x", "", "", "t"]),
        ],
        "tiled": [
            *WIDTH,
            node("Sub", ["w", "7"], "d"),
            node("Concat", ["1", "1", "d", "1"], "t", axis=0),
            node("Tile", ["x", "t"]),
        ],
        "padded": [
            *WIDTH,
            node("Concat", ["axis", "axis", "axis", "w", "axis", "axis", "axis", "axis"], "t", axis=0),
            node("Pad", ["x", "t"]),
        ],
    }.items(),
    ids=lambda item: item[0],
)
def test_sizes_computed_of_shapes(nodes: tuple[str, list[onnx.NodeProto]], batch: int | str) -> None:
    """As PyTorch exports them: they are known where the shape is, whatever the batch."""
    weights = SIZES | {"axis": np.array([0]), "7": np.array([7]), "factor": np.array(2.2, np.float32)}
    model = graph(nodes[1], weights, (batch, 4, 9, 8))
    x = random(3, 4, 9, 8)
    (result,) = Interpreter(load_model(model).mod).run({"x": x})
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(result, session.run(None, {"x": x})[0], rtol=1e-6)


def test_standardised_weights() -> None:
    """Convolutions of BiT and NFNets: the weight is normalised by its own statistics, filter by filter."""
    nodes = [
        node("Reshape", ["w", "flat"], "rows"),
        node("ReduceMean", ["rows"], "mean", axes=[0, 2], keepdims=0),
        node("ReduceMean", ["rows"], "kept", axes=[0, 2]),
        node("Sub", ["rows", "kept"], "centred"),
        node("Mul", ["centred", "centred"], "squares"),
        node("ReduceMean", ["squares"], "variance", axes=[0, 2], keepdims=0),
        node("BatchNormalization", ["rows", "g", "b", "mean", "variance"], "normal"),
        node("Reshape", ["normal", "shape"], "weight"),
        node("Conv", ["x", "weight"]),
    ]
    weights = {"w": random(6, 4, 3, 3), "flat": np.array([1, 6, -1]), "shape": np.array([6, 4, 3, 3])}
    weights |= {"g": np.full(6, 0.2, np.float32), "b": np.zeros(6, np.float32)}
    names, imported = check(nodes, weights)
    assert names == ["nn.conv2d"] and imported.layer_names == ("Conv_y",)


@pytest.mark.parametrize("shape", [(2, 7, 6), (3, 6)])
def test_matmul_by_a_vector(shape: tuple[int, ...]) -> None:
    names, imported = check([node("MatMul", ["x", "w"])], {"w": random(6)}, shape)
    assert names == ["matmul", "squeeze"] and imported.layer_names == ("MatMul_y",)


def test_double_precision() -> None:
    weights = {"w": random(6, 5).astype(np.float64), "c": random(5).astype(np.float64)}
    nodes = [
        node("Cast", ["x"], "d", to=TensorProto.DOUBLE),
        node("Gemm", ["d", "w", "c"], "g"),
        node("Cast", ["g"], to=TensorProto.FLOAT),
    ]
    assert check(nodes, weights, (7, 6))[0] == ["astype", "matmul", "add", "astype"]


@pytest.mark.parametrize("axes", [{}, {"axes": [3, -3]}])
def test_slice_by_attributes(axes: dict[str, list[int]]) -> None:
    check([node("Slice", ["x"], starts=[0, -3], ends=[1, 99], **axes)], {}, opset=9)


@pytest.mark.parametrize("shape", [(8,), (1,), (4, 1, 1), (1, 4, 1, 1), (9, 1), (4, 9, 8)])
def test_slopes(shape: tuple[int, ...]) -> None:
    check([node("PRelu", ["x", "s"])], {"s": random(*shape)})


@pytest.mark.filterwarnings("ignore:divide by zero")
def test_division_by_some_zeros_is_infinite() -> None:
    check([node("Div", ["x", "z"], "d"), node("Sigmoid", ["d"])], {"z": np.arange(8, dtype=np.float32)})


def test_operators_without_a_numpy_form_run_through_tvm() -> None:
    nodes = [node("Erf", ["x"], "e"), node("Split", ["e"], "s", axis=1)]
    nodes[1].output.append("t")
    nodes += [node("Sub", ["s", "t"], "d"), node("LRN", ["d"], size=3)]
    check(nodes, {}, opset=12)


@pytest.mark.parametrize(
    ("exponent", "expected"), [(0.5, ["sqrt"]), (0.75, ["sqrt", "sqrt", "multiply"]), (0.6, ["power"])]
)
def test_powers_that_are_roots(exponent: float, expected: list[str]) -> None:
    weights = {"e": np.array(exponent, np.float32)}
    assert check([node("Abs", ["x"], "a"), node("Pow", ["a", "e"])], weights, (2, 7))[0][1:] == expected


def test_powers_by_integers() -> None:
    assert check([node("Pow", ["x", "e"])], {"e": np.array(3)}, (2, 7))[0] == ["power"]
    nodes = [node("Abs", ["x"], "a"), node("Cast", ["a"], "e", to=TensorProto.INT32), node("Pow", ["x", "e"])]
    assert check(nodes, {}, (2, 7))[0][-2:] == ["astype", "power"]


def test_model_functions_are_inlined() -> None:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    twice = helper.make_function("mine", "Twice", ["a"], ["b"], [node("Add", ["a", "a"], "b")], opsets[:1])
    model = graph([helper.make_node("Twice", ["x"], ["y"], domain="mine")], {}, (1, 5))
    model.functions.append(twice)
    model.opset_import.append(opsets[1])
    assert operators(load_model(model)) == ["add"]


def test_float16_becomes_float32(caplog: pytest.LogCaptureFixture) -> None:
    weights = {"w": random(6, 4, 3, 3), **statistics(6), "half": np.float32(0.5)}
    narrow = {name: np.asarray(value).astype(np.float16) for name, value in weights.items()}
    nodes = [
        node("Conv", ["x", "w"], "t"),
        norm("t", "n"),
        node("Cast", ["n"], "f", to=TensorProto.FLOAT),
        node("Sigmoid", ["f"], "s"),
        node("Cast", ["s"], "h", to=TensorProto.FLOAT16),
        node("Add", ["h", "half"]),
    ]
    model = graph(nodes, narrow, (1, 4, 9, 8))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    imported = load_model(model)
    assert "16-bit floating point becomes float32" in caplog.text
    assert operators(imported) == ["nn.conv2d", "add", "sigmoid", "add"]
    assert [info.dtype for info in (*imported.inputs, *imported.outputs)] == ["float32", "float32"]
    x = random(1, 4, 9, 8).astype(np.float16)
    (result,) = Interpreter(imported.mod).run({"x": x.astype(np.float32)})
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(result, session.run(None, {"x": x})[0], rtol=0.02, atol=0.02)


def test_several_outputs_keep_names_and_order() -> None:
    model = graph([node("Relu", ["x"], "a"), node("Sigmoid", ["x"], "y")], {}, (1, 5))
    model.graph.output.insert(0, helper.make_tensor_value_info("a", TensorProto.FLOAT, [1, 5]))
    imported = load_model(model)
    assert [info.name for info in imported.outputs] == ["a", "y"]
    x = random(1, 5)
    first, second = Interpreter(imported.mod).run({"x": x})
    np.testing.assert_array_equal(first, np.maximum(x, 0))
    np.testing.assert_allclose(second, 1 / (1 + np.exp(-x)), rtol=1e-6)


def test_values_come_with_every_tensor_once() -> None:
    model = graph(
        [node("Relu", ["x"], "a"), node("Conv", ["a", "w", "c"])],
        {"w": random(6, 4, 3, 3), "c": random(6)},
        (1, 4, 9, 8),
    )
    imported = load_model(model)
    x = random(5, 4, 9, 8)
    values = list(Interpreter(imported.mod).values({"x": x}))
    assert [value.shape[:2] for _, value in values] == [(5, 4), (5, 4), (5, 6), (5, 6)]
    assert values[0][0].same_as(imported.mod["main"].params[0]) and isinstance(imported.mod, tvm.IRModule)
