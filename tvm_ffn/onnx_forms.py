"""Forms of operators that TVM takes for others, or fails at behind the import: refused.

BatchNormalization, Dropout in training mode       -> TVM imports them as in evaluation
Div, Mod by a zero that is known                   -> integers trap; of floats TVM divides constants as it builds
PRelu of a slope that is no slope of its operand   -> an assertion
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

CHECKED = frozenset({"BatchNormalization", "Div", "Dropout", "Mod", "PRelu"})


def check_form(
    operator: str,
    attrs: dict[str, Any],
    shapes: Sequence[tuple[int, ...] | None],
    values: Sequence[np.ndarray | None],
) -> None:
    """Raise ValueError for a form that is refused.

    ``shapes`` are None for operands that are left out, ``values`` for those that are not known now too.
    """
    trained = operator == "BatchNormalization" and attrs.get("training_mode")
    if operator == "Dropout" and len(shapes) > 2 and shapes[2] is not None:
        trained = values[2] is None or values[2].any()
    if trained:
        raise ValueError("it is in training mode; export the model in evaluation mode")
    if operator in ("Div", "Mod") and values[1] is not None:
        whole = values[1].dtype.kind in "iu"
        if (whole and not values[1].all()) or (values[1].size == 1 and not values[1].any()):
            raise ValueError("it divides by zero; repair or export the model again")
    if operator == "PRelu":
        data, slope = (shape or () for shape in shapes)
        fits = all(size in (1, given) for size, given in zip(reversed(slope), reversed(data), strict=False))
        if len(slope) > len(data) or not fits:
            raise ValueError(f"a slope of shape {slope} does not fit an input of shape {data}; give one a channel")
