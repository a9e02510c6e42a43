"""A factorised dense layer on few rows by tables over outputs (the ``lut`` family), without a multiply.

For each group of a few inputs all their signed sums are written once to a vector, and one instruction looks the outputs
of a vector up in it (`lut`):

    table[g, e] = sum_i digit_i(e) * x[group g + i]        total[m] = sum_g table[g, code[m, g]]

Sums run in int16 within a segment (`codes.segments` proves that they fit) and in int32 across segments. Cost of a word
of 16 bits, nine inputs of 32 outputs, on AVX-512: three lookups, three additions, two shifts and 64 bytes; the lookups
are the limit, one a cycle, until the words come from memory. Of a word of 8 bits, four inputs of 32 outputs, on AVX2:
four lookups, eight additions, six more and 32 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer, PrimFunc

from tvm_ffn.kernels import epilogue as ep
from tvm_ffn.kernels.builder import KernelBuilder
from tvm_ffn.kernels.codes import Segments
from tvm_ffn.kernels.epilogue import CONSTANT_BYTES, Epilogue
from tvm_ffn.kernels.epilogue_arguments import EpilogueArguments
from tvm_ffn.kernels.lut import LUTS, Lut
from tvm_ffn.kernels.work import Cost, Executed


@dataclass(frozen=True)
class TernaryLut:
    """Static description: ``rows`` activations of n ``inputs`` through ``terms`` k to ``outputs`` m; ``vectors`` of
    outputs share a table of the instruction set ``isa``; words are asked for ``ahead`` bytes before they are read (0:
    not asked for)."""

    rows: int
    inputs: int
    terms: int
    outputs: int
    middle_limit: int
    cut_y: Segments
    cut_x: Segments
    isa: str
    vectors: int
    epilogue: Epilogue
    ahead: int = 8192

    @property
    def lut(self) -> Lut:
        return LUTS[self.isa]

    @property
    def out_shape(self) -> tuple[int, int]:
        return self.rows, self.outputs

    @property
    def block(self) -> int:
        """Outputs that are summed together."""
        return self.vectors * self.lut.lanes

    def _blocks(self, outputs: int) -> int:
        return -(-outputs // self.block)

    @property
    def cost(self) -> Cost:
        """Counts on the outputs there are."""
        return self._cost(self.terms, self.outputs)

    @property
    def executed(self) -> Executed:
        """Counts on whole blocks of outputs."""
        cost = self._cost(self._blocks(self.terms) * self.block, self._blocks(self.outputs) * self.block)
        return Executed.of(cost, moves=self.rows * (self.inputs + self.outputs))

    def _cost(self, terms: int, outputs: int) -> Cost:
        words = self.lut.words
        lookups = words.codes * (self.cut_y.steps * terms + self.cut_x.steps * outputs)
        entries = 3**words.group * (words.group - 1)
        tables = entries * words.codes * (self.cut_y.steps + self.cut_x.steps)
        multiplies = self.rows * (self.terms + self.outputs * self.epilogue.multiplies)
        blocks = self._blocks(self.terms) * self.cut_y.steps + self._blocks(self.outputs) * self.cut_x.steps
        constants = 4 * self.terms + CONSTANT_BYTES * self.outputs
        return Cost(
            self.rows * (lookups + tables),
            multiplies,
            self.rows * lookups,
            blocks * self.block * np.dtype(words.dtype).itemsize + constants,
        )

    def prim_func(self, name: str) -> PrimFunc:
        """Arguments: x int8 (rows, n), words of Y^T (blocks, steps, block), middle scale (1, k) float32, of X,
        bias (1, m) int32, scale (1, m) float32, [residual int8 (rows, m), its scale (1,)], out (rows, m)."""
        b = KernelBuilder(name, {"ffn.op": "ternary_lut"})
        x = b.arg("x", (self.rows, self.inputs), "int8")
        words_y = b.arg("words_y", (self._blocks(self.terms), self.cut_y.steps, self.block), self.lut.words.dtype)
        middle_scale = b.arg("middle_scale", (1, self.terms), "float32")
        words_x = b.arg("words_x", (self._blocks(self.outputs), self.cut_x.steps, self.block), self.lut.words.dtype)
        ends = EpilogueArguments.declare(b, self.epilogue, (1, self.outputs), self.out_shape)

        def activation(r: Any, k: Any) -> Any:
            return T.Cast("int16", x[r, T.min(k, self.inputs - 1)])

        first = self._sum(b, "y", words_y, self.cut_y, activation)
        middle = b.compute(
            "middle",
            (self.rows, self.terms),
            "int16",
            lambda r, k: ep.requantize(first[r, k], middle_scale[0, k], self.middle_limit),
        )
        second = self._sum(b, "x", words_x, self.cut_x, lambda r, k: middle[r, T.min(k, self.terms - 1)])

        def stored(r: Any, m: Any) -> Any:
            return ends.stored(second[r, m], (0, m), (r, m))

        b.compute("store", self.out_shape, self.epilogue.out_dtype, stored, out=ends.out)
        return b.finish()

    def _sum(self, b: KernelBuilder, stage: str, words: Buffer, cut: Segments, value: Any) -> Buffer:
        """Add blocks "..._table" and "..._lut": the sums int32 (rows, outputs of all blocks) of ``value(row, input)``,
        whose digits beyond the last input are zeros."""
        lut, length, blocks = self.lut, cut.chunks * cut.length, int(words.shape[0])
        group, groups = lut.words.group, lut.words.codes * cut.steps
        shape, dtype = lut.table

        def entry(r: Any, g: Any, *index: Any) -> Any:
            return lut.entry(lambda i: value(r, g * group + i), *index)

        table = b.compute(f"{stage}_table", (self.rows, groups, *shape), dtype, entry)
        total = b.tensor(f"{stage}_total", (self.rows, blocks * self.block), "int32")
        ahead = -(-self.ahead // (self.block * np.dtype(lut.words.dtype).itemsize))
        with b.tile(f"{stage}_tile", (self.rows, blocks)) as (row, block):
            # Tensors of less than 1 KB are on the stack: LLVM makes registers of these.
            sums = [lut.sums(b, f"{stage}_sum{vector}") for vector in range(self.vectors)]
            first = block * self.block
            tables = table[(row, slice(0, groups), *(slice(0, size) for size in shape))]
            reads = [tables, words[block, 0 : cut.steps, 0 : self.block]]
            with b.program(f"{stage}_lut", reads=reads, writes=[total[row, first : first + self.block]]):
                with T.serial(self.block // lut.lanes) as vector:
                    place = [row, T.Ramp(first + vector * lut.lanes, 1, lut.lanes)]
                    T.buffer_store(total, T.Broadcast(T.int32(0), lut.lanes), place)
                with T.serial(cut.segments) as segment:
                    for target in sums:
                        lut.clear(target)
                    with T.serial(length) as step:
                        at = segment * length + step
                        for number, target in enumerate(sums):
                            start = number * lut.lanes
                            if ahead:
                                T.evaluate(_prefetch(words[block, at + ahead, start]))
                            word = words[block, at, T.Ramp(start, 1, lut.lanes)]
                            lut.add(target, table, [row, at * lut.words.codes], word)
                    for number, target in enumerate(sums):
                        parts = lut.totals(target)
                        size = lut.lanes // len(parts)
                        for part, added in enumerate(parts):
                            place = [row, T.Ramp(first + number * lut.lanes + part * size, 1, size)]
                            T.buffer_store(total, total[tuple(place)] + added, place)
        return total

    def reference(self, x: np.ndarray, *arguments: np.ndarray) -> np.ndarray:
        """NumPy oracle on the function's arguments without the output; returns the output."""
        words_y, middle_scale, words_x, bias, scale = arguments[:5]
        first = x.astype(np.int64) @ self.lut.words.unpack(words_y, self.terms, self.inputs).T.astype(np.int64)
        middle = ep.requantize_numpy(first, middle_scale, self.middle_limit)
        second = middle.astype(np.int64) @ self.lut.words.unpack(words_x, self.outputs, self.terms).T.astype(np.int64)
        extra = (arguments[5], arguments[6]) if self.epilogue.residual else None
        return ep.apply_numpy(self.epilogue, second, bias, scale, extra)


def _prefetch(element: Any) -> Any:
    """Asks for the cache line of an element, which may lie beyond its tensor's end."""
    read, everywhere, data = T.int32(0), T.int32(3), T.int32(1)
    return T.call_llvm_intrin("void", "llvm.prefetch", T.address_of(element), read, everywhere, data)
