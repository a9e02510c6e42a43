"""Fold chains of per-channel affine steps into the layer before them, or into one multiply and one add.

Each of these is y = s * x + b with one s and one b a channel, all constants, computed here in float64:

    batch_norm(x)[0]   s = gamma / sqrt(var + eps), b = beta - mean * s         (inference form: training=False)
    x * c, x / c       s = c or 1 / c,              b = 0
    x + c, x - c       s = 1,                       b = c or -c
    c - x              s = -1,                      b = c

A chain s2 * (s1 * x + b1) + b2 = (s2 s1) x + (s2 b1 + b2) becomes

    conv2d(x, W)  -> conv2d(x, s W) + b       W scaled along its output channels, b of shape (1, C, 1, 1)
    matmul(x, W)  -> matmul(x, W s) + b       W (k, n) scaled along its columns, b of shape (n,)
    any other x   -> x * s + b                s, b of shape (1, C, 1, 1), or (C,) on the last axis

so that afterwards no batch_norm is left and each layer with constant weights has at most one constant add behind it.

Refused (left as it is): a step whose constant varies along more than one axis or widens x, joining steps along
different axes, and absorbing a value that something else reads too: the chain then starts anew from that value.
Affine steps in front of a layer stay: zero padding pads after them, so they do not commute with a convolution.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from tvm_ffn.onnx_frontend import LAYER_OPS, constant_value

BINARY_OPS = ("relax.add", "relax.subtract", "relax.multiply", "relax.divide")


@dataclass(frozen=True)
class Affine:
    """y = scale * source + shift, one float64 value an index of ``axis``; source: a layer's call or a variable."""

    source: relax.Expr
    scale: np.ndarray
    shift: np.ndarray
    axis: int

    def after(self, inner: Affine) -> Affine:
        """This step applied to the result of ``inner``."""
        return Affine(inner.source, self.scale * inner.scale, self.scale * inner.shift + self.shift, self.axis)


