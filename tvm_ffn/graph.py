"""The network as a list of units: what one integer kernel will do, in order.

A unit is one operator of the imported graph together with what folds into its kernel's epilogue:

    conv2d | matmul  [+ constant bias]  [+ residual tensor]  [relu | clip | leaky relu]
    add | multiply-add by constants (affine) | pooling  [relu | clip]
    view (reshape, transpose, slice, zero padding), concat: move int8 values, the scale stays
    float: anything else, on fp32 tensors, one operator a unit

Whether a tensor can be int8 follows from the operators alone (`_Matcher.is_integer`): weights make integers, and what
only takes integers keeps them. Everything later (calibration, solving, rewriting) walks this list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import tvm
from tvm import relax

LINEAR = ("conv2d", "dense")
_VIEWS = (
    "relax.reshape",
    "relax.permute_dims",
    "relax.squeeze",
    "relax.expand_dims",
    "relax.flatten",
    "relax.strided_slice",
    "relax.nn.pad",
)
_ACTIVATIONS = ("relax.nn.relu", "relax.clip", "relax.nn.leakyrelu")


@dataclass(frozen=True)
class Activation:
    """``clip(x * (slope if x < 0 else 1), lo, hi)`` in real units; infinities mean unbounded."""

    lo: float = -np.inf
    hi: float = np.inf
    slope: float = 1.0

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if self.slope != 1.0:
            x = np.where(x < 0, x * np.float32(self.slope), x)
        return x if np.isinf(self.lo) and np.isinf(self.hi) else np.clip(x, self.lo, self.hi)


IDENTITY = Activation()


@dataclass(frozen=True, eq=False)
class Unit:
    """One unit; ``call`` is its operator, ``output`` the variable of the last operator it covers.

    ``response`` is the variable that holds a linear unit's value before residual and activation.
    """

    kind: str
    name: str
    call: relax.Call
    inputs: tuple[relax.Var, ...]
    output: relax.Var
    response: relax.Var
    bias: np.ndarray | None = None
    residual: relax.Var | None = None
    activation: Activation = IDENTITY

    @property
    def is_integer(self) -> bool:
        return self.kind != "float"

    @property
    def is_linear(self) -> bool:
        return self.kind in LINEAR

    @cached_property
    def weight(self) -> np.ndarray:
        """Weight as (groups, m, n): m outputs of n inputs each, convolution inputs in the order (channel, dy, dx)."""
        value = self.call.args[1].value.numpy()
        if self.kind == "dense":
            return np.ascontiguousarray(value.T)[None]
        groups = int(self.call.attrs.groups)
        return value.reshape(groups, value.shape[0] // groups, -1)

    @property
    def groups(self) -> int:
        return int(self.call.attrs.groups) if self.kind == "conv2d" else 1

    @property
    def is_depthwise(self) -> bool:
        return self.kind == "conv2d" and self.weight.shape[1] == 1 and self.groups > 1


@dataclass(frozen=True)
class Network:
    """Units in topological order, the graph's parameters and the variables it returns."""

    units: tuple[Unit, ...]
    parameters: tuple[relax.Var, ...]
    outputs: tuple[relax.Var, ...]

    @property
    def linear(self) -> tuple[Unit, ...]:
        """The convolutions and dense layers that run on integers."""
        return tuple(unit for unit in self.units if unit.is_linear)

    @cached_property
    def integer_inputs(self) -> set[relax.Var]:
        """Variables that some unit reads as int8."""
        read = {var for unit in self.units if unit.is_integer for var in unit.inputs}
        return read | {unit.residual for unit in self.units if unit.residual is not None}

    def wants_float(self, var: relax.Var) -> bool:
        """Whether a float unit or the caller reads ``var``."""
        return var in self.outputs or any(var in unit.inputs for unit in self.units if not unit.is_integer)


def shape_of(expr: relax.Expr) -> tuple[int, ...]:
    """Static shape of a tensor expression."""
    return tuple(int(dim) for dim in expr.ty.shape)


