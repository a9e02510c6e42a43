"""Cover a canonical graph with units (see `graph`).

Whether a tensor can be int8 follows from the operators alone (`_Matcher.is_integer`): weights make integers, and what
only takes integers keeps them. Operators that merely move values then go where their readers are (`placement`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import numpy as np
import tvm
from tvm import relax

from tvm_ffn.graph import IDENTITY, LINEAR, Network, Unit, shape_of
from tvm_ffn.placement import follow_readers
from tvm_ffn.unit_kinds import (
    ACTIVATIONS,
    activation_of,
    channel_values,
    float_reason,
    is_channelwise,
    is_layer,
    linear_kind,
    op_name,
    structural_kind,
    variables_of,
)


def match_units(mod: tvm.IRModule, layer_names: Collection[str], fp32_layers: Collection[str] = ()) -> Network:
    """Cover a canonical module (`importer.load_model`) with units; ``fp32_layers`` stay float operators."""
    return _Matcher(mod, list(layer_names), set(fp32_layers)).match()


class _Matcher:
    def __init__(self, mod: tvm.IRModule, names: list[str], fp32: set[str]) -> None:
        self.function = function = mod["main"]
        self.functions = {
            var.name_hint: func for var, func in mod.functions_items() if isinstance(func, tvm.tirx.PrimFunc)
        }
        self.bindings = [(b.var, b.value) for block in function.body.blocks for b in block.bindings]
        self.calls = dict(self.bindings)
        self.position = {var: i for i, (var, _) in enumerate(self.bindings)}
        self.outputs = _outputs(function.body.body, self.calls)
        self.uses = Counter(arg for _, value in self.bindings for arg in variables_of(value))
        self.uses.update(self.outputs)
        self.users: dict[relax.Var, list[relax.Var]] = {}
        for var, value in self.bindings:
            for arg in variables_of(value):
                self.users.setdefault(arg, []).append(var)
        self.names = dict(zip([var for var, value in self.bindings if is_layer(value)], names, strict=True))
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
        return Network(follow_readers(units, self.outputs), tuple(self.function.params), self.outputs, self.functions)

    def _unit(self, var: relax.Var, value: relax.Expr) -> tuple[Unit, list[relax.Var]]:
        kind = self._kind(var, value)
        inputs = tuple(variables_of(value))
        chain = [var]
        index = self.position[var]
        name = self.names.get(var) or _span_name(value) or var.name
        if kind in ("float", "view", "concat", "max_pool2d"):
            reason = "fp32 by configuration" if name in self.fp32 else float_reason(value)
            return Unit(kind, name, value, inputs, var, var, reason=reason, index=index), chain
        bias = None
        if kind in LINEAR or op_name(value) == "relax.multiply":
            bias = self._take_bias(chain, value)
        response, residual, activation = chain[-1], None, IDENTITY
        if kind in LINEAR:
            residual = self._take_residual(chain)
            response = chain[-1]
        if kind == "activation":
            activation = activation_of(value)
        else:
            follower = self._only_user(chain[-1])
            if follower is not None and op_name(self.calls[follower]) in ACTIVATIONS:
                found = activation_of(self.calls[follower])
                if found.slope == 1.0 or (kind in LINEAR and residual is None):
                    activation = found
                    chain.append(follower)
        unit = Unit(kind, name, value, inputs, chain[-1], response, bias, residual, activation, index=index)
        return unit, chain

    def _kind(self, var: relax.Var, value: relax.Expr) -> str:
        linear = linear_kind(value)
        if linear:
            return "float" if self.names[var] in self.fp32 else linear
        return structural_kind(value) if self.is_integer(var) else "float"

    def is_integer(self, var: relax.Var) -> bool:
        """Whether the value of ``var`` is made of int8 values by integer kernels."""
        if var not in self._integer:
            value = self.calls.get(var)
            if value is None:
                self._integer[var] = False
            elif linear_kind(value):
                self._integer[var] = self.names[var] not in self.fp32
            else:
                inputs = variables_of(value)
                known = structural_kind(value) != "float" or self._is_bias(value)
                self._integer[var] = known and bool(inputs) and all(self.is_integer(arg) for arg in inputs)
        return self._integer[var]

    def _is_bias(self, value: relax.Expr) -> bool:
        """A constant added to each channel of a linear operator's or a multiplication's result belongs to that unit."""
        if op_name(value) != "relax.add" or not isinstance(value.args[1], tvm.ir.GenericConst):
            return False
        before = self.calls.get(value.args[0])
        if before is None or not (linear_kind(before) or structural_kind(before) == "affine"):
            return False
        return is_channelwise(value.args[1], shape_of(value.args[0]), _channel_axis(before))

    def _only_user(self, var: relax.Var) -> relax.Var | None:
        """The one operator that reads ``var``, unless another unit covers it already."""
        users = self.users.get(var, [])
        return users[0] if self.uses[var] == 1 and users and users[0] not in self.covered else None

    def _take_bias(self, chain: list[relax.Var], value: relax.Call) -> np.ndarray | None:
        follower = self._only_user(chain[-1])
        if follower is None or not self._is_bias(self.calls[follower]):
            return None
        chain.append(follower)
        return channel_values(self.calls[follower].args[1], shape_of(value)[_channel_axis(value)])

    def _take_residual(self, chain: list[relax.Var]) -> relax.Var | None:
        follower = self._only_user(chain[-1])
        if follower is None or structural_kind(self.calls[follower]) != "add":
            return None
        first, second = self.calls[follower].args
        other = second if first.same_as(chain[-1]) else first
        if other.same_as(chain[-1]) or not self.is_integer(other):
            return None
        chain.append(follower)
        return other


def _span_name(value: relax.Expr) -> str:
    """The ONNX node's name on a layer that `importer.ImportedModel.layer_names` does not list, "" without one."""
    span = value.span if float_reason(value) else None
    return span.source_name.name if span is not None else ""


def _channel_axis(value: relax.Call) -> int:
    return -1 if op_name(value) == "relax.matmul" else 1


def _outputs(body: relax.Expr, calls: dict[relax.Var, relax.Expr]) -> tuple[relax.Expr, ...]:
    value = calls.get(body, body) if isinstance(body, relax.Var) else body
    return tuple(value.fields) if isinstance(value, relax.Tuple) else (body,)
