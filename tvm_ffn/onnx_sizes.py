"""What decides the shape of a node's result: shapes are static here, so it has to be known at import.

constants, Shape(tensor), and what is computed of these  -> known, see `onnx_constants`
what is computed of an input's values                    -> refused
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
SIZING: dict[str, tuple[int, ...]] = {
    "AffineGrid": (1,),
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
    **{f"Reduce{kind}": (1,) for kind in REDUCTIONS},
}
"""By operator: the positions of the operands that the shape of its result depends on."""


def sizing_operands(node: onnx.NodeProto) -> list[str]:
    """The names of the operands that have to be known."""
    positions = SIZING.get(node.op_type, ())
    return [node.input[position] for position in positions if position < len(node.input) and node.input[position]]


def check_result(shape: tuple[int, ...]) -> None:
    """Raise ValueError for a result without elements."""
    if any(size < 1 for size in shape):
        raise ValueError(f"its result would have shape {shape}, without elements; give the model a larger input")
