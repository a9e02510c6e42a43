"""Small networks through the whole compiler: integer kernels only where integers suffice, equal to the oracle.

`integer_check.build` asserts what holds for every model; here each network also says which operators stay on fp32.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from integer_check import CHEAP, INT8, build
from onnx import TensorProto
from small_net import Net

from tvm_ffn.config import FFNConfig, LayerConfig

Network = Callable[[], onnx.ModelProto]
TERNARY = CHEAP.replace(first_layer="ternary", last_layer="ternary")
TOLERANCE = 0.06  # of int8 against fp32, on random weights and noise

# Networks that are integer from the first quantize to the last layer.


def residual() -> onnx.ModelProto:
    net = Net(1, 3, 10, 9)
    a = net("Relu", net.conv("x", 3, 8))
    b = net("Relu", net("Add", net.conv(net("Relu", net.conv(a, 8, 8)), 8, 8), a))
    down, short = net.conv(b, 8, 12, strides=[2, 2]), net.conv(b, 8, 12, 1, strides=[2, 2])
    return net.model(net.conv(net("Clip", net("Add", down, short), net.const(0.0), net.const(2.0)), 12, 4))


def sums_of_one_tensor() -> onnx.ModelProto:
    net = Net(1, 3, 8, 8)
    a = net("Relu", net.conv("x", 3, 8))
    b = net.conv(a, 8, 8)
    return net.model(net.conv(net("Add", a, a), 8, 4), net.conv(net("Add", b, b), 8, 4))


def concatenation() -> onnx.ModelProto:
    net = Net(1, 3, 8, 7)
    a = net("Relu", net.conv("x", 3, 8))
    b = net.conv(a, 8, 5)
    c = net("Concat", a, b, net("MaxPool", a, kernel_shape=[3, 3], pads=[1] * 4), axis=1)
    return net.model(net.conv(c, 21, 6), net.conv(net("Relu", net("Concat", b, a, axis=1)), 13, 4))


def pooling() -> onnx.ModelProto:
    net = Net(1, 3, 11, 13)
    a = net("Relu", net.conv("x", 3, 6))
    pools = (
        net("MaxPool", a, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
        net("MaxPool", a, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        net("MaxPool", a, kernel_shape=[3, 2], strides=[2, 1], dilations=[2, 1]),
        net("AveragePool", a, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4, count_include_pad=1),
        net("AveragePool", a, kernel_shape=[3, 3], strides=[1, 2], pads=[1] * 4),
        net("AveragePool", a, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        net("AveragePool", a, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4, ceil_mode=1, count_include_pad=1),
        net("AveragePool", a, kernel_shape=[3, 2], strides=[2, 2], auto_pad="SAME_UPPER"),
        net("AveragePool", a, kernel_shape=[2, 4], strides=[2, 2], pads=[0, 1] * 2, ceil_mode=1, count_include_pad=1),
    )
    return net.model(*(net("Relu", net.conv(pool, 6, 4, 1)) for pool in pools))


def global_pooling() -> onnx.ModelProto:
    net = Net(1, 3, 9, 7)
    a = net("Relu", net.conv("x", 3, 8))
    mean = net("ReduceMean", a, axes=[-1, -2], keepdims=0)
    pooled = net("Flatten", net("GlobalAveragePool", a))
    return net.model(net.dense(mean, 8, 5), net.dense(net("Relu", net.dense(pooled, 8, 20)), 20, 5))


def leaky() -> onnx.ModelProto:
    net = Net(1, 3, 9, 9)
    a = net("LeakyRelu", net.conv("x", 3, 8), alpha=0.1)
    b = net("LeakyRelu", net("Add", net.conv(a, 8, 8), a), alpha=0.2)
    c = net("LeakyRelu", net("Concat", a, b, axis=1), alpha=0.3)
    return net.model(net.conv(net("LeakyRelu", net("MaxPool", c, kernel_shape=[2, 2]), alpha=0.1), 16, 4))


def affine() -> onnx.ModelProto:
    """What a batch norm in front of a convolution leaves, and constants on either side of an operator."""
    net = Net(1, 3, 9, 9)
    a = net("Concat", net.conv("x", 3, 8), net.conv("x", 3, 8), axis=1)
    gain = net.const(net.rng.uniform(0.5, 1.5, (16, 1, 1)))
    values = (
        net("Relu", net("Add", net("Mul", a, gain), net.random(16, 1, 1))),
        net("Mul", net.const(0.5), a),
        net("Add", net.random(16, 1, 1), a),
        net("Sub", net.const(0.5), a),
    )
    return net.model(*(net.conv(value, 16, 4) for value in values))


def views() -> onnx.ModelProto:
    net = Net(1, 3, 8, 8)
    a = net("Relu", net.conv("x", 3, 8))
    b = net("Slice", a, net.const([0, 1]), net.const([8, 7]), net.const([1, 2]), net.const([2, 1]))
    c = net.conv(net("Pad", b, net.const([0, 1, 1, 0, 0, 1, 0, 2])), 6, 8)
    d = net("Reshape", net("Transpose", c, perm=[0, 1, 3, 2]), net.const([1, 8, -1]))
    e = net("Squeeze", net("Unsqueeze", net("Transpose", d, perm=[0, 2, 1]), net.const([1])), net.const([1]))
    return net.model(net("Transpose", net.dense(e, 8, 5), perm=[0, 2, 1]))


def parts() -> onnx.ModelProto:
    net = Net(1, 3, 8, 8)
    a = net("Relu", net.conv("x", 3, 8))
    b, c = net("Split", a, net.const([3, 5]), outputs=2, axis=1)
    d, e = net("Split", a, outputs=2, axis=1)
    return net.model(*(net.conv(part, size, 4) for part, size in ((b, 3), (c, 5), (d, 4), (e, 4))))


def space_and_depth() -> onnx.ModelProto:
    net = Net(1, 3, 6, 6)
    a = net("Relu", net.conv("x", 3, 8))
    mode = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
    larger = net("Resize", a, "", net.const(np.array([1, 1, 2, 2], np.float32)), **mode)
    deeper, wider = net("SpaceToDepth", a, blocksize=2), net("DepthToSpace", a, blocksize=2, mode="CRD")
    return net.model(net.conv(larger, 8, 4), net.conv(deeper, 32, 4), net.conv(wider, 2, 4))


def shuffle() -> onnx.ModelProto:
    net = Net(1, 4, 9, 9)
    a = net("Relu", net.conv("x", 4, 12, groups=2))
    b = net("Transpose", net("Reshape", a, net.const([1, 2, 6, 9, 9])), perm=[0, 2, 1, 3, 4])
    c = net("Relu", net.conv(net("Reshape", b, net.const([1, 12, 9, 9])), 12, 12, groups=12))
    d = net("Relu", net.conv(net.conv(c, 12, 24, groups=12), 24, 8, dilations=[2, 2], pads=[2] * 4))
    return net.model(net.conv(net("Relu", net.conv(d, 8, 8, 5, strides=[2, 3], pads=[0, 1, 2, 3])), 8, 6, 1))


def fixed_batch() -> onnx.ModelProto:
    net = Net(3, 3, 8, 8)
    a = net("Relu", net.conv("x", 3, 8))
    b = net("GlobalAveragePool", net("Relu", net("Add", net.conv(a, 8, 8), a)))
    return net.model(net("Gemm", net("Flatten", b), net.random(8, 5)))


def symbolic_batch() -> onnx.ModelProto:
    net = Net("N", 3, 8, 8)
    return net.model(net("Gemm", net("Flatten", net("Relu", net.conv("x", 3, 4))), net.random(256, 5)))


def tokens() -> onnx.ModelProto:
    """Dense layers on three axes, the samples' axis not first in the middle."""
    net = Net(2, 7, 12)
    a = net("Transpose", net("Relu", net.dense("x", 12, 16)), perm=[1, 0, 2])
    b = net("Transpose", net("Relu", net.dense(a, 16, 16)), perm=[1, 0, 2])
    return net.model(net.dense(b, 16, 5))


