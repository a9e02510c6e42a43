"""An activation's bounds as stored int8 values."""

from __future__ import annotations

import numpy as np

from tvm_ffn.graph import Activation
from tvm_ffn.ranges import INT8_LIMIT


def stored_bounds(activation: Activation, scale: float) -> tuple[int, int]:
    """``(lo, hi)`` of an activation in steps of ``scale``, within [-127, 127]."""
    lo, hi = (np.clip(np.rint(bound / scale), -INT8_LIMIT, INT8_LIMIT) for bound in (activation.lo, activation.hi))
    return int(lo), int(hi)
