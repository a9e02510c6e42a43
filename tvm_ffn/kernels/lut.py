"""How a processor looks outputs up in tables of sums, one record an instruction set.

`WordLut`: the 27 sums of three inputs are the int16 lanes of one vector, and the instruction picks one for each of 32
outputs (AVX-512). `ByteLut`: the nine sums of two inputs are bytes, the low ones in one vector, the high ones in
another, and the instruction picks a byte for each output (AVX2, SSSE3, NEON). High bytes are added as bytes, low bytes
as pairs in int16 and those of the odd lanes once more on their own, all modulo 2^16; only the end of a segment puts
them together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_ffn.kernels.builder import KernelBuilder
from tvm_ffn.kernels.codes import Words
from tvm_ffn.kernels.row_table import signed

BYTE = 8


@dataclass(frozen=True)
class Lut(ABC):
    """``words`` as the instruction ``intrinsic`` takes them."""

    words: Words
    intrinsic: str

    @property
    def lanes(self) -> int:
        """Outputs of a vector."""
        return self.words.lanes

    @property
    @abstractmethod
    def table(self) -> tuple[tuple[int, ...], str]:
        """Shape and type of the table of a group of inputs."""

    @abstractmethod
    def entry(self, value: Callable[[int], Any], *index: Any) -> Any:
        """The element of a table at ``index``, of the int16 inputs ``value(i)`` of a group."""

    @abstractmethod
    def sums(self, b: KernelBuilder, name: str) -> list[Buffer]:
        """Registers for the sums of a vector of outputs."""

    @abstractmethod
    def add(self, sums: list[Buffer], table: Buffer, at: list[Any], word: Any) -> None:
        """Add what a vector of words picks from the tables of a step, the first of which is at ``at``."""

    @abstractmethod
    def totals(self, sums: list[Buffer]) -> list[Any]:
        """The sums as vectors of int32, outputs in order."""

    def clear(self, sums: list[Buffer]) -> None:
        """Start again from zero."""
        for target in sums:
            size = int(target.shape[0])
            T.buffer_store(target, T.Broadcast(getattr(T, str(target.dtype))(0), size), [T.Ramp(0, 1, size)])

    def _sum(self, value: Callable[[int], Any], code: Any) -> Any:
        """The sum that a code stands for."""
        parts = [signed(code // 3**i % 3, value(i)) for i in range(self.words.group)]
        return reduce(lambda left, right: left + right, parts)

    def _index(self, word: Any, place: int) -> Any:
        """The codes at ``place`` of a vector of words."""
        shift = getattr(T, self.words.dtype)(place * self.words.bits)
        return T.shift_right(word, T.Broadcast(shift, self.lanes)) if place else word


@dataclass(frozen=True)
class WordLut(Lut):
    """The instruction picks int16 and reads the lowest bits of an index only."""

    @property
    def table(self) -> tuple[tuple[int, ...], str]:
        return (self.lanes,), "int16"

    def entry(self, value: Callable[[int], Any], *index: Any) -> Any:
        return self._sum(value, index[0])

    def sums(self, b: KernelBuilder, name: str) -> list[Buffer]:
        return [b.tensor(name, (self.lanes,), "int16")]

    def add(self, sums: list[Buffer], table: Buffer, at: list[Any], word: Any) -> None:
        whole, total = T.Ramp(0, 1, self.lanes), sums[0]
        value = total[whole]
        for place in range(self.words.codes):
            entries = table[(*at[:-1], at[-1] + place, whole)]
            picked = T.call_llvm_pure_intrin(f"int16x{self.lanes}", self.intrinsic, entries, self._index(word, place))
            value = value + picked
        T.buffer_store(total, value, [whole])

    def totals(self, sums: list[Buffer]) -> list[Any]:
        return [T.Cast(f"int32x{self.lanes}", sums[0][T.Ramp(0, 1, self.lanes)])]


@dataclass(frozen=True)
class ByteLut(Lut):
    """The instruction picks one of 16 bytes, in x86's wide vectors from the 16 of an index's own half."""

    @property
    def table(self) -> tuple[tuple[int, ...], str]:
        return (2, self.lanes), "uint8"

    def entry(self, value: Callable[[int], Any], *index: Any) -> Any:
        high, lane = index
        total = self._sum(value, lane % 16)
        part = T.Select(high == 1, T.shift_right(total, T.int16(BYTE)), total)
        return T.Cast("uint8", T.bitwise_and(part, T.int16(2**BYTE - 1)))

    @property
    def _pairs(self) -> int:
        return self.lanes // 2

    def sums(self, b: KernelBuilder, name: str) -> list[Buffer]:
        """Of low bytes in pairs, of the odd ones among them, and of high bytes."""
        kinds = (("low", self._pairs, "uint16"), ("odd", self._pairs, "uint16"), ("high", self.lanes, "uint8"))
        return [b.tensor(f"{name}_{kind}", (size,), dtype) for kind, size, dtype in kinds]

    def add(self, sums: list[Buffer], table: Buffer, at: list[Any], word: Any) -> None:
        low, odd, high = sums
        whole, half = T.Ramp(0, 1, self.lanes), T.Ramp(0, 1, self._pairs)
        mask = T.Broadcast(T.uint8(2**self.words.bits - 1), self.lanes)
        for place in range(self.words.codes):
            index = T.bitwise_and(self._index(word, place), mask)

            def picked(part: int, index: Any = index, place: int = place) -> Any:
                entries = table[(*at[:-1], at[-1] + place, part, whole)]
                return T.call_llvm_pure_intrin(f"uint8x{self.lanes}", self.intrinsic, entries, index)

            pairs = T.reinterpret(f"uint16x{self._pairs}", picked(0))
            T.buffer_store(low, low[half] + pairs, [half])
            T.buffer_store(odd, odd[half] + T.shift_right(pairs, self._all(BYTE)), [half])
            T.buffer_store(high, high[whole] + picked(1), [whole])

    def totals(self, sums: list[Buffer]) -> list[Any]:
        half = T.Ramp(0, 1, self._pairs)
        low, odd = (target[half] for target in sums[:2])
        high = T.reinterpret(f"uint16x{self._pairs}", sums[2][T.Ramp(0, 1, self.lanes)])
        even = low - T.shift_left(odd, self._all(BYTE)) + T.shift_left(high, self._all(BYTE))
        odd = odd + T.bitwise_and(high, self._all(0xFF00))
        return [T.Cast(f"int32x{self._pairs}", T.reinterpret(f"int16x{self._pairs}", value)) for value in (even, odd)]

    def _all(self, value: int) -> Any:
        return T.Broadcast(T.uint16(value), self._pairs)


LUTS: dict[str, Lut] = {
    "avx512": WordLut(Words(3, 5, 3, 32), "llvm.x86.avx512.permvar.hi.512"),
    "avx2": ByteLut(Words(2, 4, 2, 32, halves=True), "llvm.x86.avx2.pshuf.b"),
    "ssse3": ByteLut(Words(2, 4, 2, 16, halves=True), "llvm.x86.ssse3.pshuf.b.128"),
    "neon": ByteLut(Words(2, 4, 2, 16, halves=True), "llvm.aarch64.neon.tbl1.v16i8"),
}
