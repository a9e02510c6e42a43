"""What kind of unit an operator can be: read off the operator alone, without its neighbours."""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from tvm_ffn.graph import Activation, shape_of

LAYER_OPS = ("relax.nn.conv2d", "relax.matmul")
ACTIVATIONS = ("relax.nn.relu", "relax.clip", "relax.nn.leakyrelu")
_OTHER_LAYERS = ("conv1d", "conv3d", "conv1d_transpose", "conv2d_transpose", "conv3d_transpose")
_VIEWS = (
    "relax.reshape",
    "relax.permute_dims",
    "relax.squeeze",
    "relax.expand_dims",
    "relax.flatten",
    "relax.strided_slice",
)


def op_name(value: relax.Expr) -> str:
    """Name of the operator called, "" for what is no call of one."""
    return value.op.name if isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.Op) else ""


def variables_of(value: relax.Expr) -> list[relax.Var]:
    """The variables an expression reads, in order."""
    if isinstance(value, relax.Var):
        return [value]
    if isinstance(value, relax.TupleGetItem):
        return variables_of(value.tuple_value)
    fields = value.args if isinstance(value, relax.Call) else value.fields if isinstance(value, relax.Tuple) else []
    return [var for field in fields for var in variables_of(field)]


def is_layer(value: relax.Expr) -> bool:
    """Whether this is a conv2d or matmul with a constant weight: what `importer.ImportedModel.layer_names` names."""
    return op_name(value) in LAYER_OPS and isinstance(value.args[1], tvm.ir.GenericConst)


def linear_kind(value: relax.Expr) -> str:
    """ "conv2d" or "dense" for a layer that integer kernels can compute, else ""."""
    if not is_layer(value) or float_reason(value):
        return ""
    return "conv2d" if op_name(value) == "relax.nn.conv2d" else "dense"


def float_reason(value: relax.Expr) -> str:
    """Why an operator with a constant weight cannot become an integer layer; "" if it can, or has no such weight."""
    name = op_name(value).removeprefix("relax.").removeprefix("nn.")
    if name in _OTHER_LAYERS and isinstance(value.args[1], tvm.ir.GenericConst):
        return f"there is no integer kernel for {name}"
    if not is_layer(value):
        return ""
    weight = value.args[1].ty
    if str(weight.dtype) != "float32" or str(value.args[0].ty.dtype) != "float32":
        return f"computes on {value.args[0].ty.dtype} and {weight.dtype}, not on float32"
    return "a stack of matrices, not one" if name == "matmul" and weight.ndim != 2 else ""


def structural_kind(value: relax.Expr) -> str:
    """Kind of an operator that keeps integers integer, "float" for any other."""
    name = op_name(value)
    if name in ACTIVATIONS:
        return "activation"
    if name in _VIEWS or _moves_values(value, name):
        return "view"
    if name == "relax.concat":
        whole = isinstance(value.args[0], relax.Tuple) and all(isinstance(f, relax.Var) for f in value.args[0].fields)
        return "concat" if whole else "float"
    if name in ("relax.nn.max_pool2d", "relax.nn.avg_pool2d"):
        return name.removeprefix("relax.nn.") if value.attrs.layout == "NCHW" else "float"
    if name == "relax.mean" and len(shape_of(value.args[0])) == 4 and value.attrs.axis is not None:
        axes = sorted(int(axis) % 4 for axis in value.attrs.axis)
        return "avg_pool2d" if axes == [2, 3] else "float"
    if name in ("relax.add", "relax.multiply"):
        return _binary_kind(value, name)
    return "float"


def _moves_values(value: relax.Expr, name: str) -> bool:
    """Padding with zeros and enlarging by repetition: views on a condition."""
    if name == "relax.nn.pad":
        return value.attrs.pad_mode == "constant" and float(value.attrs.pad_value) == 0.0
    return name == "relax.image.resize2d" and value.attrs.method == "nearest_neighbor"


def _binary_kind(value: relax.Call, name: str) -> str:
    first, second = value.args
    if isinstance(first, relax.Var) and isinstance(second, relax.Var):
        return "add" if name == "relax.add" and shape_of(first) == shape_of(second) else "float"
    if not isinstance(first, relax.Var) or not isinstance(second, tvm.ir.GenericConst):
        return "float"
    shape = shape_of(first)
    return "affine" if len(shape) == 4 and is_channelwise(second, shape, 1) else "float"


def is_channelwise(constant: relax.Expr, shape: tuple[int, ...], axis: int) -> bool:
    """Whether a constant broadcasts to ``shape`` with one value an index of ``axis``, or one in all."""
    given = shape_of(constant)
    full = (1,) * (len(shape) - len(given)) + given
    allowed = [(1, size) if i == axis % len(shape) else (1,) for i, size in enumerate(shape)]
    return len(full) == len(shape) and all(size in sizes for size, sizes in zip(full, allowed, strict=True))


def activation_of(call: relax.Call) -> Activation:
    """The activation that a call of one of ``ACTIVATIONS`` computes."""
    name = op_name(call)
    if name == "relax.nn.relu":
        return Activation(lo=0.0)
    if name == "relax.nn.leakyrelu":
        return Activation(slope=float(call.attrs.alpha))
    lo, hi = (_scalar(arg) for arg in call.args[1:3])
    return Activation(lo=lo, hi=hi)


def _scalar(value: object) -> float:
    inner = getattr(value, "value", value)
    return float(inner.numpy()) if hasattr(inner, "numpy") else float(inner)  # type: ignore[arg-type]


def channel_values(constant: relax.Expr, channels: int) -> np.ndarray:
    """A channelwise constant as float32 (channels,)."""
    return np.broadcast_to(constant.value.numpy().reshape(-1), (channels,)).astype(np.float32)
