"""Whether an operator that only moves values works on int8 or on fp32: it goes where its readers are.

    quantize(view(x))      ->  view(quantize(x))        x fp32, all readers of the view integer
    view(dequantize(x))    ->  as it is                 no reader integer: a layer before it writes fp32 directly

Maximum pooling commutes with quantising too (rounding is monotone), and in int8 it is the faster of the two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from tvm import relax

from tvm_ffn.graph import Unit
from tvm_ffn.unit_kinds import structural_kind


def follow_readers(units: Sequence[Unit], outputs: Collection[relax.Expr]) -> tuple[Unit, ...]:
    """The same units in the same (topological) order, the moving ones integer or float as their readers are."""
    integer: Counter[relax.Var] = Counter()
    floating: Counter[relax.Expr] = Counter(outputs)
    placed = []
    for unit in reversed(units):
        unit = replace(unit, kind=_kind(unit, integer[unit.output], floating[unit.output]))
        readings = integer if unit.is_integer else floating
        readings.update(unit.reads)
        placed.append(unit)
    return tuple(reversed(placed))


def _kind(unit: Unit, integer_readers: int, float_readers: int) -> str:
    if unit.kind in ("view", "concat") and float_readers and not integer_readers:
        return "float"
    if unit.kind == "float" and integer_readers and not float_readers:
        kind = structural_kind(unit.call)
        return kind if kind in ("view", "concat", "max_pool2d") else "float"
    return unit.kind