def many_rows() -> onnx.ModelProto:
    net = Net(16, 12)
    return net.model(net.dense(net("Relu", net.dense(net("Relu", net.dense("x", 12, 20)), 20, 16)), 16, 5))


def vector() -> onnx.ModelProto:
    net = Net(1, 12)
    a = net("Relu", net.dense(net("Squeeze", "x", net.const([0])), 12, 16))
    return net.model(net("Unsqueeze", net.dense(net("Relu", net.dense(a, 16, 16)), 16, 5), net.const([0])))


def one_row_and_left_operand() -> onnx.ModelProto:
    net = Net(1, 3, 20)
    a = net("Relu", net("Conv", "x", net.random(8, 3, 3), net.random(8), pads=[1, 0], strides=[2]))
    b = net("MaxPool", a, kernel_shape=[3], strides=[2], ceil_mode=1)
    return net.model(net("MatMul", net.random(5, 8), net("AveragePool", b, kernel_shape=[2])))


def shared_weight() -> onnx.ModelProto:
    net = Net(1, 3, 8, 8)
    weight = net.random(8, 8, 3, 3, scale=0.15)
    value = net("Relu", net.conv("x", 3, 8))
    for _ in range(2):
        value = net("Relu", net("Conv", value, weight, pads=[1] * 4))
    return net.model(net.conv(value, 8, 4))


