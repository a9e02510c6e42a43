"""TVM's ONNX frontend with layers that remember their node, and Relax operators where TVM writes TensorIR.

Stock importer                               here
  clip  -> call_tir(maximum), call_tir(minimum)  -> relax.clip (constant bounds)
  pad   -> call_tir(pad)                         -> relax.nn.pad (mode "constant", constant widths)
  conv  -> conv2d + add(reshape(const))          -> conv2d + add(const (1, C, 1, 1)), explicit padding for auto_pad
  conv  of rank 3 -> conv1d                      -> conv2d of height 1
  matmul(const, x)                               -> permute_dims(matmul(permute_dims(x), const)): the weight second
  matmul(x, const (k,))                          -> squeeze(matmul(x, const (k, 1)))
  resize -> see `onnx_resize`; pooling -> see `onnx_pool`; auto_pad -> pads, see `onnx_windows`
  take(x, const)                                 -> strided_slice, where indices have equal distances
  power(float, integer)                  -> power(float, float)
  gemm  -> matmul(alpha * A, permute_dims(B)) .. -> matmul(A, const) + add(const (n,)), alpha and beta folded
  node(constants), Shape(x), ... -> const, see `onnx_constants`
Whatever is not of this form goes to the stock converter. The node's name travels as the span of the conv2d / matmul
call, which Relax passes keep. Results whose shapes depend on the values of an input are refused, see `onnx_sizes`.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax.frontend.onnx import onnx_frontend

from tvm_ffn.errors import ModelError
from tvm_ffn.graph import shape_of
from tvm_ffn.onnx_constants import OF_SHAPES, evaluate, is_foldable
from tvm_ffn.onnx_forms import CHECKED, check_form
from tvm_ffn.onnx_one_row import in_one_row
from tvm_ffn.onnx_pool import average_pool, max_pool
from tvm_ffn.onnx_resize import resize, upsample
from tvm_ffn.onnx_sizes import check_result, sizing_operands
from tvm_ffn.onnx_transposed import with_padding
from tvm_ffn.onnx_windows import POOLS, check_layer, pads

if TYPE_CHECKING:
    import onnx

# TVM's result of these is padded to the largest size, or of a size known only when it runs.
DATA_DEPENDENT = frozenset({"AllClassNMS", "Compress", "NonMaxSuppression", "NonZero", "Unique"})
LAYER_OPS = ("relax.nn.conv2d", "relax.matmul")
Attributes = dict[str, Any]


def supported_operators() -> frozenset[str]:
    """Names of the ONNX operators that can be imported."""
    return frozenset(onnx_frontend._get_convert_map()) - DATA_DEPENDENT | {"Constant"}


def convert(proto: onnx.ModelProto, name: str, shapes: dict[str, list[int]]) -> tvm.IRModule:
    """Convert a checked ONNX model to a Relax module with function "main" and inputs of the given static ``shapes``."""
    opset = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 1)
    frontend = _Frontend(shapes, "float32", sanitize=False)  # parameters keep the names of the inputs
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # it prints its operands before raising
        warnings.simplefilter("ignore")  # what ONNX has to say was said by check_model
        try:
            return frontend.from_onnx(proto.graph, opset)
        except Exception as error:
            node, where = frontend.node, ""
            if node is not None:
                frontend.bb._end_block()  # a block left open makes TVM print a warning
                where = f"node '{node.name}' ({node.op_type}): "
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise ModelError(f"{name}: {where}cannot be imported: {reason[-1]}") from error


def named(call: relax.Call, name: str) -> relax.Call:
    """The same call carrying ``name`` as its span."""
    span = tvm.ir.Span(tvm.ir.SourceName(name), 0, 0, 0, 0)
    return relax.Call(call.op, call.args, call.attrs, call.ty_args, span)


def name_of(call: relax.Call) -> str | None:
    """The ONNX node a conv2d / matmul call came from."""
    return call.span.source_name.name if call.span is not None else None


def constant(value: np.ndarray) -> relax.Expr:
    """A constant of the array's own type, where relax.const makes 64 bits 32."""
    return relax.const(tvm.runtime.tensor(np.asarray(value, order="C")))


