"""The pass that refuses multiplies in ternary products: it finds them wherever they hide, and passes our operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tvm
from tvm import tirx
from tvm.script.ir_builder import tirx as T
from tvm.tirx import PrimFunc

from benchmarks import shapes
from benchmarks.kernel_case import kernel_case
from tvm_ffn.kernel_plan import KernelPlan
from tvm_ffn.kernels.builder import KernelBuilder
from tvm_ffn.passes.verify_multiply_free import VerifyMultiplyFree, multiplying_blocks

ROWS, INPUTS, PIXELS = 4, 6, 8

Value = Callable[[Any, Any], Any]


def product(value: Value, op: str = "ternary_dense", block: str = "y_partial") -> PrimFunc:
    """``out[m, p] = sum_k value(x[k, p], w[m, k])`` in a block of the given name."""
    b = KernelBuilder("kernel", {"ffn.op": op})
    x, w = b.arg("x", (INPUTS, PIXELS), "int16"), b.arg("w", (ROWS, INPUTS), "int16")
    out = b.arg("out", (ROWS, PIXELS), "int16")
    total = b.reduce(block, (ROWS, PIXELS), (INPUTS,), "int16", lambda m, p, k: value(x[k, p], w[m, k]))
    b.compute("store", (ROWS, PIXELS), "int16", lambda m, p: total[m, p], out=out)
    return b.finish()


def verify(function: PrimFunc) -> None:
    mod = tvm.IRModule({"a_layer": function.with_attr("global_symbol", "a_layer")})
    tvm.transform.Sequential([VerifyMultiplyFree()])(mod)


def add(x: Any, w: Any) -> Any:
    return T.Select(w > T.int16(0), x, T.int16(0) - x)


def wide(x: Any) -> Any:
    return T.Cast("float32", x)


def let(x: Any, w: Any) -> Any:
    name = tirx.Var("v", "int16")
    return tirx.Let(name, x + w, name * w)


MULTIPLIES: dict[str, Value] = {
    "integer": lambda x, w: x * w,
    "inside a sum": lambda x, w: x + (T.int16(1) - x * w),
    "as floats": lambda x, w: T.Cast("int16", wide(x) * wide(w)),
    "in a branch": lambda x, w: T.Select(w > T.int16(0), x, x * w),
    "in a guarded branch": lambda x, w: T.if_then_else(w > T.int16(0), x * w, x),
    "in a maximum": lambda x, w: T.max(x, x * w),
    "in the body of a let": let,
    "bound to a name": lambda x, w: T.Bind(x * w) + x,
    "division": lambda x, w: T.Cast("int16", wide(x) / wide(w)),
    "fused multiply-add": lambda x, w: T.Cast("int16", T.fma(wide(x), wide(w), T.float32(0))),
    "power": lambda x, w: T.Cast("int16", T.pow(wide(x), T.float32(2))),
}


@pytest.mark.parametrize("kind", MULTIPLIES)
def test_refused_with_the_names_of_function_and_block(kind: str) -> None:
    with pytest.raises(ValueError, match="a_layer: the ternary block 'y_partial' multiplies"):
        verify(product(MULTIPLIES[kind]))


@pytest.mark.parametrize(
    "value", [add, lambda x, w: T.Select(x * w > T.int16(0), x, T.int16(0))], ids=["add", "condition"]
)
def test_adds_and_conditions_pass(value: Value) -> None:
    verify(product(value))


def test_only_requantising_blocks_may_multiply() -> None:
    assert multiplying_blocks(product(MULTIPLIES["integer"], block="middle")) == ["middle"]
    verify(product(MULTIPLIES["integer"], block="middle"))


def test_other_operators_may_multiply() -> None:
    verify(product(MULTIPLIES["integer"], op="int8_dense"))


@pytest.mark.parametrize("shape", tuple(shapes.tested()), ids=lambda shape: shape.name)
def test_our_operators_pass(shape: shapes.Shape) -> None:
    function = kernel_case(shape, KernelPlan(isa="avx512")).operator.prim_func("kernel")
    verify(function)
    one_stage = isinstance(shape, shapes.PlanesConv | shapes.DigitsConv | shapes.DigitsMatmul)
    is_ternary = one_stage or isinstance(shape, shapes.TernaryConv | shapes.TernaryMatmul)
    assert str(function.attrs["ffn.op"]).startswith("ternary") == is_ternary
    if is_ternary:
        last = "store" if function.attrs["ffn.op"] == "ternary_gemv" else "epilogue"
        assert set(multiplying_blocks(function)) == ({last} if one_stage else {"middle", last})
