"""One spelling for what the ONNX importer spells in several ways, so that later passes match one form.

    before                                            after
    dropout(x)[0]                                  -> x                            (inference)
    sum(stack((a, b, ...), axis=0), axis=0)        -> add(add(a, b), ...)          (ONNX Sum)
    reshape / broadcast_to to the shape it has     -> x
    astype to the type it has                      -> x
    reshape(reshape(x))                            -> reshape(x)
    add(const, x), multiply(const, x)              -> add(x, const), multiply(x, const)
    clip(x, 0, inf)                                -> relu(x)
    power(x, 1/2), power(x, 3/4)                   -> sqrt(x), sqrt(x) * sqrt(sqrt(x))     (LRN; vectors have a root)
    squeeze(avg_pool3d(expand_dims(x)))            -> sum of slices of padded x, / size    (LRN)
    split(x)[i]                                    -> strided_slice(x)
    avg_pool2d over the whole map, no padding      -> mean(x, axis=[2, 3], keepdims=True)

Refused (left as it is): sums of integers, stacks that are used elsewhere as well, reductions over other axes.
"""

from __future__ import annotations

from functools import reduce

import numpy as np
import tvm
import tvm_ffi
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

SAME_SHAPE_OPS = ("relax.reshape", "relax.broadcast_to")


