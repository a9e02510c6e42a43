"""Which layers are computed by Winograd's F(2x2, 3x3)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tvm_ffn.kernel_plan import KernelPlan
from tvm_ffn.kernels.epilogue import Epilogue
from tvm_ffn.kernels.geometry import ConvGeometry
from tvm_ffn.kernels.int8_conv2d import Int8Conv2d
from tvm_ffn.kernels.layer_kernel import LayerShape, int8_kernel
from tvm_ffn.kernels.winograd_conv2d import WinogradConv2d, is_winograd

LAYER = ConvGeometry(1, 32, 14, 15, (3, 3), (1, 1), (1, 1, 1, 1))


@pytest.mark.parametrize(
    ("dot", "expected"), [("avx2", WinogradConv2d), ("avx512vnni", Int8Conv2d), ("plain", Int8Conv2d)]
)
def test_where_int16_is_multiplied(dot: str, expected: type) -> None:
    weight, plan = np.zeros((1, 16, 288), np.int8), KernelPlan(dot=dot)
    assert type(int8_kernel(LayerShape(LAYER), weight, Epilogue(), plan).operator) is expected
    direct = int8_kernel(LayerShape(LAYER), weight, Epilogue(), replace(plan, winograd=False)).operator
    assert type(direct) is Int8Conv2d


@pytest.mark.parametrize(
    "changes",
    [
        {"strides": (2, 2)},
        {"dilation": (2, 2), "padding": (2, 2, 2, 2)},
        {"kernel": (1, 3), "padding": (0, 1, 0, 1)},
        {"groups": 2},
        {"channels": 40},
        {"channels": 4096},
        {"padding": (2, 2, 2, 2)},  # a row's last tile has no place at the pitch
        {"height": 4, "width": 6},  # too few tiles
        {"height": 224, "width": 224},  # transformed inputs of 12 MB
    ],
    ids=str,
)
def test_other_layers_are_computed_directly(changes: dict) -> None:
    assert is_winograd(LAYER, 16, "avx2")
    assert not is_winograd(replace(LAYER, **changes), 16, "avx2")
    assert not is_winograd(LAYER, 24, "avx2")


def test_multiplies_are_four_ninths() -> None:
    weight = np.zeros((1, 16, 288), np.int8)
    costs = [
        int8_kernel(LayerShape(LAYER), weight, Epilogue(), KernelPlan(dot="avx2", winograd=w)).operator.cost
        for w in (True, False)
    ]
    requantised = 16 * LAYER.out_pixels * Epilogue().multiplies
    winograd, direct = (cost.multiplies - requantised for cost in costs)
    assert 9 * winograd == 4 * direct
    assert costs[0].bytes == costs[1].bytes
