"""Operators that are not layers of ours (LRN, softmax, layers kept in fp32): TensorIR for MetaSchedule's own rules."""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import tvm
import tvm_ffi
from tvm import relax, s_tir
from tvm.tirx import PrimFunc

OPERATOR_ATTRIBUTE = "ffn.operator"
_OURS = ("ffn.op", "tirx.is_scheduled")


@dataclass(frozen=True)
class Operator:
    """A function of fixed shapes; equal functions have the same ``key``, in every process and on every machine."""

    key: str
    name: str = field(compare=False)
    function: PrimFunc = field(compare=False, repr=False)

    @property
    def module(self) -> tvm.IRModule:
        """The function as ``main`` of a module that carries the key."""
        return tvm.IRModule({"main": self.function.with_attr(OPERATOR_ATTRIBUTE, self.key)})

    @property
    def outputs(self) -> tuple[int, ...]:
        """Places of the parameters that are written."""
        written = [region.source for block in _blocks(self.function) for region in block.writes]
        return tuple(i for i, p in enumerate(self.function.params) if any(p.same_as(source) for source in written))


def operators_of(mod: tvm.IRModule) -> Counter[Operator]:
    """The operators of a lowered module, each with the number of its calls."""
    found: Counter[Operator] = Counter()
    for block in mod["main"].body.blocks:
        for binding in block.bindings:
            call = binding.value
            if isinstance(call, relax.Call) and call.op == tvm.ir.Op.get("relax.call_tir"):
                operator = operator_of(call.args[0].name_hint, mod[call.args[0]])
                if operator is not None:
                    found[operator] += 1
    return found


def operator_of(name: str, function: object) -> Operator | None:
    """The operator that a function is, None if it is a kernel of ours, scheduled, or of shapes that are not fixed."""
    if not isinstance(function, PrimFunc) or any(a in function.attrs for a in _OURS):
        return None
    shapes = [parameter.ty.shape for parameter in function.params if isinstance(parameter.ty, tvm.tirx.BufferType)]
    if len(shapes) < len(function.params) or not all(isinstance(n, tvm.tirx.IntImm) for s in shapes for n in s):
        return None
    bare = function
    for attribute in ("global_symbol", "op_pattern"):
        bare = bare.without_attr(attribute)
    size = "x".join(str(int(n)) for n in shapes[-1])
    bare = bare.with_attr("global_symbol", "main")
    words = [word.rstrip("0123456789") for word in name.removeprefix("fused_").split("_")]
    return Operator(_key(bare), f"{'_'.join(words)} @{size}", bare)


def _key(function: PrimFunc) -> str:
    """TVM's hash, which leaves out the blocks' names, and these: a trace finds its blocks by them."""
    names = " ".join(str(block.name_hint) for block in _blocks(function))
    return f"{tvm_ffi.structural_hash(function) & (2**64 - 1):016x}-{zlib.crc32(names.encode()):08x}"


def _blocks(function: PrimFunc) -> list[Any]:
    sch = s_tir.Schedule(function)
    return [sch.get(block) for block in sch.get_child_blocks(sch.get_sblock("root"))]