@tvm.transform.module_pass(opt_level=0, name="FoldBatchNorm")
class FoldBatchNorm:
    """Module pass; the steps it absorbs go with the next dead code elimination."""

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the function "main" of ``mod``."""
        folder = _Folder(mod)
        folder.uses = _count_uses(mod["main"])
        folder.builder_.update_func(mod.get_global_var("main"), folder.visit_expr(mod["main"]))
        return folder.builder_.get()


def _count_uses(func: relax.Function) -> Counter[relax.Var]:
    """How often each variable is read; leaving the dataflow block counts as a read."""
    uses: Counter[relax.Var] = Counter()

    def count(expr: relax.Expr) -> None:
        if isinstance(expr, relax.Var):
            uses[expr] += 1

    for block in func.body.blocks:
        for binding in block.bindings:
            relax.analysis.post_order_visit(binding.value, count)
            uses[binding.var] += not isinstance(binding.var, relax.DataflowVar)
    relax.analysis.post_order_visit(func.body.body, count)
    return uses


@mutator
class _Folder(PyExprMutator):
    uses: Counter[relax.Var]

    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)
        self.chains: dict[relax.Var, Affine] = {}  # new variable read once -> the chain it ends
        self.step: Affine | None = None  # the chain the binding being visited ends

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        self.step = None
        super().visit_var_binding_(binding)
        if self.step is not None and self.uses[binding.var] == 1:
            self.chains[self.visit_expr(binding.var)] = self.step

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        name = call.op.name if isinstance(call.op, tvm.ir.Op) else ""
        if name in LAYER_OPS:
            self.step = _layer(call)
        elif name in BINARY_OPS:
            return self._join(call, self._binary_step(call, name))
        return call

    def visit_tuple_getitem_(self, item: relax.TupleGetItem) -> relax.Expr:
        item = super().visit_tuple_getitem_(item)
        source = self.lookup_binding(item.tuple_value) if isinstance(item.tuple_value, relax.Var) else item.tuple_value
        return self._join(item, _batch_norm_step(source) if item.index == 0 else None)

    def _binary_step(self, call: relax.Call, name: str) -> Affine | None:
        left, right = call.args
        reverse = name == "relax.subtract" and isinstance(left, tvm.ir.GenericConst)
        source, constant = (right, constant_value(left)) if reverse else (left, constant_value(right))
        if constant is None or str(source.ty.dtype) != "float32" or source.ty.shape is None or source.ty.ndim == 0:
            return None
        chain = self.chains.get(source)
        fallback = chain.axis if chain is not None else 1 if source.ty.ndim == 4 else source.ty.ndim - 1
        along = _along_one_axis(constant.astype(np.float64), [int(dim) for dim in source.ty.shape], fallback)
        if along is None:
            return None
        values, axis = along
        one, zero = np.ones_like(values), np.zeros_like(values)
        scale, shift = {
            "relax.add": (one, values),
            "relax.subtract": (-one, values) if reverse else (one, -values),
            "relax.multiply": (values, zero),
            "relax.divide": (one / values, zero) if values.all() else (None, zero),
        }[name]
        return None if scale is None else Affine(source, scale, shift, axis)

    def _join(self, original: relax.Expr, step: Affine | None) -> relax.Expr:
        """Append ``step`` to the chain it continues and spell that chain; ``original`` if there is no step."""
        if step is None:
            return original
        chain = self.chains.get(step.source)
        self.step = step if chain is None or chain.axis != step.axis else step.after(chain)
        return self._spell(self.step)

    def _spell(self, affine: Affine) -> relax.Expr:
        result, layer = affine.source, isinstance(affine.source, relax.Call)
        shape = [-1] + [1] * (_rank(result) - 1 - affine.axis)
        shape = shape if len(shape) == 1 else [1] * affine.axis + shape
        if (affine.scale != 1.0).any():
            scale = affine.scale.astype(np.float32).reshape(shape)
            result = _scaled(result, affine.scale) if layer else relax.op.multiply(result, relax.const(scale))
        if affine.shift.any():
            shift = affine.shift.astype(np.float32).reshape(shape)
            result = relax.op.add(self.builder_.emit(result), relax.const(shift))
        return result


def _rank(expr: relax.Expr) -> int:
    return expr.args[0].ty.ndim if isinstance(expr, relax.Call) else expr.ty.ndim


def _layer(call: relax.Call) -> Affine | None:
    """The identity chain that starts at a float32 layer with a constant weight."""
    weight = constant_value(call.args[1])
    if weight is None or weight.dtype != np.float32 or (call.op.name == "relax.matmul" and weight.ndim != 2):
        return None
    dense = call.op.name == "relax.matmul"
    channels, axis = (weight.shape[1], call.args[0].ty.ndim - 1) if dense else (weight.shape[0], 1)
    return Affine(call, np.ones(channels), np.zeros(channels), axis)


def _scaled(call: relax.Call, scale: np.ndarray) -> relax.Call:
    """The layer with the output channels of its weight scaled."""
    weight = call.args[1].value.numpy()
    factor = scale if call.op.name == "relax.matmul" else scale.reshape(-1, 1, 1, 1)
    arguments = [call.args[0], relax.const((weight * factor).astype(np.float32))]
    return relax.Call(call.op, arguments, call.attrs, call.ty_args, call.span)


def _along_one_axis(constant: np.ndarray, shape: list[int], fallback: int) -> tuple[np.ndarray, int] | None:
    """A constant broadcast against ``shape`` as one value an index of one axis, with that axis; None if it is not."""
    if constant.ndim > len(shape):
        return None
    full = [1] * (len(shape) - constant.ndim) + list(constant.shape)
    axes = [axis for axis, size in enumerate(full) if size != 1]
    axis = axes[0] if axes else fallback
    if len(axes) > 1 or full[axis] not in (1, shape[axis]):
        return None
    return np.broadcast_to(constant.reshape(-1), shape[axis]).copy(), axis


def _batch_norm_step(call: relax.Expr | None) -> Affine | None:
    if not isinstance(call, relax.Call) or not isinstance(call.op, tvm.ir.Op) or call.op.name != "relax.nn.batch_norm":
        return None
    values = [value.astype(np.float64) for arg in call.args[1:] if (value := constant_value(arg)) is not None]
    if call.attrs.training or len(values) != 4:
        return None
    gamma, beta, mean, variance = values
    with np.errstate(divide="ignore", invalid="ignore"):  # the importer refuses what is not finite, by the layer's name
        scale = gamma / np.sqrt(variance + call.attrs.epsilon)
    return Affine(call.args[0], scale, beta - mean * scale, int(call.attrs.axis))
