"""The built ternary kernels contain no multiply but those of requantisation: read from their disassembly.

Three claims for ternary records of the shape table, on AVX-512, AVX2, plain aarch64 and one with dot products and SVE2:

* no integer vector multiply but a residual's, the high half of a 16-bit product that stands beside the conversions of
  the sums it is added to, no dot product and no fused multiply-add anywhere in the function;
* the same kernel with requantisation taken out has no vector or floating-point multiply at all;
* each floating-point vector multiply stands beside the conversion of an integer sum that it requantises, and there are
  no more of them than the requantising blocks execute for one block of pixels.

Index arithmetic multiplies too. It is scalar, and where LLVM computes several addresses at once it does so in 64-bit
lanes (x86) or in pairs of 32-bit lanes (NEON); activations and sums lie in whole registers of 8 to 32-bit lanes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import tvm
from tvm.script.ir_builder import tirx as T

from benchmarks import shapes
from benchmarks.kernel_build import build, machine, plan
from benchmarks.kernel_case import fits, kernel_case
from tvm_ffn import targets
from tvm_ffn.kernel_plan import KernelPlan
from tvm_ffn.kernels import epilogue
from tvm_ffn.kernels.builder import KernelBuilder

TARGETS = {
    "avx512": "llvm -mcpu=cascadelake",
    "avx2": "llvm -mcpu=x86-64-v3",
    "aarch64": "llvm -mtriple=aarch64-linux-gnu",
    "neoverse-v2": "llvm -mcpu=neoverse-v2",
}
NAMES = (
    "conv3x3",
    "conv3x3-one-term",
    "conv3x3-stride2-groups-batch2-residual",
    "conv3x2-stride2x3-uneven-padding-dilation-leaky",
    "conv1x1-one-channel",
    "conv7x7-stride2",
    "conv3x3-segments-groups-residual",
    "code-conv3x3-one-output-residual",
    "code-conv-uneven-leaky",
    "code-conv3x3-segments",
    "planes-conv-uneven-residual",
    "digits-conv3x3",
    "digits-conv3x3-stride2-groups-batch2-residual",
    "digits-conv1x1-two-planes-float",
    "digits-conv3x3-segments-float",
    "digits-dense-residual",
    "dense-rows-residual",
    "dense-rows-segments-float",
    "gemv",
    "gemv-rows-residual",
    "gemv-segments",
    "lut",
    "lut-rows-residual",
    "lut-segments",
)
Ternary = shapes.TernaryConv | shapes.PlanesConv | shapes.DigitsConv | shapes.DigitsMatmul | shapes.TernaryMatmul
RECORDS = {shape.name: shape for shape in shapes.tested()}

X86_INTEGER = re.compile(r"v?pmul(?!lq)\w+|v?pmadd\w+|v?pdp\w+|tdp\w+|v?gf2p8mul\w+")
X86_FUSED = re.compile(r"vfn?m(add|sub)\w+|v?dpp[sd]|vdpbf16ps")
X86_FLOAT = re.compile(r"v?(mul|div)[ps][sdh]")
X86_CONVERSION = re.compile(r"v?cvtdq2ps")
ARM_INTEGER = re.compile(r"mul|ml[as]|[us]mull2?|[us]ml[as]l2?|sq\w*mul\w*|sqrdml\w+|sqdml\w+|pmull?2?|\w*dot|\w+mmla")
ARM_FUSED = re.compile(r"fml[as]\w*|fn?m(add|sub)|fcmla|bfdot|bfml\w+|bfmmla|bfmul")
ARM_FLOAT = re.compile(r"fmulx?|fdiv|fnmul")
ARM_CONVERSION = re.compile(r"scvtf")
RESIDUAL_PRODUCT = re.compile(r"v?pmulhw |smull2? v\d+\.4s, v\d+\.[48]h,")
ARM_VECTOR = re.compile(r"\b[vz]\d+\.")
ARM_ADDRESSES = re.compile(r"v\d+\.(?!2s|2d|s\[|d\[)")

HALF_FLOAT_HELPERS = "__truncsfhf2:"  # TVM appends its half-float conversions, which multiply, to every module


def parsed(name: str) -> tvm.target.Target:
    return targets.parse_target(TARGETS[name])


BUILT = [
    pytest.param(RECORDS[record], target, id=f"{record}-{target}")
    for target in TARGETS
    for record in NAMES
    if fits(RECORDS[record], plan(parsed(target)))
]


class Multiplies:
    """The multiplying instructions of a listing, by what they may be."""

    def __init__(self, assembly: str, *, arm: bool) -> None:
        self.integer: list[str] = []  # vector lanes of integers, dot products, fused multiply-adds: not in sums
        self.vector: list[str] = []  # floating-point vectors
        self.scalar: list[str] = []  # floating-point scalars
        self.conversions = 0  # of vectors of integer sums to floats
        classify = self._arm if arm else self._x86
        for line in assembly.split(HALF_FLOAT_HELPERS)[0].splitlines():
            if not line.strip():
                continue
            mnemonic, *operands = line.split(maxsplit=1)
            classify(mnemonic, "".join(operands))

    def _x86(self, mnemonic: str, operands: str) -> None:
        if X86_INTEGER.fullmatch(mnemonic) or X86_FUSED.fullmatch(mnemonic):
            self.integer.append(f"{mnemonic} {operands}")
        elif X86_FLOAT.fullmatch(mnemonic):
            (self.scalar if mnemonic[-2] == "s" else self.vector).append(f"{mnemonic} {operands}")
        elif X86_CONVERSION.fullmatch(mnemonic):
            self.conversions += 1

    def _arm(self, mnemonic: str, operands: str) -> None:
        on_vectors = ARM_VECTOR.search(operands) is not None
        integer = ARM_INTEGER.fullmatch(mnemonic) and (ARM_ADDRESSES.search(operands) or "z" in operands)
        if (integer and on_vectors) or ARM_FUSED.fullmatch(mnemonic):
            self.integer.append(f"{mnemonic} {operands}")
        elif ARM_FLOAT.fullmatch(mnemonic):
            (self.vector if on_vectors else self.scalar).append(f"{mnemonic} {operands}")
        elif ARM_CONVERSION.fullmatch(mnemonic) and on_vectors:
            self.conversions += 1


def multiplies(function: Any, target: tvm.target.Target) -> Multiplies:
    return Multiplies(build(function, target).assembly(), arm="aarch64" in targets.triple_of(target))


@pytest.mark.parametrize(("shape", "name"), BUILT)
def test_only_requantisation_multiplies(shape: Ternary, name: str) -> None:
    target = parsed(name)
    operator = kernel_case(shape, plan(target)).operator
    found = multiplies(operator.prim_func("kernel"), target)
    of_residual = [line for line in found.integer if RESIDUAL_PRODUCT.match(line)]
    assert of_residual == found.integer
    assert len(of_residual) <= (found.conversions if shape.epilogue.residual else 0)
    assert found.vector or found.scalar, "requantisation multiplies: this listing was not understood"
    # With a residual the scale itself is multiplied by 2^6, for a leaky ReLU by the slope.
    of_scales = 1 + shape.epilogue.residual + (shape.epilogue.slope != 1.0)
    assert len(found.vector) <= found.conversions * of_scales
    if hasattr(operator, "product"):
        executed = operator.product.multiplies * of_scales * operator.pixel_block
        assert len(found.vector) <= executed // machine(target).lanes("float32")


@pytest.mark.parametrize(("shape", "name"), BUILT)
def test_sums_alone_do_not_multiply(shape: Ternary, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def stored(spec: epilogue.Epilogue, total: Any, bias: Any, scale: Any, residual: Any = None) -> Any:
        return T.Cast(spec.out_dtype, total)

    monkeypatch.setattr(epilogue, "requantize", lambda total, scale, limit: T.Cast("int16", total))
    monkeypatch.setattr(epilogue, "apply", stored)
    target = parsed(name)
    found = multiplies(kernel_case(shape, plan(target)).operator.prim_func("kernel"), target)
    assert not found.integer + found.vector + found.scalar


def integer_product(width: int) -> Any:
    b = KernelBuilder("kernel", {"ffn.op": "add"})
    x, w, out = (b.arg(name, (1, 64), f"int{width}") for name in ("x", "w", "out"))
    b.compute("store", (1, 64), f"int{width}", lambda i, j: x[i, j] * w[i, j], out=out)
    return b.finish()


def float_product() -> Any:
    b = KernelBuilder("kernel", {"ffn.op": "add"})
    x, w, out = (b.arg(name, (1, 64), "float32") for name in ("x", "w", "out"))
    b.compute("store", (1, 64), "float32", lambda i, j: x[i, j] * w[i, j], out=out)
    return b.finish()


MULTIPLYING: dict[str, Callable[[], Any]] = {
    "int8": lambda: integer_product(8),
    "int16": lambda: integer_product(16),
    "int32": lambda: integer_product(32),
    "an int8 convolution": lambda: kernel_case(RECORDS["int8-conv3x3"], KernelPlan()).operator.prim_func("kernel"),
}


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("kind", MULTIPLYING)
def test_the_reader_sees_multiplies(kind: str, name: str) -> None:
    found = multiplies(MULTIPLYING[kind](), parsed(name))
    assert found.integer


def test_the_reader_sees_inline_assembly() -> None:
    listing = "\t#APP\n\tvpaddw %zmm1,%zmm2,%zmm2\n\tvpmullw %zmm0,%zmm1,%zmm2\n\tvfmadd231ps 8(%rdi),%zmm1,%zmm2\n"
    found = Multiplies(listing, arm=False)
    assert found.integer == ["vpmullw %zmm0,%zmm1,%zmm2", "vfmadd231ps 8(%rdi),%zmm1,%zmm2"]


@pytest.mark.parametrize("name", TARGETS)
def test_the_reader_sees_floating_point(name: str) -> None:
    found = multiplies(float_product(), parsed(name))
    assert found.vector
    assert not found.conversions