def constant_value(expr: relax.Expr | None) -> np.ndarray | None:
    """The value of a constant, None for anything else."""
    return expr.value.numpy() if isinstance(expr, tvm.ir.GenericConst) else None


class _Frontend(onnx_frontend.ONNXGraphImporter):
    node: onnx.NodeProto | None = None  # the one that is being converted

    def _construct_nodes(self, graph: onnx.GraphProto) -> None:
        """Convert the nodes one by one, and compute those that are known now."""
        import onnx

        for node in graph.node:
            self.node = node
            operands = self._operands(node) if is_foldable(node) else None
            if operands is not None:
                results = evaluate(node, operands, self.opset)
                self._nodes.update(zip(node.output, map(constant, results), strict=True))
                continue
            for name in sizing_operands(node):
                if constant_value(self._nodes[name]) is None:
                    raise ValueError(
                        f"the shape of its result depends on the values of an input, by operand '{name}';"
                        " export the model with fixed sizes"
                    )
            super()._construct_nodes(onnx.GraphProto(node=[node]))

    def _operands(self, node: onnx.NodeProto) -> dict[str, np.ndarray] | None:
        """What a node reads, by name, if it is known: numbers, for Shape and Size any of that shape."""
        read = {name: self._nodes[name] for name in node.input if name}
        if node.op_type in OF_SHAPES:
            return {name: np.broadcast_to(0, shape_of(value)) for name, value in read.items()}
        known = {name: number for name, value in read.items() if (number := constant_value(value)) is not None}
        return known if len(known) == len(read) else None

    def _convert_operator(self, op_name: str, inputs: list, attrs: Attributes, opset: int) -> relax.Expr:
        if op_name in CHECKED:
            shapes = [None if operand is None else shape_of(operand) for operand in inputs]
            check_form(op_name, attrs, shapes, [constant_value(operand) for operand in inputs])
        if op_name in ("Conv", "ConvTranspose"):
            check_layer(op_name, attrs, shape_of(inputs[1]), None if inputs[2] is None else shape_of(inputs[2]))
        if op_name == "ConvTranspose":
            attrs = with_padding(attrs, shape_of(inputs[0])[2:], shape_of(inputs[1])[2:])
        if op_name in POOLS:
            explicit = pads(attrs, shape_of(inputs[0])[2:], attrs["kernel_shape"])
            attrs = {**attrs, "auto_pad": b"NOTSET", "pads": explicit}
        converter = _CONVERTERS.get(op_name)
        result = converter(self.bb, inputs, dict(attrs), opset) if converter else None
        if result is None and op_name in ("Conv", "ConvTranspose", "MatMul"):
            result = self._layer(op_name, inputs, attrs, opset)
        if result is None:
            result = super()._convert_operator(op_name, inputs, attrs, opset)
        # Bound to a variable at once: inlining a call into the next one makes TVM rebuild it, which drops its span.
        result = self.bb.emit(result) if isinstance(result, relax.Call) else result
        if isinstance(result.ty, relax.TensorType):
            check_result(shape_of(result))
        return result

    def _layer(self, op_name: str, inputs: list, attrs: Attributes, opset: int) -> relax.Expr | None:
        """The stock conversion, named; a constant bias is added here, so that the name is the layer's."""
        bias = constant_value(inputs[2]) if len(inputs) > 2 else None
        if bias is None and len(inputs) > 2 and inputs[2] is not None:
            return None
        operands = onnx_frontend.onnx_input([inputs[0], inputs[1], *([None] * (len(inputs) - 2))])
        layer = named(super()._convert_operator(op_name, operands, attrs, opset), attrs["tvm_custom"]["name"])
        if bias is None:
            return layer
        return relax.op.add(self.bb.emit(layer), constant(bias.reshape(-1, *[1] * (inputs[1].ty.ndim - 2))))


