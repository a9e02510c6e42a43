"""An activation's bounds as stored int8 values."""

from __future__ import annotations

import numpy as np

from tvm_ffn.graph import Activation
from tvm_ffn.ranges import INT8_LIMIT


def stored_bounds(activation: Activation, steps: np.ndarray, zero: int) -> tuple[int, int]:
    """``(lo, hi)`` of an activation in steps of real value ``steps`` (channels) from ``zero``, within [-127, 127], the
    same for all channels: `equalize` sees to it."""
    pairs = [
        np.clip(np.rint(bound / steps) + zero, -INT8_LIMIT, INT8_LIMIT) for bound in (activation.lo, activation.hi)
    ]
    assert all((bounds == bounds[0]).all() for bounds in pairs), "channels would be clipped in different places"
    return int(pairs[0][0]), int(pairs[1][0])
