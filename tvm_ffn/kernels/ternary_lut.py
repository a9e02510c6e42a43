"""A factorised dense layer on few rows by tables over outputs (the ``lut`` family), for AVX-512, without a multiply.

For each group of three inputs the 27 possible signed sums are written once as the lanes of one vector, and one
instruction looks up 32 outputs in it:

    table[g, e] = sum_i digit_i(e) * x[3 g + i]        total[m] = sum_g table[g, code[m, g]]

A word of 16 bits holds three codes of five bits (the instruction reads the lowest five): 1.78 bits an entry. Cost of
nine inputs and 32 outputs: three lookups, three additions, two shifts and 64 bytes of words; the lookups are the limit,
one a cycle, until the words come from memory. Sums run in int16 within a segment (`codes.segments` proves that they
fit) and in int32 across segments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer, PrimFunc

from tvm_ffn.kernels import epilogue as ep
from tvm_ffn.kernels.builder import KernelBuilder
from tvm_ffn.kernels.codes import GROUP, LUT_BITS, LUT_LANES, LUT_STEP, Segments, unpack_words
from tvm_ffn.kernels.epilogue import CONSTANT_BYTES, Epilogue
from tvm_ffn.kernels.row_table import TABLE_ADDS, signed
from tvm_ffn.kernels.work import Cost, Executed

LOOKUP = "llvm.x86.avx512.permvar.hi.512"
GROUPS = LUT_STEP // GROUP
PREFETCH_BYTES = 8192  # ahead of the word that is read


@dataclass(frozen=True)
class TernaryLut:
    """Static description: ``rows`` activations of n ``inputs`` through ``terms`` k to ``outputs`` m; ``vectors`` of
    outputs share a table."""

    rows: int
    inputs: int
    terms: int
    outputs: int
    middle_limit: int
    cut_y: Segments
    cut_x: Segments
    vectors: int
    epilogue: Epilogue

    @property
    def out_shape(self) -> tuple[int, int]:
        return self.rows, self.outputs

    @property
    def block(self) -> int:
        """Outputs that are summed together."""
        return self.vectors * LUT_LANES

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
        lookups = GROUPS * (self.cut_y.steps * terms + self.cut_x.steps * outputs)
        tables = TABLE_ADDS * GROUPS * (self.cut_y.steps + self.cut_x.steps)
        multiplies = self.rows * (self.terms + self.outputs * self.epilogue.multiplies)
        blocks = self._blocks(self.terms) * self.cut_y.steps + self._blocks(self.outputs) * self.cut_x.steps
        constants = 4 * self.terms + CONSTANT_BYTES * self.outputs
        return Cost(
            self.rows * (lookups + tables), multiplies, self.rows * lookups, 2 * blocks * self.block + constants
        )

    def prim_func(self, name: str) -> PrimFunc:
        """Arguments: x int8 (rows, n), words of Y^T uint16 (blocks, steps, block), middle scale (1, k) float32, of X,
        bias (1, m) int32, scale (1, m) float32, [residual int8 (rows, m), its scale (1,)], out (rows, m)."""
        e = self.epilogue
        b = KernelBuilder(name, {"ffn.op": "ternary_lut"})
        x = b.arg("x", (self.rows, self.inputs), "int8")
        words_y = b.arg("words_y", (self._blocks(self.terms), self.cut_y.steps, self.block), "uint16")
        middle_scale = b.arg("middle_scale", (1, self.terms), "float32")
        words_x = b.arg("words_x", (self._blocks(self.outputs), self.cut_x.steps, self.block), "uint16")
        bias = b.arg("bias", (1, self.outputs), "int32")
        scale = b.arg("scale", (1, self.outputs), "float32")
        residual = b.arg("residual", self.out_shape, "int8") if e.residual else None
        residual_scale = b.arg("residual_scale", (1,), "float32") if e.residual else None
        out = b.arg("out", self.out_shape, e.out_dtype)

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
            pair = (residual[r, m], residual_scale[0]) if residual is not None and residual_scale is not None else None
            return ep.apply(e, second[r, m], bias[0, m], scale[0, m], pair)

        b.compute("store", self.out_shape, e.out_dtype, stored, out=out)
        return b.finish()

    def _sum(self, b: KernelBuilder, stage: str, words: Buffer, cut: Segments, value: Any) -> Buffer:
        """Add blocks "..._table" and "..._lut": the sums int32 (rows, outputs of all blocks) of ``value(row, input)``,
        whose digits beyond the last input are zeros."""
        length = cut.chunks * cut.length
        groups, outputs = GROUPS * cut.steps, int(words.shape[0]) * self.block

        def entry(r: Any, g: Any, e: Any) -> Any:
            parts = [signed(e // 3**i % 3, value(r, g * GROUP + i)) for i in range(GROUP)]
            return sum(parts[1:], parts[0])

        table = b.compute(f"{stage}_table", (self.rows, groups, LUT_LANES), "int16", entry)
        total = b.tensor(f"{stage}_total", (self.rows, outputs), "int32")
        with b.tile(f"{stage}_tile", (self.rows, int(words.shape[0]))) as (row, block):
            # Tensors of less than 1 KB are on the stack: LLVM makes registers of these.
            sums = [b.tensor(f"{stage}_sum{vector}", (LUT_LANES,), "int16") for vector in range(self.vectors)]
            first = block * self.block
            ahead = max(1, PREFETCH_BYTES // (2 * self.block))
            reads = [table[row, 0:groups, 0:LUT_LANES], words[block, 0 : cut.steps, 0 : self.block]]
            with b.program(f"{stage}_lut", reads=reads, writes=[total[row, first : first + self.block]]):
                for vector in range(self.vectors):
                    T.buffer_store(total, _all(T.int32(0)), [row, _lanes(first + vector * LUT_LANES)])
                with T.serial(cut.segments) as segment:
                    for target in sums:
                        T.buffer_store(target, _all(T.int16(0)), [_lanes(0)])
                    with T.serial(length) as step:
                        at = segment * length + step
                        for vector, target in enumerate(sums):
                            word = words[block, at, _lanes(vector * LUT_LANES)]
                            T.evaluate(_prefetch(words[block, at + ahead, vector * LUT_LANES]))
                            T.buffer_store(
                                target, self._looked_up(target[_lanes(0)], table, row, at, word), [_lanes(0)]
                            )
                    for vector, target in enumerate(sums):
                        place = [row, _lanes(first + vector * LUT_LANES)]
                        wide = T.Cast(f"int32x{LUT_LANES}", target[_lanes(0)])
                        T.buffer_store(total, total[tuple(place)] + wide, place)
        return total

    def _looked_up(self, total: Any, table: Buffer, row: Any, step: Any, word: Any) -> Any:
        """``total`` plus what a vector of words picks from the tables of a step."""
        for group in range(GROUPS):
            index = T.shift_right(word, T.Broadcast(T.uint16(group * LUT_BITS), LUT_LANES)) if group else word
            entries = table[row, step * GROUPS + group, _lanes(0)]
            total = total + T.call_llvm_pure_intrin(f"int16x{LUT_LANES}", LOOKUP, entries, index)
        return total

    def reference(self, x: np.ndarray, *arguments: np.ndarray) -> np.ndarray:
        """NumPy oracle on the function's arguments without the output; returns the output."""
        words_y, middle_scale, words_x, bias, scale = arguments[:5]
        first = x.astype(np.int64) @ unpack_words(words_y, self.terms, self.inputs).T.astype(np.int64)
        middle = ep.requantize_numpy(first, middle_scale, self.middle_limit)
        second = middle.astype(np.int64) @ unpack_words(words_x, self.outputs, self.terms).T.astype(np.int64)
        extra = (arguments[5], arguments[6]) if self.epilogue.residual else None
        return ep.apply_numpy(self.epilogue, second, bias, scale, extra)


def _prefetch(element: Any) -> Any:
    """Asks for the cache line of an element, which may lie beyond its tensor's end."""
    read, everywhere, data = T.int32(0), T.int32(3), T.int32(1)
    return T.call_llvm_intrin("void", "llvm.prefetch", T.address_of(element), read, everywhere, data)


def _lanes(start: Any) -> Any:
    return T.Ramp(start, 1, LUT_LANES)


def _all(value: Any) -> Any:
    return T.Broadcast(value, LUT_LANES)