def _conv(bb: relax.BlockBuilder, inputs: list, attrs: Attributes, opset: int) -> relax.Expr | None:
    data, weight, bias = inputs[0], inputs[1], constant_value(inputs[2])
    if bias is None and inputs[2] is not None:
        return None
    kernels = constant_value(weight)
    if data.ty.ndim == 3 and kernels is not None:
        taps = constant(kernels[:, :, None])
        return in_one_row(bb, data, attrs, lambda image, flat: _conv(bb, [image, taps, inputs[2]], flat, opset))
    if data.ty.ndim != 4:
        return None
    strides, dilation = attrs.get("strides", (1, 1)), attrs.get("dilations", (1, 1))
    padding = pads(attrs, shape_of(data)[2:], shape_of(weight)[2:])
    conv = relax.op.nn.conv2d(data, weight, strides, padding, dilation, attrs.get("group", 1))
    conv = named(conv, attrs["tvm_custom"]["name"])
    return conv if bias is None else relax.op.add(conv, constant(bias.reshape(1, -1, 1, 1)))


def _gemm(bb: relax.BlockBuilder, inputs: list, attrs: Attributes, opset: int) -> relax.Expr | None:
    """alpha A' B' + beta C as A' (alpha B') + (beta C)."""
    weight, bias = constant_value(inputs[1]), constant_value(inputs[2])
    if weight is None or (bias is None and inputs[2] is not None):
        return None
    data = bb.emit(relax.op.permute_dims(inputs[0], [1, 0])) if attrs.get("transA") else inputs[0]
    weight = np.ascontiguousarray(weight.T) if attrs.get("transB") else weight
    alpha, beta = attrs.get("alpha", 1.0), attrs.get("beta", 1.0)
    weight = weight if alpha == 1.0 else (weight * np.float64(alpha)).astype(weight.dtype)
    product = named(relax.op.matmul(data, constant(weight)), attrs["tvm_custom"]["name"])
    if bias is None:
        return product
    bias = bias if beta == 1.0 else (bias * np.float64(beta)).astype(bias.dtype)
    return relax.op.add(product, constant(bias.reshape(-1) if bias.size == weight.shape[1] else bias))


def _matmul(bb: relax.BlockBuilder, inputs: list, attrs: Attributes, opset: int) -> relax.Expr | None:
    """W x as (x' W')' for a constant matrix W, x w as x (w) for a vector: layers have their weight second, a matrix."""
    vector = constant_value(inputs[1])
    if vector is not None and vector.ndim == 1:
        product = named(relax.op.matmul(inputs[0], constant(vector[:, None])), attrs["tvm_custom"]["name"])
        return relax.op.squeeze(bb.emit(product), [-1])
    weight, data = constant_value(inputs[0]), inputs[1]
    if weight is None or weight.ndim != 2 or constant_value(data) is not None:
        return None
    swap = [*range(data.ty.ndim - 2), data.ty.ndim - 1, data.ty.ndim - 2] if data.ty.ndim > 1 else [0]
    turned = bb.emit(relax.op.permute_dims(data, swap))
    product = relax.op.matmul(turned, constant(weight.T))
    return relax.op.permute_dims(bb.emit(named(product, attrs["tvm_custom"]["name"])), swap)


def _clip(bb: relax.BlockBuilder, inputs: list, attrs: Attributes, opset: int) -> relax.Expr | None:
    """NaN bounds mean "open", as in the stock converter; the upper bound wins over a larger lower one."""
    if opset < 11:
        bounds = [attrs.get("min", -np.inf), attrs.get("max", np.inf)]
    else:
        values = [constant_value(bound) for bound in (inputs[1], inputs[2])]
        if any(
            value is None and bound is not None for value, bound in zip(values, (inputs[1], inputs[2]), strict=True)
        ):
            return None
        bounds = [
            default if value is None else value.item() for value, default in zip(values, (-np.inf, np.inf), strict=True)
        ]
    if not str(inputs[0].ty.dtype).startswith("float"):
        return None
    low, high = (-np.inf if np.isnan(bounds[0]) else bounds[0]), (np.inf if np.isnan(bounds[1]) else bounds[1])
    if np.isneginf(low) and np.isposinf(high):
        return inputs[0]
    return relax.op.clip(inputs[0], float(min(low, high)), float(high))


