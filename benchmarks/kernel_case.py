"""From a record of `benchmarks.shapes` to its operator and several sets of arguments."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Any

import numpy as np

from benchmarks.kernel_arguments import LIMIT, TYPICAL, Factored, extremes, facing, int8_runs, one_scale, planes_runs
from benchmarks.shapes import (
    DigitsConv,
    DigitsMatmul,
    Int8Conv,
    Int8Matmul,
    Joined,
    PlanesConv,
    Pointwise,
    Pool,
    Shape,
    TernaryConv,
    TernaryMatmul,
)
from tvm_ffn.kernel_plan import KernelPlan
from tvm_ffn.kernels.concat import Concat
from tvm_ffn.kernels.digit_lists import integer_weights
from tvm_ffn.kernels.epilogue import Epilogue
from tvm_ffn.kernels.geometry import ConvGeometry
from tvm_ffn.kernels.layer_kernel import LayerShape, factored_kernel, int8_kernel, planes_kernel
from tvm_ffn.kernels.planes import im2col_numpy
from tvm_ffn.kernels.pointwise import Add, Affine, Rescale
from tvm_ffn.kernels.pool2d import AvgPool2d, MaxPool2d

Columns = Callable[[np.ndarray], np.ndarray]  # activations to (images, groups, inputs, pixels)


@dataclass(frozen=True)
class KernelCase:
    """An operator with several sets of arguments (without the output); the one named "typical" is for timing."""

    operator: Any
    runs: Mapping[str, tuple[np.ndarray, ...]]


def fits(shape: Shape, plan: KernelPlan) -> bool:
    """Whether the record's kernel exists on the plan's target."""
    is_code = isinstance(shape, PlanesConv) or (isinstance(shape, TernaryConv) and shape.kernel == "code")
    if isinstance(shape, TernaryMatmul) and shape.kernel == "lut":
        return plan.lut != ""
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
    return _factored(shape, LayerShape(g), replace(plan, code=shape.kernel == "code"), rng, size, _columns(g))


@_case.register
def _ternary_matmul(shape: TernaryMatmul, plan: KernelPlan, rng: np.random.Generator) -> KernelCase:
    place = LayerShape(None, shape.rows, shape.kernel != "rows")
    plan = plan if shape.kernel == "lut" else replace(plan, lut="")
    return _factored(shape, place, plan, rng, (shape.rows, shape.inputs), _dense_columns)


def _factored(
    shape: TernaryConv | TernaryMatmul,
    place: LayerShape,
    plan: KernelPlan,
    rng: np.random.Generator,
    size: tuple[int, ...],
    columns: Columns,
) -> KernelCase:
    factored = Factored(shape, rng, size, columns)
    limit, middle = shape.middle_limit, np.ones(factored.y.shape[:2], np.float32)
    kernel = factored_kernel(place, factored.y, factored.x, middle, limit, shape.epilogue, plan)
    packed = [(weight,) for weight in kernel.weights if weight is not middle] or [(), ()]
    return KernelCase(kernel.operator, factored.runs(packed[0], packed[1], kernel.operator.out_shape))


@_case.register
def _planes_conv(shape: PlanesConv, plan: KernelPlan, rng: np.random.Generator) -> KernelCase:
    g = shape.geometry
    images = extremes(rng, (g.batch, g.channels, g.height, g.width))
    rows = facing(rng, im2col_numpy(images["worst"], g), shape.planes * shape.outputs, shape.zeros)
    digits = rows.reshape(g.groups, shape.planes, shape.outputs, g.inputs)
    return _planes(digits, LayerShape(g), shape.epilogue, replace(plan, code=True), rng, images, _columns(g))


@_case.register
def _digits_conv(shape: DigitsConv, plan: KernelPlan, rng: np.random.Generator) -> KernelCase:
    g = shape.geometry
    return _digits(shape, LayerShape(g), plan, rng, (g.batch, g.channels, g.height, g.width), _columns(g))


@_case.register
def _digits_matmul(shape: DigitsMatmul, plan: KernelPlan, rng: np.random.Generator) -> KernelCase:
    return _digits(shape, LayerShape(None, shape.rows), plan, rng, (shape.rows, shape.inputs), _dense_columns)


def _digits(
    shape: DigitsConv | DigitsMatmul,
    place: LayerShape,
    plan: KernelPlan,
    rng: np.random.Generator,
    size: tuple[int, ...],
    columns: Columns,
) -> KernelCase:
    images = extremes(rng, size)
    groups = place.geometry.groups if place.geometry is not None else 1
    copies = shape.planes if shape.zeros >= 0 else 1
    rows = facing(rng, columns(images["worst"]), copies * shape.outputs, max(0.0, shape.zeros))
    digits = np.repeat(rows.reshape(groups, copies, shape.outputs, -1), shape.planes // copies, axis=1)
    return _planes(digits, place, shape.epilogue, plan, rng, images, columns)


def _planes(
    digits: np.ndarray,
    place: LayerShape,
    epilogue: Epilogue,
    plan: KernelPlan,
    rng: np.random.Generator,
    images: dict[str, np.ndarray],
    columns: Columns,
) -> KernelCase:
    kernel = planes_kernel(place, digits, epilogue, plan)
    weight, out_shape = integer_weights(digits), kernel.operator.out_shape
    return KernelCase(kernel.operator, planes_runs(epilogue, rng, images, columns, weight, out_shape, kernel.weights))


@_case.register
def _int8_conv(shape: Int8Conv, plan: KernelPlan, rng: np.random.Generator) -> KernelCase:
    g = shape.geometry
    return _int8(shape, LayerShape(g), plan, rng, (g.batch, g.channels, g.height, g.width), _columns(g))


@_case.register
def _int8_matmul(shape: Int8Matmul, plan: KernelPlan, rng: np.random.Generator) -> KernelCase:
    return _int8(shape, LayerShape(None, shape.rows), plan, rng, (shape.rows, shape.inputs), _dense_columns)


def _int8(
    shape: Int8Conv | Int8Matmul,
    place: LayerShape,
    plan: KernelPlan,
    rng: np.random.Generator,
    size: tuple[int, ...],
    columns: Columns,
) -> KernelCase:
    inputs = columns(np.zeros(size, np.int8)).shape[1:3]
    weight = np.zeros((inputs[0], shape.outputs, inputs[1]), np.int8)
    kernel = int8_kernel(place, weight, shape.epilogue, plan)

    def packed(weight: np.ndarray) -> np.ndarray:
        return int8_kernel(place, weight, shape.epilogue, plan).weights[0]

    operator = kernel.operator
    return KernelCase(operator, int8_runs(shape, rng, size, columns, packed, operator.out_shape, kernel.raised))


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
        adder = Add(size, epilogue)
        scales = dict.fromkeys(images, (0.61, 0.73)) | {"halves": (0.5, 2.0**-7), "beyond": (3.7, 90.0)}
        for name in scales.keys() - images.keys():
            images[name], others[name] = images[TYPICAL], others[TYPICAL]
        return KernelCase(adder, {n: (x, others[n], *adder.constants(scales[n])) for n, x in images.items()})
    if shape.kind == "affine":
        operator = Affine(size, epilogue)
        constants = operator.constants(3 * rng.normal(size=size[1]), rng.uniform(-50, 50, size[1]))
        runs = {name: (x, *constants) for name, x in images.items()}
        runs["halves"] = (images[TYPICAL], *operator.constants(np.full(size[1], 0.5), np.zeros(size[1])))
        runs["beyond"] = (images[TYPICAL], *operator.constants(np.full(size[1], -90.0), np.full(size[1], 1e6)))
        return KernelCase(operator, runs)
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


@_case.register
def _joined(shape: Joined, plan: KernelPlan, rng: np.random.Generator) -> KernelCase:
    parts = [rng.integers(-LIMIT, LIMIT + 1, size).astype(np.int8) for size in shape.shapes]
    return KernelCase(Concat(shape.shapes, shape.axis), {TYPICAL: tuple(parts)})


def _columns(geometry: ConvGeometry) -> Columns:
    return lambda x: im2col_numpy(x, geometry)


def _dense_columns(x: np.ndarray) -> np.ndarray:
    return x.T[None, None]
