"""Which activations lie in planes; that the numbers do not depend on it, `integer_check` and the kernels' tests say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from integer_check import CHEAP, Built, build
from small_net import Net

from tvm_ffn.config import FFNConfig

PLANES = CHEAP.replace(rank_ratio=None, method="planes", penalty=0.02, first_layer="ternary", last_layer="ternary")
PACKED = PLANES.replace(optimize="size")
CODE = CHEAP.replace(first_layer="ternary", last_layer="ternary")


def dtypes(built: Built) -> list[str]:
    """Of the convolutions' outputs."""
    return [dtype for _, kernel, dtype in built.calls if kernel == "ternary_conv2d"]


def stage() -> onnx.ModelProto:
    """A residual stage behind a stride, as in resnet18, and one more stride."""
    net = Net(1, 3, 12, 13)
    down = net("Relu", net.conv("x", 3, 8, strides=[2, 2]))  # in planes: read by the next two
    first = net("Relu", net.conv(down, 8, 8))  # in planes
    added = net("Relu", net("Add", net.conv(first, 8, 8), down))  # in planes
    second = net("Relu", net.conv(added, 8, 8))  # in planes
    last = net("Relu", net("Add", net.conv(second, 8, 8), added))  # rows: the stride reads its own planes
    return net.model(net.conv(last, 8, 8, strides=[2, 2]))


@pytest.mark.parametrize("config", [PACKED, PLANES, CODE], ids=["digits", "planes", "code"])
def test_a_residual_stage(config: FFNConfig) -> None:
    built = build(stage(), config)
    assert dtypes(built) == ["int16"] * 4 + ["int8", "float32"]
    for result, expected in zip(built.outputs, built.oracle, strict=True):
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("shape", "kernel", "pads", "dilation"),
    [
        ((1, 3, 9, 8), (3, 1), [1, 0, 1, 0], 1),  # nothing between the rows
        ((1, 3, 1, 16), (1, 3), [0, 1, 0, 1], 1),  # one row
        ((2, 3, 7, 9), (3, 3), [2, 2, 2, 2], 2),
        ((1, 3, 8, 8), (5, 5), [2, 2, 2, 2], 1),
        ((1, 3, 8, 8), (3, 3), [1, 2, 1, 0], 1),
    ],
    ids=str,
)
def test_other_kernels(shape: tuple[int, ...], kernel: tuple[int, int], pads: list[int], dilation: int) -> None:
    net = Net(*shape)

    def conv(x: str, inputs: int, outputs: int) -> str:
        operands = net.random(outputs, inputs, *kernel, scale=0.3), net.random(outputs, scale=0.1)
        return str(net("Conv", x, *operands, pads=pads, kernel_shape=list(kernel), dilations=[dilation] * 2))

    first = net("Relu", conv("x", 3, 8))
    added = net("Relu", net("Add", conv(net("Relu", conv(first, 8, 8)), 8, 8), first))
    built = build(net.model(conv(added, 8, 4)), PLANES)
    assert dtypes(built) == ["int16"] * 3 + ["float32"]
    for result, expected in zip(built.outputs, built.oracle, strict=True):
        np.testing.assert_array_equal(result, expected)


def test_row_tables_keep_rows() -> None:
    assert "int16" not in dtypes(build(stage(), CODE.replace(optimize="size")))


def pooled() -> onnx.ModelProto:
    net = Net(1, 3, 8, 8)
    a = net.conv("x", 3, 8)
    return net.model(net.conv(net.conv(a, 8, 8), 8, 4), net("GlobalAveragePool", a))


def returned() -> onnx.ModelProto:
    net = Net(1, 3, 8, 8)
    a = net("Relu", net.conv("x", 3, 8))
    return net.model(a, net.conv(a, 8, 4))


def of_1x1() -> onnx.ModelProto:
    net = Net(1, 3, 8, 8)
    return net.model(net.conv(net.conv("x", 3, 8), 8, 4, 1))


def other_pitch() -> onnx.ModelProto:
    net = Net(1, 3, 8, 8)
    return net.model(net.conv(net.conv("x", 3, 8, 5), 8, 4, 3))


def two_paddings() -> onnx.ModelProto:
    net = Net(1, 3, 8, 8)
    a = net.conv("x", 3, 8)
    return net.model(net.conv(a, 8, 4), net.conv(a, 8, 4, pads=[0, 1, 0, 1]))


def added_at_another_pitch() -> onnx.ModelProto:
    net = Net(1, 3, 8, 8)
    a = net.conv("x", 3, 8)
    return net.model(net.conv(net("Add", net.conv(net.conv(a, 8, 4), 4, 8, 1), a), 8, 4))


@pytest.mark.parametrize("network", [pooled, returned, of_1x1, other_pitch, two_paddings, added_at_another_pitch])
def test_what_something_else_reads_stays_in_rows(network: Callable[[], onnx.ModelProto]) -> None:
    built = build(network(), PACKED)
    assert dtypes(built)[0] == "int8"
    for result, expected in zip(built.outputs, built.oracle, strict=True):
        np.testing.assert_array_equal(result, expected)