def _pow(bb: relax.BlockBuilder, inputs: list, attrs: Attributes, opset: int) -> relax.Expr | None:
    """Powers of a float take an exponent of any type; Relax wants the same one."""
    base, exponent = inputs
    wanted, given = (str(operand.ty.dtype) for operand in inputs)
    if wanted == given or not wanted.startswith("float"):
        return None
    value = constant_value(exponent)
    same = bb.emit(relax.op.astype(exponent, wanted)) if value is None else constant(value.astype(wanted))
    return relax.op.power(base, same)


def _gather(bb: relax.BlockBuilder, inputs: list, attrs: Attributes, opset: int) -> relax.Expr | None:
    """What constant indices at equal distances take is a slice."""
    data, chosen = inputs[0], constant_value(inputs[1])
    if chosen is None or chosen.ndim > 1 or chosen.size == 0:
        return None
    axis = attrs.get("axis", 0) % data.ty.ndim
    indices = np.atleast_1d(chosen) % int(data.ty.shape[axis])
    steps = np.unique(np.diff(indices)).tolist() or [1]
    if len(steps) > 1 or steps[0] < 1:
        return None
    part = relax.op.strided_slice(data, [axis], [int(indices[0])], [int(indices[-1]) + 1], steps)
    return part if chosen.ndim else relax.op.squeeze(bb.emit(part), [axis])


def _pad(bb: relax.BlockBuilder, inputs: list, attrs: Attributes, opset: int) -> relax.Expr | None:
    if attrs.get("mode", b"constant") != b"constant":
        return None
    rank = inputs[0].ty.ndim
    widths, fill, axes = attrs.get("pads"), attrs.get("value", 0.0), list(range(rank))
    if opset >= 11:
        widths, value = constant_value(inputs[1]), constant_value(inputs[2])
        if widths is None:
            return None
        if value is None and inputs[2] is not None:
            raise ValueError("its fill value is no constant; export the model with a fixed one")
        fill = 0.0 if value is None else value.item()
        if inputs[3] is not None:
            chosen = constant_value(inputs[3])
            if chosen is None:
                return None
            axes = [int(axis) % rank for axis in chosen]
    full = np.zeros((rank, 2), np.int64)
    full[axes] = np.asarray(widths, np.int64).reshape(2, -1).T
    if (full < 0).any():
        return None
    return (
        inputs[0] if not full.any() else relax.op.nn.pad(inputs[0], full.reshape(-1).tolist(), "constant", float(fill))
    )


def _slice(bb: relax.BlockBuilder, inputs: list, attrs: Attributes, opset: int) -> relax.Expr | None:
    """Slice-1, whose starts, ends and axes are attributes."""
    if opset >= 10:
        return None
    axes = attrs.get("axes", tuple(range(len(attrs["starts"]))))
    numbers = [constant(np.array(values, np.int64)) for values in (attrs["starts"], attrs["ends"], axes)]
    operands = onnx_frontend.onnx_input([inputs[0], *numbers])
    return onnx_frontend.Slice.get_converter(10)(bb, operands, {}, [{}, {}])


_CONVERTERS: dict[str, Callable[[relax.BlockBuilder, list, Attributes, int], relax.Expr | None]] = {
    "Conv": _conv,
    "AveragePool": average_pool,
    "MaxPool": max_pool,
    "Gather": _gather,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Clip": _clip,
    "Pad": _pad,
    "Pow": _pow,
    "Resize": resize,
    "Slice": _slice,
    "Upsample": upsample,
}
