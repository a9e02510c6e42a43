"""How a processor sums products of int16, one record an instruction set.

x86 has one instruction for two of them: ``pmaddwd`` multiplies int16 by int16 and adds neighbours to an int32, exactly
for all values of int8. LLVM makes ``vpdpwssd`` of it and the addition to the sum where there is one. Elsewhere the sum
is written plainly, one product at a time (NEON: ``smlal``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import tirx as T


@dataclass(frozen=True)
class Dot:
    """``width`` neighbouring inputs are multiplied and added to one of ``lanes`` int32 of a vector."""

    lanes: int
    registers: int
    intrinsic: str = ""

    @property
    def width(self) -> int:
        return 2 if self.intrinsic else 1

    @property
    def sums(self) -> str:
        """Type of a vector of sums."""
        return f"int32x{self.lanes}"

    @property
    def inputs(self) -> str:
        """Type of the vector of inputs that belongs to it."""
        return f"int16x{self.lanes * self.width}"

    def pack(self, inputs: list[Any]) -> Any:
        """A vector of `inputs` from ``width`` vectors of int8, taking one of each in turn."""
        if self.width == 1:
            return T.Cast(self.inputs, inputs[0])
        low, high = (T.Cast(self.sums, item) for item in inputs)
        mask, shift = (T.Broadcast(T.int32(value), self.lanes) for value in (0xFFFF, 16))
        return T.reinterpret(self.inputs, T.bitwise_or(T.bitwise_and(low, mask), T.shift_left(high, shift)))

    def add(self, total: Any, inputs: Any, weights: Any) -> Any:
        """``total`` plus the products of a vector of `inputs` and ``width`` int16, the same ones for every lane."""
        if self.width == 1:
            return total + T.Cast(self.sums, inputs) * T.Broadcast(T.Cast("int32", weights), self.lanes)
        pairs = T.reinterpret(self.inputs, T.Broadcast(T.reinterpret("int32", weights), self.lanes))
        return total + T.call_llvm_pure_intrin(self.sums, self.intrinsic, inputs, pairs)


DOTS = {
    "avx512": Dot(16, 32, "llvm.x86.avx512.pmaddw.d.512"),
    "avx2": Dot(8, 16, "llvm.x86.avx2.pmadd.wd"),
    "sse2": Dot(4, 16, "llvm.x86.sse2.pmadd.wd"),
    "neon": Dot(4, 32),
    "plain": Dot(4, 16),
}


def sequence(start: Any, lanes: int) -> Any:
    """The index of ``lanes`` neighbours, or the only one."""
    return T.Ramp(start, 1, lanes) if lanes > 1 else start