def dead_channels() -> onnx.ModelProto:
    net = Net(1, 3, 8, 8)
    a = net("Relu", net("Conv", "x", net.random(8, 3, 3, 3), net.const(np.full(8, -1e6)), pads=[1] * 4))
    b = net("Relu", net("Conv", a, net.const(np.zeros((8, 8, 3, 3))), net.random(8), pads=[1] * 4))
    return net.model(net.conv(b, 8, 4), net.conv(a, 8, 4))


INTEGER = (
    residual, sums_of_one_tensor, concatenation, pooling, global_pooling, leaky, affine, views, parts, space_and_depth,
    shuffle, fixed_batch, symbolic_batch, tokens, many_rows, vector, one_row_and_left_operand, shared_weight,
    dead_channels,
)  # fmt: skip
MOVING = {"reshape", "permute_dims", "expand_dims", "squeeze"}  # of a result, on its way out


@pytest.mark.parametrize("precision", ["int8", "ternary"])
@pytest.mark.parametrize("network", INTEGER, ids=lambda network: network.__name__)
def test_integer_network(network: Network, precision: str) -> None:
    built = build(network(), INT8 if precision == "int8" else TERNARY)
    assert set(built.float_operators) <= MOVING
    assert built.kernels.count("quantize") == len(built.inputs) and "dequantize" not in built.kernels
    last = max(i for i, name in enumerate(built.kernels) if name.startswith(("ternary", "int8_")))
    assert last == len(built.kernels) - 1
    for result, expected in zip(built.outputs, built.oracle, strict=True):
        np.testing.assert_array_equal(result, expected)
    if precision == "int8":
        assert max(built.errors) < TOLERANCE
    else:
        depthwise = {row.name for row in built.report.layers if row.reason.startswith("depthwise")}
        assert {row.name for row in built.report.layers if row.kind != "ternary"} == depthwise


# Networks with operators that stay on fp32, and which.


def normalisation() -> onnx.ModelProto:
    net = Net(1, 3, 12, 12)
    a = net("LRN", net("Relu", net.conv("x", 3, 8)), size=5, alpha=0.1)
    return net.model(net.conv(net("MaxPool", a, kernel_shape=[3, 3], strides=[2, 2]), 8, 4))


def gate() -> onnx.ModelProto:
    net = Net(1, 3, 8, 8)
    a = net("Relu", net.conv("x", 3, 8))
    squeezed = net("Relu", net.conv(net("GlobalAveragePool", a), 8, 4, 1))
    return net.model(net.conv(net("Mul", a, net("Sigmoid", net.conv(squeezed, 4, 8, 1))), 8, 4))


def attention() -> onnx.ModelProto:
    net = Net(1, 6, 16)
    query, key, value = (
        net(
            "Reshape",
            net("Transpose", net("Reshape", part, net.const([6, 4, 4])), perm=[1, 0, 2]),
            net.const([4, 6, 4]),
        )
        for part in (net.dense("x", 16, 16), net.dense("x", 16, 16), net.dense("x", 16, 16))
    )
    weights = net("Softmax", net("MatMul", query, net("Transpose", key, perm=[0, 2, 1])), axis=-1)
    mixed = net("Transpose", net("MatMul", weights, value), perm=[1, 0, 2])
    return net.model(net.dense(net("Reshape", mixed, net.const([1, 6, 16])), 16, 8))