@tvm.transform.module_pass(opt_level=0, name="Canonicalize")
class Canonicalize:
    """Module pass; the operands it leaves unused go with the next dead code elimination."""

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite every Relax function of ``mod``."""
        rewriter = _Canonicalizer(mod)
        for var, func in mod.functions_items():
            if isinstance(func, relax.Function):
                rewriter.builder_.update_func(var, rewriter.visit_expr(func))
        return rewriter.builder_.get()


@mutator
class _Canonicalizer(PyExprMutator):
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        name = call.op.name if isinstance(call.op, tvm.ir.Op) else ""
        if name in SAME_SHAPE_OPS:
            return self._reshape(call, name)
        if name in ("relax.add", "relax.multiply") and isinstance(call.args[0], tvm.ir.GenericConst):
            return relax.Call(call.op, [call.args[1], call.args[0]], call.attrs, call.ty_args, call.span)
        if name == "relax.astype" and call.args[0].ty.dtype == call.ty.dtype:
            return call.args[0]
        if name == "relax.clip":
            return _clip(call)
        if name == "relax.sum":
            return self._sum(call)
        if name == "relax.nn.avg_pool2d":
            return _global_pool(call)
        if name == "relax.power":
            return self._power(call)
        if name == "relax.squeeze":
            return self._channel_mean(call)
        return call

    def visit_tuple_getitem_(self, item: relax.TupleGetItem) -> relax.Expr:
        item = super().visit_tuple_getitem_(item)
        dropout = self._producer(item.tuple_value, "relax.nn.dropout")
        if dropout is not None and item.index == 0:
            return dropout.args[0]
        split = self._producer(item.tuple_value, "relax.split")
        return _slice(split, item.index) if split is not None else item

    def _producer(self, expr: relax.Expr, name: str) -> relax.Call | None:
        """The call of operator ``name`` that made ``expr``, or None."""
        value = self.lookup_binding(expr) if isinstance(expr, relax.Var) else expr
        is_call = isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.Op) and value.op.name == name
        return value if is_call else None

    def _reshape(self, call: relax.Call, name: str) -> relax.Expr:
        data = call.args[0]
        inner = self._producer(data, "relax.reshape")
        if inner is not None and name == "relax.reshape":
            call = relax.op.reshape(inner.args[0], call.args[1])
            data = inner.args[0]
        same = isinstance(data.ty, relax.TensorType) and data.ty.shape is not None
        return data if same and tvm_ffi.structural_equal(data.ty.shape, call.args[1]) else call

    def _power(self, call: relax.Call) -> relax.Expr:
        base, exponent = call.args
        if not isinstance(exponent, tvm.ir.GenericConst) or exponent.value.numpy().size != 1:
            return call
        value = float(exponent.value.numpy().item())
        same = tvm_ffi.structural_equal(base.ty.shape, call.ty.shape)
        if not same or value not in (0.5, 0.75):
            return call
        root = self.builder_.emit(relax.op.sqrt(base))
        return root if value == 0.5 else relax.op.multiply(root, self.builder_.emit(relax.op.sqrt(root)))

    def _channel_mean(self, call: relax.Call) -> relax.Expr:
        """The mean over neighbouring channels as sums of slices, which one pass over memory computes with all that
        is around them."""
        pool = self._producer(call.args[0], "relax.nn.avg_pool3d")
        expanded = self._producer(pool.args[0], "relax.expand_dims") if pool is not None else None
        if pool is None or expanded is None or [int(axis) for axis in expanded.attrs.axis] != [1]:
            return call
        attrs, data = pool.attrs, expanded.args[0]
        size, *others = (int(value) for value in attrs.pool_size)
        before, after = int(attrs.padding[0]), int(attrs.padding[3])
        steps = [int(value) for value in (*attrs.strides, *attrs.dilation)]
        plain = others == [1, 1] and steps == [1] * 6 and attrs.count_include_pad and before + after == size - 1
        if not plain or data.ty.ndim != 4:
            return call
        channels = int(data.ty.shape[1])
        padded = self.builder_.emit(relax.op.nn.pad(data, [0, 0, before, after, 0, 0, 0, 0]))
        parts = [relax.op.strided_slice(padded, [1], [start], [start + channels]) for start in range(size)]
        total = self._added([self.builder_.emit(part) for part in parts])
        return relax.op.multiply(total, relax.const(np.float32(1 / size)))

    def _sum(self, call: relax.Call) -> relax.Expr:
        stacked = self._producer(call.args[0], "relax.stack")
        axes = [int(axis) for axis in call.attrs.axis] if call.attrs.axis is not None else []
        if stacked is None or axes != [0] or int(stacked.attrs.axis) != 0 or call.attrs.keepdims:
            return call
        terms = stacked.args[0]
        fields = list(self.lookup_binding(terms).fields) if isinstance(terms, relax.Var) else list(terms.fields)
        if not all(str(term.ty.dtype).startswith("float") for term in fields):
            return call
        return self._added(fields)

    def _added(self, terms: list[relax.Expr]) -> relax.Expr:
        return reduce(lambda left, right: self.builder_.emit(relax.op.add(left, right)), terms)


def _clip(call: relax.Call) -> relax.Expr:
    """Bounds as floats: some converters leave integers."""
    low, high = (float(getattr(bound, "value", bound)) for bound in call.args[1:])
    if low == 0.0 and np.isposinf(high):
        return relax.op.nn.relu(call.args[0])
    return relax.op.clip(call.args[0], low, high)


def _slice(split: relax.Call, index: int) -> relax.Expr:
    """Part ``index`` of a split along an axis of known size."""
    data, cuts = split.args[0], split.attrs.indices_or_sections
    axis = int(split.attrs.axis) % data.ty.ndim
    size = int(data.ty.shape[axis])
    if isinstance(cuts, tvm.tirx.IntImm):
        length = -(-size // int(cuts))
        begin, end = index * length, min((index + 1) * length, size)
    else:
        ends = [0, *(int(cut) for cut in cuts), size]
        begin, end = ends[index], ends[index + 1]
    return relax.op.strided_slice(data, [axis], [begin], [end])


def _global_pool(call: relax.Call) -> relax.Expr:
    data, attrs = call.args[0], call.attrs
    window, whole = [int(size) for size in attrs.pool_size], [int(dim) for dim in data.ty.shape][2:]
    covers = attrs.layout == "NCHW" and window == whole and not any(int(pad) for pad in attrs.padding)
    return relax.op.mean(data, axis=[2, 3], keepdims=True) if covers else call
