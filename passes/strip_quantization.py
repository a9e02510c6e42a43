"""Undo the fake quantisation of a QDQ graph, so that its layers can be calibrated and factorised like any other.

    dequantize(quantize(x, s, z), s, z)  ->  clip(x, (lowest - z) s, (highest - z) s)

for one scale a tensor, [lowest, highest] the integer type's range: rounding goes, saturation stays, as exporters let it
stand in for a ReLU or ReLU6. Clips that can never bind are left out, and a clip of a clip or ReLU becomes one:

    clip(clip(x, a, b), c, d)  ->  clip(x, max(a, c), min(b, d))      if the intervals overlap

Refused (left as it is): a scale for each channel, scales that are no constants, pairs that differ in scale or zero.
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from tvm_ffn.onnx_frontend import constant_value

Interval = tuple[float, float]
EVERYTHING: Interval = (-np.inf, np.inf)
KEEPING = ("reshape", "permute_dims", "squeeze", "expand_dims", "strided_slice", "nn.max_pool2d", "mean")


@tvm.transform.module_pass(opt_level=0, name="StripQuantization")
class StripQuantization:
    """Module pass; the quantize operators it leaves unused go with the next dead code elimination."""

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the function "main"."""
        rewriter = _Stripper(mod)
        rewriter.builder_.update_func(mod.get_global_var("main"), rewriter.visit_expr(mod["main"]))
        tidy = [relax.transform.CanonicalizeBindings(), relax.transform.DeadCodeElimination(["main"])]
        return tvm.transform.Sequential(tidy)(rewriter.builder_.get())


@mutator
class _Stripper(PyExprMutator):
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        if _name(call) != "dequantize":
            return call
        source = self._producer(call.args[0])
        if source is None or _name(source) != "quantize":
            return call
        bounds = _saturation(source, call)
        return call if bounds is None else self._clip(source.args[0], bounds)

    def _producer(self, expr: relax.Expr) -> relax.Call | None:
        value = self.lookup_binding(expr) if isinstance(expr, relax.Var) else expr
        return value if isinstance(value, relax.Call) else None

    def _clip(self, x: relax.Expr, bounds: Interval) -> relax.Expr:
        known = self._interval(x)
        if bounds[0] <= known[0] and known[1] <= bounds[1]:
            return x
        inner = self._producer(x)
        both = max(bounds[0], known[0]), min(bounds[1], known[1])
        if inner is not None and _name(inner) in ("clip", "nn.relu") and both[0] <= both[1]:
            return relax.op.clip(inner.args[0], *both)
        return relax.op.clip(x, *bounds)

    def _interval(self, expr: relax.Expr) -> Interval:
        """Where the values of ``expr`` are known to lie."""
        call = self._producer(expr)
        if call is None:
            return EVERYTHING
        name = _name(call)
        if name == "clip":
            return float(call.args[1]), float(call.args[2])
        if name == "nn.relu":
            return 0.0, np.inf
        return self._interval(call.args[0]) if name in KEEPING else EVERYTHING


def _name(call: relax.Call) -> str:
    return call.op.name.removeprefix("relax.") if isinstance(call.op, tvm.ir.Op) else ""


def _saturation(quantize: relax.Call, dequantize: relax.Call) -> Interval | None:
    """Real values of the smallest and largest integer, None unless both operators use the same scalar constants."""
    values = [constant_value(arg) for call in (quantize, dequantize) for arg in call.args[1:]]
    dtype = str(quantize.attrs.out_dtype)
    if any(value is None or value.size != 1 for value in values) or "int" not in dtype:
        return None
    scale, zero, again, zero_again = (value.item() for value in values if value is not None)
    if (scale, zero) != (again, zero_again):
        return None
    limits = np.iinfo(dtype)
    return float((limits.min - zero) * scale), float((limits.max - zero) * scale)
