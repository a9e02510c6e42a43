"""From a linear layer's integer weights and the decisions for it to its kernel: which family, and how it is packed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tvm_ffn.kernel_plan import (
    CODE_KERNEL,
    DIGITS_KERNEL,
    GEMV_KERNEL,
    INT8_KERNEL,
    LUT_KERNEL,
    PLANES_KERNEL,
    ROWS_KERNEL,
    KernelPlan,
)
from tvm_ffn.kernels.code_conv2d import code_conv2d
from tvm_ffn.kernels.codes import INT16_MAX, pack_masks, segments
from tvm_ffn.kernels.depthwise_conv2d import depthwise_conv2d
from tvm_ffn.kernels.digit_lists import integer_weights
from tvm_ffn.kernels.digits_conv2d import digits_layer
from tvm_ffn.kernels.dot_sum import dot_tile
from tvm_ffn.kernels.epilogue import Epilogue
from tvm_ffn.kernels.factored import FactoredProduct
from tvm_ffn.kernels.geometry import ConvGeometry
from tvm_ffn.kernels.int8_conv2d import Int8Conv2d
from tvm_ffn.kernels.int8_dense import Int8Dense, dense_tile
from tvm_ffn.kernels.lut import LUTS
from tvm_ffn.kernels.planes_conv2d import planes_conv2d
from tvm_ffn.kernels.split import output_parts
from tvm_ffn.kernels.straight_line import ISAS
from tvm_ffn.kernels.ternary_code import CodeStyle
from tvm_ffn.kernels.ternary_conv2d import TernaryConv2d
from tvm_ffn.kernels.ternary_dense import TernaryDense
from tvm_ffn.kernels.ternary_gemv import LANES, TernaryGemv
from tvm_ffn.kernels.ternary_lut import TernaryLut
from tvm_ffn.kernels.winograd_conv2d import WinogradConv2d, is_winograd

INT8_LIMIT = 127
FEW_TABLE_ROWS = 48
FEW_ROWS = 8  # below this many rows the vectors of a dense layer's kernels run over outputs


@dataclass(frozen=True)
class LayerShape:
    """Where a layer's products happen: the ``geometry`` of a convolution, or ``rows`` of a dense layer. ``few_rows``:
    vectors over a dense layer's rows would be too short, so that they run over its outputs."""

    geometry: ConvGeometry | None = None
    rows: int = 0
    few_rows: bool = False

    @staticmethod
    def dense(rows: int) -> LayerShape:
        """Shape of a dense layer."""
        return LayerShape(None, rows, rows < FEW_ROWS)

    def tiles(self, size: int) -> int:
        """Tiles of ``size`` pixels, or rows of a dense layer, in all images."""
        g = self.geometry
        return -(-self.rows // size) if g is None else g.batch * g.blocks(size)


@dataclass(frozen=True)
class LayerKernel:
    """An operator, its constant arguments between the activation and the bias, and the name of its family. Its sums are
    of activations that are larger by ``raised``: the bias takes back what this adds."""

    operator: Any
    weights: tuple[np.ndarray, ...]
    family: str
    raised: int = 0


def planes_kernel(shape: LayerShape, digits: np.ndarray, epilogue: Epilogue, plan: KernelPlan) -> LayerKernel:
    """Digits int8 (groups, planes, m, n) as code or as lists; a dense layer on few rows has the same numbers from the
    int8 kernel."""
    if shape.geometry is not None and plan.code:
        code = planes_conv2d(
            shape.geometry, digits, INT8_LIMIT, epilogue, ISAS[plan.isa], _style(plan, shape.geometry), plan.threads
        )
        return LayerKernel(code, (), f"{PLANES_KERNEL}-{plan.isa}")
    if shape.few_rows:
        return int8_kernel(shape, integer_weights(digits), epilogue, plan)
    operator, lists = digits_layer(
        shape.geometry or ConvGeometry(1, digits.shape[3], 1, shape.rows),
        digits,
        INT8_LIMIT,
        epilogue,
        lanes=plan.lanes,
        most=plan.digit_vectors,
        table_bytes=plan.table_kb << 10,
        threads=plan.threads,
        dense=shape.geometry is None,
    )
    return LayerKernel(operator, lists, DIGITS_KERNEL)


def factored_kernel(
    shape: LayerShape,
    y: np.ndarray,
    x: np.ndarray,
    middle_scale: np.ndarray,
    limit: int,
    epilogue: Epilogue,
    plan: KernelPlan,
) -> LayerKernel:
    """Ternary Y^T int8 (groups, k, n) and X (groups, m, k) with the ``middle_scale`` float32 (groups, k) between them,
    whose magnitude is at most ``limit``."""
    groups, terms, inputs = y.shape
    outputs = x.shape[1]
    flat_y, flat_x = y.reshape(-1, inputs), x.reshape(-1, terms)
    if shape.few_rows and plan.lut and limit * LUTS[plan.lut].words.step <= INT16_MAX:
        form = LUTS[plan.lut].words
        cut_y = segments(flat_y, INT8_LIMIT, step=form.step, chunk=inputs)
        cut_x = segments(flat_x, limit, step=form.step, chunk=terms)
        vectors, ahead = plan.lut_vectors, plan.lut_ahead << 10
        lut = TernaryLut(shape.rows, inputs, terms, outputs, limit, cut_y, cut_x, plan.lut, vectors, epilogue, ahead)
        words = form.pack(y[0], cut_y, lut.block), middle_scale, form.pack(x[0], cut_x, lut.block)
        return LayerKernel(lut, words, LUT_KERNEL)
    if shape.few_rows:
        cut_y = segments(flat_y, INT8_LIMIT, step=1, chunk=inputs)
        cut_x = segments(flat_x, limit, step=1, chunk=terms)
        gemv = TernaryGemv(shape.rows, inputs, terms, outputs, limit, cut_y, cut_x, epilogue)
        return LayerKernel(gemv, (pack_masks(y[0], LANES), middle_scale, pack_masks(x[0], LANES)), GEMV_KERNEL)
    if shape.geometry is not None and plan.code:
        limits = INT8_LIMIT, limit
        code = code_conv2d(
            shape.geometry, y, x, limits, epilogue, ISAS[plan.isa], _style(plan, shape.geometry), plan.threads
        )
        return LayerKernel(code, (middle_scale,), f"{CODE_KERNEL}-{plan.isa}")
    cut_y = segments(flat_y, INT8_LIMIT, step=_table_group(plan, terms, INT8_LIMIT), chunk=plan.chunk)
    cut_x = segments(flat_x, limit, step=_table_group(plan, outputs, limit), chunk=plan.chunk)
    split = output_parts(shape.tiles(plan.pixel_block), plan.threads, terms, outputs)
    product = FactoredProduct(groups, inputs, terms, outputs, split, limit, cut_y, cut_x, epilogue)
    weights = (product.pack(y, cut_y), middle_scale, product.pack(x, cut_x))
    if shape.geometry is None:
        return LayerKernel(TernaryDense(shape.rows, product, plan.pixel_block), weights, ROWS_KERNEL)
    return LayerKernel(TernaryConv2d(shape.geometry, product, plan.pixel_block), weights, ROWS_KERNEL)


def int8_kernel(shape: LayerShape, weight: np.ndarray, epilogue: Epilogue, plan: KernelPlan) -> LayerKernel:
    """Weights int8 (groups, m, n)."""
    outputs, inputs = weight.shape[1:]
    if shape.geometry is not None and shape.geometry.is_depthwise:
        depthwise = depthwise_conv2d(shape.geometry, outputs, epilogue, plan.dot)
        return LayerKernel(depthwise, (depthwise.pack(weight),), INT8_KERNEL, depthwise.dot.raise_by)
    if shape.geometry is not None and plan.winograd and is_winograd(shape.geometry, outputs, plan.dot):
        winograd = WinogradConv2d(shape.geometry, epilogue, outputs, plan.dot)
        return LayerKernel(winograd, (winograd.pack(weight),), INT8_KERNEL, 0)
    if shape.geometry is not None:
        rows, groups, chunk = plan.dot_rows, plan.dot_groups, plan.dot_chunk
        whole = dot_tile(plan.dot, outputs, shape.geometry.pixels, rows=rows, groups=groups, chunk=chunk)
        split = output_parts(shape.tiles(whole.pixels) * len(weight), plan.threads, outputs)
        tile = dot_tile(plan.dot, outputs // split, shape.geometry.pixels, rows=rows, groups=groups, chunk=chunk)
        conv = Int8Conv2d(shape.geometry, epilogue, tile, outputs, split)
        return LayerKernel(conv, (conv.pack(weight),), INT8_KERNEL, tile.dot.raise_by)
    wide = dense_tile(plan.dot, shape.rows, outputs, plan.dense_vectors)
    dense = Int8Dense(shape.rows, inputs, outputs, epilogue, wide)
    return LayerKernel(dense, (dense.pack(weight[0]),), INT8_KERNEL, wide.dot.raise_by)


def _table_group(plan: KernelPlan, rows: int, limit: int) -> int:
    """Inputs of a table that ``rows`` read, whose sums fit int16. Measured: of two inputs they take .7 of the time with
    16 rows, .8 to 1 with 48, 1.1 with 64."""
    return min(plan.table_group or (2 if rows <= FEW_TABLE_ROWS else 3), INT16_MAX // limit)


def _style(plan: KernelPlan, geometry: ConvGeometry) -> CodeStyle:
    """How a layer's code is cut. Half as many vectors where no two inputs share lines and vectors are of 32 bytes, so
    that more of the sums fit L2: .8 to 1.0 of the time on a Zen 3, 1.07 with 3x3 kernels of 64 inputs."""
    half = geometry.taps == 1 and plan.isa == "avx2"
    vectors = plan.code_vectors // 2 if half else plan.code_vectors
    return CodeStyle(vectors, plan.code_rows, plan.pair_window, plan.code_length, plan.load_planes, plan.sums_kb)
