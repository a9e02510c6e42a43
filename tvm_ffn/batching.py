"""Decide whether a graph for one sample may be run on a batch: whether its first axis is carried through unmixed.

Every tensor must start with an axis of size 1 and every operator must be known to treat the samples along that axis
alike and separately. An operator that is not known makes the answer no, which costs time but never a wrong number.
"""

from __future__ import annotations

from collections.abc import Callable

import tvm
from tvm import relax

UNARY = (
    "nn.max_pool2d",
    "nn.avg_pool2d",
    "nn.avg_pool3d",
    "nn.relu",
    "nn.leakyrelu",
    "clip",
    "exp",
    "sqrt",
    "tanh",
    "abs",
    "negative",
)
BINARY = ("add", "subtract", "multiply", "divide", "maximum", "minimum", "power")


def runs_in_batches(func: relax.Function) -> bool:
    """True if ``func``, whose inputs start with an axis of size 1, gives on a batch what it gives on each sample."""
    bindings = [binding for block in func.body.blocks for binding in block.bindings]
    variables = [*func.params, *(binding.var for binding in bindings)]
    return all(_starts_with_one(var.ty) for var in variables) and all(_separate(b.value) for b in bindings)


def _starts_with_one(kind: tvm.ir.Type) -> bool:
    if isinstance(kind, relax.TupleType):
        return all(_starts_with_one(field) for field in kind.fields)
    return isinstance(kind, relax.TensorType) and kind.shape is not None and kind.ndim > 0 and int(kind.shape[0]) == 1


def _separate(value: relax.Expr) -> bool:
    if not isinstance(value, relax.Call):
        return isinstance(value, (relax.Var, relax.Tuple, relax.TupleGetItem))
    name = value.op.name if isinstance(value.op, tvm.ir.Op) else ""
    return name in _RULES and _RULES[name](value)


def _is_constant(expr: relax.Expr) -> bool:
    return isinstance(expr, tvm.ir.GenericConst)


def _elementwise(call: relax.Call) -> bool:
    """Variables of the result's rank, so that the first axes meet; constants without a first axis of their own."""
    rank = call.ty.ndim
    return all(
        (arg.ty.ndim < rank or int(arg.ty.shape[0]) == 1) if _is_constant(arg) else arg.ty.ndim == rank
        for arg in call.args
    )


def _product(call: relax.Call) -> bool:
    left, right = call.args
    if _is_constant(right):
        return right.ty.ndim == 2 and not _is_constant(left)
    return not _is_constant(left) and left.ty.ndim == right.ty.ndim >= 3


def _off_first(call: relax.Call, axes: object) -> bool:
    """None of ``axes`` (a number, a list, or None for all) is the first one."""
    if axes is None:
        return False
    rank = (call.ty if isinstance(call.ty, relax.TensorType) else call.args[0].ty).ndim
    numbers = [axes] if isinstance(axes, int) else [int(axis) for axis in axes]  # type: ignore[attr-defined]
    return all(axis % rank != 0 for axis in numbers)


def _reduction(call: relax.Call) -> bool:
    axes = call.attrs.axis
    return axes is not None and all(int(axis) % call.args[0].ty.ndim != 0 for axis in axes)


def _always(call: relax.Call) -> bool:
    return True


_RULES: dict[str, Callable[[relax.Call], bool]] = {
    **{f"relax.{name}": _always for name in (*UNARY, "sigmoid", "astype", "reshape")},
    **{f"relax.{name}": _elementwise for name in BINARY},
    **{f"relax.{name}": _reduction for name in ("mean", "sum", "max", "min")},
    "relax.nn.conv2d": lambda call: _is_constant(call.args[1]),
    "relax.matmul": _product,
    "relax.nn.softmax": lambda call: _off_first(call, int(call.attrs.axis)),
    "relax.concat": lambda call: (
        call.attrs.axis is not None
        and _off_first(call, int(call.attrs.axis))
        and isinstance(call.args[0], relax.Tuple)
        and not any(map(_is_constant, call.args[0].fields))
    ),
    "relax.nn.layer_norm": lambda call: _off_first(call, call.attrs.axes) and all(map(_is_constant, call.args[1:])),
    "relax.nn.pad": lambda call: not any(int(width) for width in call.attrs.pad_width[:2]),
    "relax.permute_dims": lambda call: call.attrs.axes is not None and int(call.attrs.axes[0]) == 0,
    "relax.squeeze": _reduction,
    "relax.expand_dims": lambda call: _off_first(call, call.attrs.axis),
    "relax.broadcast_to": lambda call: call.args[0].ty.ndim == call.ty.ndim,
    "relax.strided_slice": lambda call: (
        isinstance(call.args[1], relax.Tuple) and _off_first(call, [int(axis) for axis in call.args[1].fields])
    ),
    "relax.quantize": lambda call: all(map(_is_constant, call.args[1:])),
    "relax.dequantize": lambda call: all(map(_is_constant, call.args[1:])),
}
