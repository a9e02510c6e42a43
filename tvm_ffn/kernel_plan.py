"""Which kernel a layer gets, as small frozen data that can be printed, stored and overridden by a tuner."""

from __future__ import annotations

from dataclasses import dataclass

ROWS_KERNEL = "rows"
GEMV_KERNEL = "masks"
FEW_PIXELS = 8  # below this many rows a dense layer's vectors run over outputs


@dataclass(frozen=True)
class KernelPlan:
    """Decisions of the portable kernels.

    ``pixel_block``: pixels computed at a time, ``chunk``: groups of three inputs whose tables are alive together
    (27 rows * 2 bytes * pixel_block each: 16 groups of 32 pixels take 27 KB of L1), ``float_block``: pixels of an int8
    convolution's register tile.
    """

    pixel_block: int = 32
    chunk: int = 16
    float_block: int = 32


def plan_for(vector_bytes: int) -> KernelPlan:
    """Start values for a CPU with vectors of ``vector_bytes``, measured on AVX-512 and AVX2."""
    return KernelPlan(float_block=max(8, vector_bytes // 2))
