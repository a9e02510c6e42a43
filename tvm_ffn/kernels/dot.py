"""How a processor sums products of int8, one record an instruction set.

x86 has one instruction for two of them: ``pmaddwd`` multiplies int16 by int16 and adds neighbours to an int32, exactly
for all values of int8. LLVM makes ``vpdpwssd`` of it and the addition to the sum where there is one. VNNI has one for
four, ``vpdpbusd``, which takes uint8 by int8: the activations are raised by 128, and the sums by 128 times the sum of
their weights, which the bias takes back. ARM's ``sdot`` takes int8 as they are. Elsewhere the sum is written plainly,
one product at a time (NEON: ``smlal``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import tirx as T

RAISED = 128  # what turns int8 into uint8


@dataclass(frozen=True)
class Dot:
    """``width`` neighbouring inputs are multiplied and added to one of ``lanes`` int32 of a vector; ``raised``:
    activations are uint8."""

    lanes: int
    registers: int
    width: int = 1
    intrinsic: str = ""
    raised: bool = False

    @property
    def of_bytes(self) -> bool:
        """Whether the instruction takes bytes."""
        return self.width == 4

    @property
    def instructions(self) -> int:
        """A product and its addition: one where the instruction takes bytes."""
        return 1 if self.of_bytes else 2

    @property
    def sums(self) -> str:
        """Type of a vector of sums."""
        return f"int32x{self.lanes}"

    @property
    def activations(self) -> str:
        """Type of one activation as the instruction takes it."""
        return "int16" if not self.of_bytes else "uint8" if self.raised else "int8"

    @property
    def weights(self) -> str:
        """Type of one weight as the instruction takes it."""
        return "int8" if self.of_bytes else "int16"

    @property
    def raise_by(self) -> int:
        """What is added to every activation."""
        return RAISED if self.raised else 0

    def widened(self, value: Any, lanes: int = 1) -> Any:
        """Activations of int8, one or a vector of ``lanes`` (of any integers of their values), as the instruction takes
        them."""
        many = "" if lanes == 1 else f"x{lanes}"
        if not self.raised:
            return T.Cast(self.activations + many, value)
        low, mask = (T.int16(m) if lanes == 1 else T.Broadcast(T.int16(m), lanes) for m in (255, RAISED))
        byte = T.bitwise_and(T.Cast(f"int16{many}", value), low)  # TVM folds no negative constant to uint8
        return T.Cast(f"uint8{many}", T.bitwise_xor(byte, mask))

    def pack(self, inputs: list[Any]) -> Any:
        """A vector of activations from ``width`` vectors of int8, taking one of each in turn."""
        vector = f"{self.activations}x{self.lanes * self.width}"
        if self.width == 1:
            return T.Cast(vector, inputs[0])
        bits = 32 // self.width
        mask = T.Broadcast(T.int32(2**bits - 1), self.lanes)
        packed = T.bitwise_and(T.Cast(self.sums, inputs[0]), mask)
        for place, item in enumerate(inputs[1:], 1):
            wide = T.Cast(self.sums, item)
            part = wide if place == self.width - 1 else T.bitwise_and(wide, mask)
            packed = T.bitwise_or(packed, T.shift_left(part, T.Broadcast(T.int32(place * bits), self.lanes)))
        if self.raised:
            packed = T.bitwise_xor(packed, T.Broadcast(T.int32(-0x7F7F7F80), self.lanes))
        return T.reinterpret(vector, packed)

    def spread(self, group: Any) -> Any:
        """A vector whose every lane is the same ``width`` activations or weights."""
        if self.width == 1:
            return T.Broadcast(group, self.lanes)
        return T.Broadcast(T.reinterpret("int32", group), self.lanes)

    def add(self, total: Any, activations: Any, weights: Any) -> Any:
        """``total`` plus the products of a vector of activations and one of weights, as `pack` or `spread` make it."""
        if self.width == 1:
            return total + T.Cast(self.sums, activations) * T.Cast(self.sums, weights)
        if self.of_bytes:
            quads = (T.reinterpret(f"int8x{4 * self.lanes}", value) for value in (activations, weights))
            return T.call_llvm_pure_intrin(self.sums, self.intrinsic, total, *quads)
        pairs = (T.reinterpret(f"int16x{2 * self.lanes}", value) for value in (activations, weights))
        return total + T.call_llvm_pure_intrin(self.sums, self.intrinsic, *pairs)


DOTS = {
    "avx512vnni": Dot(16, 32, 4, "llvm.x86.avx512.vpdpbusd.512", raised=True),
    "avx512": Dot(16, 32, 2, "llvm.x86.avx512.pmaddw.d.512"),
    "avxvnni": Dot(8, 16, 4, "llvm.x86.avx512.vpdpbusd.256", raised=True),
    "avx2": Dot(8, 16, 2, "llvm.x86.avx2.pmadd.wd"),
    "sse2": Dot(4, 16, 2, "llvm.x86.sse2.pmadd.wd"),
    "dotprod": Dot(4, 32, 4, "llvm.aarch64.neon.sdot.v4i32.v16i8"),
    "neon": Dot(4, 32),
    "plain": Dot(4, 16),
}


def block_size(count: int, most: int) -> int:
    """How many of ``count`` rows or vectors make a block, ``most`` or at least half as many: so that the last block
    wastes least."""
    return (
        min(range(most, (most + 1) // 2 - 1, -1), key=lambda size: -(-count // size) * size) if count > most else count
    )


def sequence(start: Any, lanes: int) -> Any:
    """The index of ``lanes`` neighbours, or the only one."""
    return T.Ramp(start, 1, lanes) if lanes > 1 else start
