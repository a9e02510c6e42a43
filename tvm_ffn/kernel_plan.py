"""Which kernel a layer gets, as small frozen data that can be printed, stored and overridden by a tuner."""

from __future__ import annotations

from dataclasses import dataclass

INT8_KERNEL = "int8"
ROWS_KERNEL = "rows"
GEMV_KERNEL = "masks"
CODE_KERNEL = "code"
PLANES_KERNEL = "planes"
DIGITS_KERNEL = "digits"


@dataclass(frozen=True)
class KernelPlan:
    """Decisions for one target.

    ``pixel_block``: pixels computed at a time, ``chunk``: groups of three inputs whose tables are alive together
    (27 rows * 2 bytes * pixel_block each: 12 groups of 32 pixels take 20 KB of L1), ``dot``: how int8 layers multiply
    (`kernels.dot`). ``isa``: instruction set of weights as code ("avx512", "avx2", "" for none) and ``code_layers``,
    the layers that get it. ``lanes``: int16 elements of a vector, ``digit_vectors``: vectors of pixels whose sums the
    kernel of digit lists keeps in registers.
    """

    pixel_block: int = 32
    chunk: int = 16
    dot: str = "plain"
    isa: str = ""
    code_layers: frozenset[str] = frozenset()
    lanes: int = 8
    digit_vectors: int = 8


def plan_for(architecture: str, vector_bytes: int) -> KernelPlan:
    """Start values for a CPU with vectors of ``vector_bytes``, measured on AVX-512 and AVX2."""
    isa = {64: "avx512", 32: "avx2"}.get(vector_bytes, "") if architecture == "x86_64" else ""
    dot = {64: "avx512", 32: "avx2", 16: "sse2"}[vector_bytes] if architecture == "x86_64" else "plain"
    dot = "neon" if architecture == "aarch64" else dot
    digit_vectors = 4 if vector_bytes == 64 else 16 if architecture == "aarch64" else 8
    chunk = 12 if vector_bytes == 32 else 16  # measured: up to 7 % between them; the rows' sums pass through L1 too
    return KernelPlan(chunk=chunk, dot=dot, isa=isa, lanes=vector_bytes // 2, digit_vectors=digit_vectors)
