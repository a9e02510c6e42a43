"""From a record of `benchmarks.shapes` to its operator and several sets of arguments."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import numpy as np

from benchmarks.kernel_arguments import LIMIT, TYPICAL, Factored, extremes, facing, int8_runs, one_scale, planes_runs
from benchmarks.shapes import (
    DigitsConv,
    DigitsMatmul,
    Int8Conv,
    Int8Matmul,
    PlanesConv,
    Pointwise,
    Pool,
    Shape,
    TernaryConv,
    TernaryMatmul,
)
from tvm_ffn.kernel_plan import KernelPlan
from tvm_ffn.kernels.code_conv2d import code_conv2d
from tvm_ffn.kernels.codes import GROUP, Segments, pack_groups, pack_masks, segments
from tvm_ffn.kernels.digit_lists import integer_weights
from tvm_ffn.kernels.digits_conv2d import digits_layer
from tvm_ffn.kernels.epilogue import FRACTION_BITS
from tvm_ffn.kernels.factored import FactoredProduct
from tvm_ffn.kernels.geometry import ConvGeometry
from tvm_ffn.kernels.int8_conv2d import Int8Conv2d
from tvm_ffn.kernels.int8_dense import Int8Dense
from tvm_ffn.kernels.planes import im2col_numpy
from tvm_ffn.kernels.planes_conv2d import planes_conv2d
from tvm_ffn.kernels.pointwise import Add, Affine, Rescale
from tvm_ffn.kernels.pool2d import AvgPool2d, MaxPool2d
from tvm_ffn.kernels.straight_line import ISAS
from tvm_ffn.kernels.ternary_conv2d import TernaryConv2d
from tvm_ffn.kernels.ternary_dense import TernaryDense
from tvm_ffn.kernels.ternary_gemv import LANES, TernaryGemv


@dataclass(frozen=True)
class KernelCase:
    """An operator with several sets of arguments (without the output); the one named "typical" is for timing."""

    operator: Any
    runs: Mapping[str, tuple[np.ndarray, ...]]


def fits(shape: Shape, plan: KernelPlan) -> bool:
    """Whether the record's kernel exists on the plan's target."""
    is_code = isinstance(shape, PlanesConv) or (isinstance(shape, TernaryConv) and shape.kernel == "code")
    return plan.isa != "" or not is_code


def kernel_case(shape: Shape, plan: KernelPlan) -> KernelCase:
    """Build a record's operator with the decisions of ``plan``; the same record always gives the same numbers."""
    return _case(shape, plan, np.random.default_rng(zlib.crc32(shape.name.encode())))


@singledispatch
def _case(shape: Any, plan: KernelPlan, rng: np.random.Generator) -> KernelCase:
    raise TypeError(f"no operator for {type(shape).__name__}")


@_case.register
def _ternary_conv(shape: TernaryConv, plan: KernelPlan, rng: np.random.Generator) -> KernelCase:
    g = shape.geometry
    size = (g.batch, g.channels, g.height, g.width)
    factored = Factored(shape, rng, size, lambda x: im2col_numpy(x, g))
    limits = LIMIT, shape.middle_limit
    if shape.kernel == "code":
        code = code_conv2d(g, factored.y[0], factored.x[0], limits, shape.epilogue, ISAS[plan.isa])
        return KernelCase(code, factored.runs((), (), code.out_shape))
    groups, terms, inputs = factored.y.shape
    cut_y = segments(factored.y.reshape(-1, inputs), limits[0], step=GROUP, chunk=plan.chunk)
    cut_x = segments(factored.x.reshape(-1, terms), limits[1], step=GROUP, chunk=plan.chunk)
    product = FactoredProduct(groups, inputs, terms, shape.outputs, shape.middle_limit, cut_y, cut_x, shape.epilogue)
    operator = TernaryConv2d(g, product, plan.pixel_block)
    packed = (_codes(factored.y, cut_y),), (_codes(factored.x, cut_x),)
    return KernelCase(operator, factored.runs(*packed, operator.out_shape))


