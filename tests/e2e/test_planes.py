"""Weights in signed binary digits through the compiler: packed, they are lists of digits; the oracle's numbers."""

from __future__ import annotations

import numpy as np
import pytest
from integer_check import CHEAP, Built, build
from small_net import Net

CONFIG = CHEAP.replace(method="planes", penalty=0.02, first_layer="ternary", last_layer="ternary", optimize="size")


@pytest.fixture(scope="module")
def built() -> Built:
    net = Net(1, 6, 13, 11)
    first = net("Relu", net.conv("x", 6, 16))
    grouped = net("Relu", net.conv(first, 16, 24, groups=2, strides=[2, 2]))
    deep = net.conv(grouped, 24, 24)
    joined = net("Relu", net("Add", deep, grouped))
    pooled = net("Flatten", net("GlobalAveragePool", net.conv(joined, 24, 40, 1)))
    return build(net.model(net.dense(pooled, 40, 10)), CONFIG)


@pytest.fixture(scope="module")
def rows() -> Built:
    net = Net(1, 19, 30)
    return build(net.model(net.dense(net("Relu", net.dense("x", 30, 50)), 50, 12)), CONFIG)


def test_equals_the_oracle(built: Built) -> None:
    for result, expected in zip(built.outputs, built.oracle, strict=True):
        np.testing.assert_array_equal(result, expected)
    assert max(built.errors) < 0.2


def test_convolutions_are_lists_of_digits(built: Built) -> None:
    *convolutions, dense = built.report.layers
    assert [row.kernel for row in convolutions] == ["digits"] * 4
    for row in convolutions:
        assert row.kind == "ternary"
        assert row.reason == ""
        assert row.multiplies == np.prod(row.output_shape) * (2 if row is convolutions[2] else 1)
    assert (dense.kernel, dense.kind, dense.planes) == ("int8", "int8", 6)
    assert "few rows" in dense.reason


def test_dense_layers_on_many_rows_are_too(rows: Built) -> None:
    for result, expected in zip(rows.outputs, rows.oracle, strict=True):
        np.testing.assert_array_equal(result, expected)
    assert [row.kernel for row in rows.report.layers] == ["digits", "digits"]


def test_sparse_digits_take_fewer_bytes_than_int8() -> None:
    net = Net(1, 32, 9, 9)
    model = net.model(net.conv(net("Relu", net.conv("x", 32, 48)), 48, 32))
    sparse = build(model, CONFIG.replace(penalty=0.1))
    assert all(row.weight_bytes < row.int8_bytes for row in sparse.report.layers)
