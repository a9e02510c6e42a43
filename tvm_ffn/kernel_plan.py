"""Decisions about kernels, as small frozen data that can be printed, stored and overridden by a tuner."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tvm_ffn import targets

if TYPE_CHECKING:
    import tvm.target

INT8_KERNEL = "int8"
ROWS_KERNEL = "rows"
GEMV_KERNEL = "masks"
LUT_KERNEL = "lut"
CODE_KERNEL = "code"
PLANES_KERNEL = "planes"
DIGITS_KERNEL = "digits"


@dataclass(frozen=True)
class KernelPlan:
    """Decisions for one layer on one target.

    What the target has, ``isa``: instruction set of weights as code ("avx512", "avx2", "" for none), ``dot``: how int8
    layers multiply (`kernels.dot`), ``lut``: how outputs are looked up (`kernels.lut`, "" for not at all), ``lanes``:
    int16 elements of a vector, ``threads``, that a layer's work should keep busy. ``code``: whether the weights are
    code.

    Row tables: ``pixel_block`` pixels computed at a time, ``table_group`` inputs to a table (0: two where few outputs
    share it, else three), ``chunk`` tables alive together (3^table_group rows * 2 bytes * pixel_block each: 12 of three
    inputs and 32 pixels take 20 KB of L1). Lists of digits: ``digit_vectors``, at most so many vectors of pixels whose
    sums are in registers, ``table_kb``, KB of activations that are alive together. Code: ``code_vectors`` of pixels
    that a piece of code runs over, about (1x1 kernels with AVX2: half of them); ``code_rows`` outputs of a piece, at
    most (0: as many as the registers hold); ``pair_window``, inputs within which pairs are matched; ``code_length``,
    instructions of a piece for each row that the registers hold; ``load_planes`` of digits share what is loaded, at
    most; ``sums_kb``, KB of sums in a part of the outputs where one tile is the whole image, at most (0: no parts).
    Int8: ``dot_rows`` outputs whose sums are in registers, at most (0: as many as there is room for beside two vectors
    of pixels), ``dot_groups`` of such pixels in a tile, to twice as many and one if these waste less, ``dot_chunk``
    inputs copied at a time, ``winograd``: whether 3x3 kernels are computed by F(2x2, 3x3) instead where they can be;
    dense: ``dense_vectors`` of outputs in registers, at most. Factors of a dense layer on few rows: ``lut_vectors`` of
    outputs that share a table of sums, ``lut_ahead`` KB of their codes prefetched.
    """

    isa: str = ""
    dot: str = "plain"
    lut: str = ""
    lanes: int = 8
    threads: int = 1
    code: bool = False
    pixel_block: int = 32
    table_group: int = 0
    chunk: int = 16
    digit_vectors: int = 8
    table_kb: int = 48
    code_vectors: int = 24
    code_rows: int = 0
    pair_window: int = 256
    code_length: int = 100
    load_planes: int = 1
    sums_kb: int = 0
    dot_rows: int = 0
    dot_groups: int = 8
    dot_chunk: int = 512
    winograd: bool = True
    dense_vectors: int = 8
    lut_vectors: int = 2
    lut_ahead: int = 8


@dataclass(frozen=True)
class KernelPlans:
    """Decisions for all layers of a network: the ``default``, and by name those that differ from it."""

    default: KernelPlan
    layers: Mapping[str, KernelPlan] = field(default_factory=dict)

    def of(self, name: str) -> KernelPlan:
        """The layer's decisions."""
        return self.layers.get(name, self.default)

    def override(self, name: str, **decisions: Any) -> KernelPlans:
        """With other ``decisions`` (fields of `KernelPlan`) for one layer."""
        return replace(self, layers={**self.layers, name: replace(self.of(name), **decisions)})


_DOTS = {  # the best first
    ("x86_64", 64): ("avx512vnni", "avx512"),
    ("x86_64", 32): ("avxvnni", "avx2"),
    ("x86_64", 16): ("sse2",),
    ("aarch64", 16): ("dotprod", "neon"),
}
_NEEDS_FEATURE = ("avx512vnni", "avxvnni", "dotprod")  # of the same name


def plan_for(architecture: str, vector_bytes: int, features: Collection[str] = (), threads: int = 1) -> KernelPlan:
    """Start values for a CPU with vectors of ``vector_bytes`` and LLVM's ``features``, measured on AVX-512 and AVX2, to
    be used with up to ``threads``."""
    isa = {64: "avx512", 32: "avx2"}.get(vector_bytes, "") if architecture == "x86_64" else ""
    dots = _DOTS.get((architecture, vector_bytes), ("plain",))
    dot = next(name for name in dots if name not in _NEEDS_FEATURE or name in features)
    lut = isa or ("neon" if architecture == "aarch64" else "ssse3" if "ssse3" in features else "")
    lanes = vector_bytes // 2
    if vector_bytes == 64:  # two vectors of pixels hide what finds a row; nine the ends of lists
        return KernelPlan(isa, dot, lut, lanes, threads, pixel_block=64, chunk=8, digit_vectors=9, lut_vectors=8)
    chunk = 12 if vector_bytes == 32 else 16  # measured: up to 7 % between them; the rows' sums pass through L1 too
    vectors = 16 if architecture == "aarch64" else 13 if vector_bytes == 32 else 8  # 13: .84 to 1.07, .95 of 8's time
    plan = KernelPlan(isa, dot, lut, lanes, threads, chunk=chunk, digit_vectors=vectors)
    # Few rows share what is loaded, .7 to 1 of the time of 1; L2 is small, .71 to .95 of that of 0 at 14x14 and 7x7.
    return replace(plan, load_planes=3, sums_kb=192) if isa else plan


def default_plan(target: tvm.target.Target) -> KernelPlan:
    """Start values for a target."""
    features = targets.required_features(target)
    return plan_for(targets.architecture(target), targets.vector_bytes(target), features, targets.threads(target))