def match_units(function: relax.Function, layer_names: Collection[str], fp32_layers: Collection[str] = ()) -> Network:
    """Cover a canonical function (`importer.load_model`) with units; ``fp32_layers`` stay float operators."""
    return _Matcher(function, list(layer_names), set(fp32_layers)).match()


class _Matcher:
    def __init__(self, function: relax.Function, names: list[str], fp32: set[str]) -> None:
        self.function = function
        self.bindings = [(b.var, b.value) for block in function.body.blocks for b in block.bindings]
        self.calls = dict(self.bindings)
        self.position = {var: i for i, (var, _) in enumerate(self.bindings)}
        self.outputs = _outputs(function.body.body, self.calls)
        self.uses = Counter(arg for _, value in self.bindings for arg in _variables(value))
        self.uses.update(self.outputs)
        self.users: dict[relax.Var, list[relax.Var]] = {}
        for var, value in self.bindings:
            for arg in _variables(value):
                self.users.setdefault(arg, []).append(var)
        constant_weights = [var for var, value in self.bindings if _linear_kind(value)]
        self.names = dict(zip(constant_weights, names, strict=True))
        self.fp32 = fp32
        self.covered: set[relax.Var] = set()
        self._integer: dict[relax.Var, bool] = {}

    def match(self) -> Network:
        units = []
        for var, value in self.bindings:
            if var not in self.covered and not isinstance(value, relax.Tuple):
                unit, chain = self._unit(var, value)
                self.covered.update(chain)
                units.append(unit)
        units.sort(key=lambda unit: self.position[unit.output])
        return Network(tuple(units), tuple(self.function.params), self.outputs)

    def _unit(self, var: relax.Var, value: relax.Expr) -> tuple[Unit, list[relax.Var]]:
        kind = self._kind(var, value)
        inputs = tuple(_variables(value))
        chain = [var]
        name = self.names.get(var, var.name)
        if kind in ("float", "view", "concat", "max_pool2d"):
            return Unit(kind, name, value, inputs, var, var), chain
        bias = None
        if kind in LINEAR or kind == "affine":
            bias = self._take_bias(chain, value)
        response, residual, activation = chain[-1], None, IDENTITY
        if kind in LINEAR:
            residual = self._take_residual(chain)
        if kind == "activation":
            activation = _activation(value)
        else:
            follower = self._only_user(chain[-1])
            if follower is not None and _op_name(self.calls[follower]) in _ACTIVATIONS:
                found = _activation(self.calls[follower])
                if found.slope == 1.0 or (kind in LINEAR and residual is None):
                    activation = found
                    chain.append(follower)
        return Unit(kind, name, value, inputs, chain[-1], response, bias, residual, activation), chain

    def _kind(self, var: relax.Var, value: relax.Expr) -> str:
        linear = _linear_kind(value)
        if linear:
            return "float" if self.names[var] in self.fp32 else linear
        return _structural_kind(value) if self.is_integer(var) else "float"

    def is_integer(self, var: relax.Var) -> bool:
        """Whether the value of ``var`` is made of int8 values by integer kernels."""
        if var not in self._integer:
            value = self.calls.get(var)
            if value is None:
                self._integer[var] = False
            elif _linear_kind(value):
                self._integer[var] = self.names[var] not in self.fp32
            else:
                inputs = _variables(value)
                known = _structural_kind(value) != "float" or self._is_bias(value)
                self._integer[var] = known and bool(inputs) and all(self.is_integer(arg) for arg in inputs)
        return self._integer[var]

    def _is_bias(self, value: relax.Expr) -> bool:
        """A constant added to a linear operator's or a multiplication's result is part of that unit."""
        if _op_name(value) != "relax.add" or not isinstance(value.args[1], tvm.ir.GenericConst):
            return False
        before = self.calls.get(value.args[0])
        return before is not None and bool(_linear_kind(before) or _structural_kind(before) == "affine")

    def _only_user(self, var: relax.Var) -> relax.Var | None:
        """The one operator that reads ``var``, unless another unit covers it already."""
        users = self.users.get(var, [])
        return users[0] if self.uses[var] == 1 and users and users[0] not in self.covered else None

    def _take_bias(self, chain: list[relax.Var], value: relax.Call) -> np.ndarray | None:
        follower = self._only_user(chain[-1])
        if follower is None or not self._is_bias(self.calls[follower]):
            return None
        constant = self.calls[follower].args[1].value.numpy()
        channels = shape_of(value)[-1 if _op_name(value) == "relax.matmul" else 1]
        if constant.size not in (1, channels):
            return None
        chain.append(follower)
        return np.broadcast_to(constant.reshape(-1), (channels,)).astype(np.float32)

    def _take_residual(self, chain: list[relax.Var]) -> relax.Var | None:
        follower = self._only_user(chain[-1])
        if follower is None or _structural_kind(self.calls[follower]) != "add":
            return None
        first, second = self.calls[follower].args
        other = second if first.same_as(chain[-1]) else first
        if other.same_as(chain[-1]) or not self.is_integer(other):
            return None
        chain.append(follower)
        return other