def without_batch() -> onnx.ModelProto:
    """Nothing here is a batch axis: one run of the graph is one sample."""
    net = Net(7, 12)
    a = net("Relu", net.dense("x", 12, 16))
    b = net("Softmax", net("MatMul", a, net("Transpose", a, perm=[1, 0])), axis=-1)
    return net.model(net.dense(net("MatMul", b, a), 16, 5))


def mixed_concatenation() -> onnx.ModelProto:
    net = Net(1, 3, 8, 8)
    a = net("Relu", net.conv("x", 3, 8))
    return net.model(net.conv(net("Concat", a, net("Tanh", net.conv(a, 8, 4)), axis=1), 12, 6))


def constant_token() -> onnx.ModelProto:
    net = Net(1, 3, 8, 8)
    a = net("Reshape", net("Relu", net.conv("x", 3, 8)), net.const([1, 8, 64]))
    joined = net("Concat", net.random(1, 1, 8), net("Transpose", a, perm=[0, 2, 1]), axis=1)
    return net.model(net.dense(joined, 8, 10))


def other_additions() -> onnx.ModelProto:
    """Constants that are no bias: one value a row where the image is as high as the channels are many, a whole map."""
    net = Net(1, 3, 8, 8)
    a = net("Relu", net.conv("x", 3, 8))
    rows = net("Add", net.conv(a, 8, 8), net.random(8, 1))
    full = net("Add", net.conv(a, 8, 8), net.random(1, 8, 8, 8))
    return net.model(net.conv(rows, 8, 4), net.conv(full, 8, 4))


def scalar() -> onnx.ModelProto:
    net = Net(1, 3, 8, 8)
    a = net("Relu", net.conv("x", 3, 8))
    return net.model(net.conv(net("Div", a, net("ReduceMean", a, keepdims=0)), 8, 4))


def interpolation() -> onnx.ModelProto:
    net = Net(1, 3, 8, 8)
    a = net("Relu", net.conv("x", 3, 8))
    size = net.const(np.array([1, 1, 2, 2], np.float32))
    return net.model(net.conv(net("Resize", a, "", size, mode="linear"), 8, 4))


def hard_swish() -> onnx.ModelProto:
    net = Net(1, 3, 8, 8)
    return net.model(net.conv(net("HardSwish", net.conv("x", 3, 8)), 8, 4))


def two_inputs() -> onnx.ModelProto:
    net = Net(1, 3, 8, 8, z=(1, 8, 8, 8))
    return net.model(net.conv(net("Relu", net("Add", net("Relu", net.conv("x", 3, 8)), "z")), 8, 4))


def tensor_functions() -> onnx.ModelProto:
    """What TVM's importer writes as TensorIR: reflection, cropping, repetition, sums over named axes, a clip
    by a computed bound."""
    net = Net(1, 3, 8, 8)
    a = net("Relu", net.conv("x", 3, 8))
    padded = net("Pad", a, net.const([0, 0, 1, 2, 0, 0, 1, 0]), mode="reflect")
    repeated = net("Tile", net("Pad", a, net.const([0, 0, -1, 0, 0, 0, 0, -2])), net.const([1, 1, 1, 2]))
    summed = net("Einsum", a, net.random(6, 8), equation="bchw,kc->bkhw")
    clipped = net("Clip", a, net.const(0.0), net("ReduceMean", a, keepdims=0))
    return net.model(net.conv(padded, 8, 4), repeated, summed, clipped)


def several_results() -> onnx.ModelProto:
    net = Net(1, 3, 8, 8)
    values, _ = net("TopK", net("Relu", net.conv("x", 3, 8)), net.const([4]), outputs=2, axis=1)
    return net.model(net.conv(values, 4, 4))


FLOATING = {
    normalisation: {"multiply", "nn.pad", "strided_slice", "add", "sqrt", "divide"},
    gate: {"sigmoid", "multiply"},
    attention: {"matmul", "nn.softmax", "reshape", "permute_dims"},
    without_batch: {"matmul", "nn.softmax", "permute_dims"},
    mixed_concatenation: {"tanh"},
    constant_token: {"concat", "reshape", "permute_dims"},
    other_additions: {"add"},
    scalar: {"mean", "divide"},
    interpolation: {"image.resize2d"},
    hard_swish: {"multiply"},
    two_inputs: {"add", "nn.relu"},
    several_results: {"topk"},
    tensor_functions: {"mean", "isnan", "where"},
}


