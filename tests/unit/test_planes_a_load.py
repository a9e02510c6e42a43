"""Where planes of digits share what they load: where that is fewer loads for little else."""

from __future__ import annotations

import numpy as np

from tvm_ffn.kernels.epilogue import Epilogue
from tvm_ffn.kernels.geometry import ConvGeometry
from tvm_ffn.kernels.planes_conv2d import PlanesConv2d, planes_conv2d
from tvm_ffn.kernels.straight_line import AVX2
from tvm_ffn.kernels.ternary_code import CodeStyle

CONV = ConvGeometry(1, 64, 28, 28, (3, 3), (1, 1), (1, 1, 1, 1))


def conv(density: float, load_planes: int, planes: int = 6) -> PlanesConv2d:
    rng = np.random.default_rng(0)
    digits = rng.choice(np.array([-1, 0, 1], np.int8), (1, planes, 64, 576), p=[density / 2, 1 - density, density / 2])
    return planes_conv2d(CONV, digits, 127, Epilogue(), AVX2, CodeStyle(load_planes=load_planes), threads=1)


def runs_of(operator: PlanesConv2d) -> list[range]:
    return sorted((run for stack in operator.stacks for run in stack.runs), key=lambda run: run.start)


def test_each_plane_is_in_one_run() -> None:
    for load_planes in range(1, 7):
        planes = [plane for run in runs_of(conv(0.1, load_planes)) for plane in run]
        assert planes == list(range(6))


def test_inputs_that_several_planes_use_are_loaded_once() -> None:
    shared, rare = conv(0.1, 3), conv(0.02, 3)
    assert all(stack.code.doubles_inputs for stack in shared.stacks)
    assert shared.executed.loads < 0.7 * conv(0.1, 1).executed.loads
    assert not any(stack.code.doubles_inputs for stack in rare.stacks)  # few loads to save, as many doublings
    assert rare.executed == conv(0.02, 1).executed


def test_at_most_so_many_planes_share_a_load() -> None:
    assert max(map(len, runs_of(conv(0.1, 2)))) == 2
    assert not any(stack.code.doubles_inputs for stack in conv(0.1, 1).stacks)


def test_segments_are_as_short_as_joined_planes_need() -> None:
    operator = conv(0.1, 3)
    for stack in operator.stacks:
        code = stack.code
        places = 1 << np.arange(len(code.digits))[::-1]
        weights = np.abs(np.einsum("p,prk->rk", places, code.digits.astype(int)))
        sums = np.add.reduceat(weights, code.bounds[:-1], axis=1)
        assert sums.max() * 127 <= np.iinfo(np.int16).max