@_case.register
def _planes_conv(shape: PlanesConv, plan: KernelPlan, rng: np.random.Generator) -> KernelCase:
    g = shape.geometry
    images = extremes(rng, (g.batch, g.channels, g.height, g.width))
    rows = facing(rng, im2col_numpy(images["worst"], g), shape.planes * shape.outputs, shape.zeros)
    digits = rows.reshape(shape.planes, shape.outputs, g.inputs)
    operator = planes_conv2d(g, digits, LIMIT, shape.epilogue, ISAS[plan.isa])
    weight = integer_weights(digits)
    return KernelCase(
        operator,
        planes_runs(shape.epilogue, rng, images, lambda x: im2col_numpy(x, g), weight[None], operator.out_shape),
    )


@_case.register
def _digits_conv(shape: DigitsConv, plan: KernelPlan, rng: np.random.Generator) -> KernelCase:
    size = (shape.geometry.batch, shape.geometry.channels, shape.geometry.height, shape.geometry.width)
    return _digits(shape, shape.geometry, plan, rng, size, lambda x: im2col_numpy(x, shape.geometry))


@_case.register
def _digits_matmul(shape: DigitsMatmul, plan: KernelPlan, rng: np.random.Generator) -> KernelCase:
    geometry = ConvGeometry(1, shape.inputs, 1, shape.rows)
    return _digits(shape, geometry, plan, rng, (shape.rows, shape.inputs), _dense_columns)


