"""The network as a list of units: what one integer kernel will do, in order.

A unit is one operator of the imported graph together with what folds into its kernel's epilogue:

    conv2d | matmul  [+ constant bias]  [+ residual tensor]  [relu | clip | leaky relu]
    add | multiply-add by constants (affine) | pooling  [relu | clip]
    view (reshape, transpose, slice, zero padding), concat: move int8 values, the scale stays
    float: anything else, on fp32 tensors, one operator a unit

`matcher` makes the list; everything later (calibration, solving, rewriting) walks it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import tvm
from tvm import relax

LINEAR = ("conv2d", "dense")


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

    ``response`` is the variable that holds a linear unit's value before the activation, a residual included; ``reason``
    says why a layer with a constant weight is a float unit; ``index`` is the operator's place in the graph. ``call``
    may also be a TupleGetItem or a constant (float units).
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
    reason: str = ""
    index: int = 0

    @property
    def is_integer(self) -> bool:
        return self.kind != "float"

    @property
    def reads(self) -> tuple[relax.Var, ...]:
        """The variables the unit reads, each once."""
        residual = () if self.residual is None else (self.residual,)
        return tuple(dict.fromkeys((*self.inputs, *residual)))

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
    """Units in topological order, the graph's parameters, the variables (or constants) it returns, and by name the
    TensorIR functions that float units call."""

    units: tuple[Unit, ...]
    parameters: tuple[relax.Var, ...]
    outputs: tuple[relax.Expr, ...]
    functions: Mapping[str, tvm.tirx.PrimFunc]

    @property
    def linear(self) -> tuple[Unit, ...]:
        """The convolutions and dense layers that run on integers, in the graph's order of their operators."""
        return tuple(sorted((unit for unit in self.units if unit.is_linear), key=lambda unit: unit.index))

    @cached_property
    def integer_inputs(self) -> set[relax.Var]:
        """Variables that some unit reads as int8."""
        return {var for unit in self.units if unit.is_integer for var in unit.reads}


def shape_of(expr: relax.Expr) -> tuple[int, ...]:
    """Static shape of a tensor expression."""
    return tuple(int(dim) for dim in expr.ty.shape)