@pytest.mark.parametrize("network", FLOATING, ids=lambda network: network.__name__)
def test_fp32_islands(network: Network) -> None:
    built = build(network())
    assert set(built.float_operators) <= FLOATING[network] | MOVING
    for result, expected in zip(built.outputs, built.oracle, strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)
    assert max(built.errors) < TOLERANCE


def test_pooling_after_an_island_is_integer() -> None:
    assert "nn.max_pool2d" not in build(normalisation()).float_operators


def test_concatenation_before_a_layer_is_integer() -> None:
    calls = build(mixed_concatenation()).calls
    assert ("call_tir", "concat", "int8") in calls


# Outputs of other kinds.


def test_outputs_of_every_kind() -> None:
    """Pooled values, a tensor twice, one that a layer reads as well, a constant, integers."""
    net = Net(1, 3, 9, 8)
    a = net("Relu", net.conv("x", 3, 8))
    pools = [
        net("AveragePool", a, kernel_shape=[3, 3]),
        net("GlobalAveragePool", a),
        net("MaxPool", a, kernel_shape=[2, 2]),
    ]
    sums = net("Add", net.conv(a, 8, 8), a)
    constant, copies = net("Identity", net.random(3, 4)), [net("Identity", a), net("Identity", a)]
    built = build(net.model(*pools, sums, constant, *copies))
    for result, expected in zip(built.outputs, built.oracle, strict=True):
        np.testing.assert_array_equal(result, expected)
    assert max(built.errors) < TOLERANCE


def test_integer_output() -> None:
    net = Net(1, 12)
    a = net.dense(net("Relu", net.dense("x", 12, 16)), 16, 10)
    built = build(net.model(net("ArgMax", a, axis=1), dtype=TensorProto.INT64))
    assert built.outputs[0].dtype == np.int64 and built.errors == [0.0]


def test_network_without_layers() -> None:
    net = Net(1, 3, 8, 8)
    built = build(net.model(net("Exp", net("Relu", "x"))), FFNConfig())
    assert built.kernels == [] and max(built.errors) < 1e-6


# Layers that stay as they are, and why.


def test_fp32_by_configuration() -> None:
    net = Net(1, 3, 8, 8)
    a = net("Relu", net.conv("x", 3, 8))
    b = net("Relu", net("Add", net.conv(a, 8, 8), a))
    model = net.model(net.conv(b, 8, 4))
    middle = model.graph.node[2].name
    built = build(model, FFNConfig(layers={middle: None, f"re:(?!{middle}).*": LayerConfig(precision="int8")}))
    assert [(row.kind, row.reason) for row in built.report.layers][1] == ("fp32", "fp32 by configuration")
    assert built.float_operators == ["nn.conv2d", "add", "add", "nn.relu"]
    assert max(built.errors) < TOLERANCE


def test_all_fp32() -> None:
    built = build(residual(), FFNConfig(layers={"re:.*": None}))
    assert built.kernels == [] and max(built.errors) < 1e-5


def test_layers_without_an_integer_kernel() -> None:
    net = Net(1, 3, 8, 8)
    a = net("Relu", net.conv("x", 3, 8))
    b = net("ConvTranspose", a, net.random(8, 4, 2, 2), net.random(4), strides=[2, 2])
    built = build(net.model(net.conv(net("Relu", b), 4, 4), net("MatMul", a, net.random(8, 8, 5))))
    reasons = {row.name.rstrip("0123456789"): row.reason for row in built.report.layers if row.kind == "fp32"}
    assert reasons == {
        "convtranspose": "there is no integer kernel for conv2d_transpose",
        "matmul": "a stack of matrices, not one",
    }
    assert max(built.errors) < TOLERANCE


def test_first_and_last_follow_the_graph() -> None:
    """A residual's shortcut is computed before the layer that adds it, and is not therefore the first layer."""
    net = Net(1, 3, 8, 8)
    model = net.model(net("Add", net.conv("x", 3, 8), net.conv("x", 3, 8, 1)))
    rows = build(model, CHEAP).report.layers
    assert [row.reason.split(":")[0] for row in rows] == ["first layer", "last layer"]