def _digits(
    shape: DigitsConv | DigitsMatmul,
    geometry: ConvGeometry,
    plan: KernelPlan,
    rng: np.random.Generator,
    size: tuple[int, ...],
    columns: Callable[[np.ndarray], np.ndarray],
) -> KernelCase:
    images = extremes(rng, size)
    copies = shape.planes if shape.zeros >= 0 else 1
    rows = facing(rng, columns(images["worst"]), copies * shape.outputs, max(0.0, shape.zeros))
    digits = rows.reshape(geometry.groups, copies, shape.outputs, -1)
    digits = np.repeat(digits, shape.planes // copies, axis=1)
    operator, lists = digits_layer(
        geometry,
        digits,
        LIMIT,
        shape.epilogue,
        lanes=plan.lanes,
        most=plan.digit_vectors,
        dense=isinstance(shape, DigitsMatmul),
    )
    weight = integer_weights(digits)
    return KernelCase(operator, planes_runs(shape.epilogue, rng, images, columns, weight, operator.out_shape, lists))


@_case.register
def _ternary_matmul(shape: TernaryMatmul, plan: KernelPlan, rng: np.random.Generator) -> KernelCase:
    factored = Factored(shape, rng, (shape.rows, shape.inputs), _dense_columns)
    y, x, sizes = factored.y, factored.x, (shape.inputs, shape.terms, shape.outputs)
    limits = LIMIT, shape.middle_limit
    if shape.kernel == "masks":
        cut_y = segments(y[0], limits[0], step=1, chunk=shape.inputs)
        cut_x = segments(x[0], limits[1], step=1, chunk=shape.terms)
        gemv = TernaryGemv(shape.rows, *sizes, shape.middle_limit, cut_y, cut_x, shape.epilogue)
        return KernelCase(gemv, factored.runs((pack_masks(y[0], LANES),), (pack_masks(x[0], LANES),), gemv.out_shape))
    cut_y = segments(y[0], limits[0], step=GROUP, chunk=plan.chunk)
    cut_x = segments(x[0], limits[1], step=GROUP, chunk=plan.chunk)
    product = FactoredProduct(1, *sizes, shape.middle_limit, cut_y, cut_x, shape.epilogue)
    dense = TernaryDense(shape.rows, product, plan.pixel_block)
    return KernelCase(dense, factored.runs((_codes(y, cut_y),), (_codes(x, cut_x),), dense.out_shape))


@_case.register
def _int8_conv(shape: Int8Conv, plan: KernelPlan, rng: np.random.Generator) -> KernelCase:
    g = shape.geometry
    operator = Int8Conv2d(g, shape.outputs, shape.epilogue, plan.float_block)
    size = (g.batch, g.channels, g.height, g.width)
    runs = int8_runs(shape, rng, size, lambda x: im2col_numpy(x, g), lambda w: w, operator.out_shape)
    return KernelCase(operator, runs)


@_case.register
def _int8_matmul(shape: Int8Matmul, plan: KernelPlan, rng: np.random.Generator) -> KernelCase:
    operator = Int8Dense(shape.rows, shape.inputs, shape.outputs, shape.epilogue)
    size = (shape.rows, shape.inputs)
    runs = int8_runs(shape, rng, size, _dense_columns, lambda w: Int8Dense.pack(w[0]), operator.out_shape)
    return KernelCase(operator, runs)


@_case.register
def _pool(shape: Pool, plan: KernelPlan, rng: np.random.Generator) -> KernelCase:
    images = extremes(rng, shape.window.shape)
    if shape.kind == "max":
        return KernelCase(MaxPool2d(shape.window), {name: (x,) for name, x in images.items()})
    counts = shape.window.counts()
    scale = (rng.uniform(1.0, 2.0) / counts).astype(np.float32)
    bias = (rng.integers(20, 60) * counts).astype(np.int32)
    runs = {name: (x, bias, scale) for name, x in images.items()}
    runs["ties"] = (images[TYPICAL], np.zeros_like(bias), np.full_like(scale, 0.5))
    return KernelCase(AvgPool2d(shape.window, shape.epilogue), runs)


@_case.register
def _pointwise(shape: Pointwise, plan: KernelPlan, rng: np.random.Generator) -> KernelCase:
    size, epilogue = shape.shape, shape.epilogue
    images = extremes(rng, size)
    runs: dict[str, tuple[np.ndarray, ...]]
    if shape.kind == "add":
        others = extremes(rng, size)
        if size[-2:] == (255, 255):  # every value with every other
            images[TYPICAL][:], others[TYPICAL][:] = (axis - LIMIT for axis in np.indices((255, 255)))
        scales = {name: (one_scale(0.61), one_scale(0.73)) for name in images} | {
            "ties": (one_scale(0.5), one_scale(2.0**-9))
        }
        images["ties"], others["ties"] = images[TYPICAL], others[TYPICAL]
        runs = {name: (x, scales[name][0], others[name], scales[name][1]) for name, x in images.items()}
        return KernelCase(Add(size, epilogue), runs)
    if shape.kind == "affine":
        assert epilogue.lo is not None and epilogue.hi is not None
        scale = rng.normal(size=size[1]).astype(np.float32)
        offset = rng.integers(-50 << FRACTION_BITS, 50 << FRACTION_BITS, size[1]).astype(np.int32)
        runs = {name: (x, scale, offset) for name, x in images.items()}
        runs["ties"] = (images[TYPICAL], np.full_like(scale, 0.5), np.zeros_like(offset))
        return KernelCase(Affine(size, int(epilogue.lo), int(epilogue.hi)), runs)
    inputs: dict[str, np.ndarray] = dict(images)
    if shape.in_dtype == "float32":
        inputs = {
            TYPICAL: rng.normal(0, 70, size).astype(np.float32),
            "huge": rng.normal(0, 1e30, size).astype(np.float32),
        }
        inputs["integers"] = rng.integers(-300, 300, size).astype(np.float32)
    runs = {name: (x, one_scale(0.83)) for name, x in inputs.items()}
    runs["ties"] = (inputs.get("integers", images[TYPICAL]), one_scale(0.5))
    return KernelCase(Rescale(size, shape.in_dtype, epilogue, shape.zero), runs)


def _dense_columns(x: np.ndarray) -> np.ndarray:
    return x.T[None, None]


def _codes(matrices: np.ndarray, cut: Segments) -> np.ndarray:
    return np.stack([pack_groups(matrix, cut) for matrix in matrices])