def _outputs(body: relax.Expr, calls: dict[relax.Var, relax.Expr]) -> tuple[relax.Var, ...]:
    value = calls.get(body, body) if isinstance(body, relax.Var) else body
    return tuple(value.fields) if isinstance(value, relax.Tuple) else (body,)


def _variables(value: relax.Expr) -> list[relax.Var]:
    if isinstance(value, relax.Var):
        return [value]
    if isinstance(value, relax.TupleGetItem):
        return _variables(value.tuple_value)
    fields = value.args if isinstance(value, relax.Call) else value.fields if isinstance(value, relax.Tuple) else []
    return [var for field in fields for var in _variables(field)]


def _op_name(value: relax.Expr) -> str:
    return value.op.name if isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.Op) else ""


def _linear_kind(value: relax.Expr) -> str:
    """"conv2d" or "dense" for a linear operator with a constant weight, else ""."""
    if _op_name(value) not in ("relax.nn.conv2d", "relax.matmul") or not isinstance(value.args[1], tvm.ir.GenericConst):
        return ""
    return "conv2d" if _op_name(value) == "relax.nn.conv2d" else "dense"


def _structural_kind(value: relax.Expr) -> str:
    """Kind of an operator that keeps integers integer, "float" for any other."""
    name = _op_name(value)
    if name in _ACTIVATIONS:
        return "activation"
    if name == "relax.nn.pad":
        return "view" if value.attrs.pad_mode == "constant" and float(value.attrs.pad_value) == 0.0 else "float"
    if name in _VIEWS:
        return "view"
    if name == "relax.concat":
        return "concat"
    if name == "relax.nn.max_pool2d" or name == "relax.nn.avg_pool2d":
        return name.removeprefix("relax.nn.") if value.attrs.layout == "NCHW" else "float"
    if name == "relax.mean" and len(shape_of(value.args[0])) == 4:
        axes = sorted(int(axis) % 4 for axis in value.attrs.axis)
        return "avg_pool2d" if axes == [2, 3] else "float"
    if name in ("relax.add", "relax.multiply"):
        first, second = value.args
        if isinstance(first, relax.Var) and isinstance(second, relax.Var):
            return "add" if name == "relax.add" and shape_of(first) == shape_of(second) else "float"
        if name == "relax.multiply" and isinstance(second, tvm.ir.GenericConst):
            return "affine" if _is_channelwise(shape_of(first), second.value.shape) else "float"
    return "float"


def _is_channelwise(shape: tuple[int, ...], constant: tuple[int, ...]) -> bool:
    return len(shape) == 4 and tuple(int(d) for d in constant) == (1, shape[1], 1, 1)


def _activation(call: relax.Call) -> Activation:
    name = _op_name(call)
    if name == "relax.nn.relu":
        return Activation(lo=0.0)
    if name == "relax.nn.leakyrelu":
        return Activation(slope=float(call.attrs.alpha))
    lo, hi = (_scalar(arg) for arg in call.args[1:3])
    return Activation(lo=lo, hi=hi)


def _scalar(value: object) -> float:
    inner = getattr(value, "value", value)
    return float(inner.numpy()) if hasattr(inner, "numpy") else float(inner)  # type: ignore[arg-type]
