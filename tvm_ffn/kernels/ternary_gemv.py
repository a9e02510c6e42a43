"""A factorised dense layer on few rows: vectors run over outputs, weights are bit masks.

    total[m] = sum_k select(plus[m, k], x[k], 0) - select(minus[m, k], x[k], 0)

Two bits an entry are read, an activation is broadcast to all lanes, and each mask bit keeps or drops it: no multiply.
Sums run in int16 within a segment (`codes.segments` proves that they fit) and in int32 across segments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer, PrimFunc

from tvm_ffn.kernels import epilogue as ep
from tvm_ffn.kernels.builder import KernelBuilder
from tvm_ffn.kernels.codes import Segments, unpack_masks
from tvm_ffn.kernels.epilogue import CONSTANT_BYTES, Epilogue
from tvm_ffn.kernels.epilogue_arguments import EpilogueArguments
from tvm_ffn.kernels.work import Cost, Executed

WORD = 16
WORDS = 4  # mask words read together: 64 outputs share the broadcast of an activation
LANES = WORD * WORDS


@dataclass(frozen=True)
class TernaryGemv:
    """Static description: ``rows`` activations of n ``inputs`` through ``terms`` k to ``outputs`` m."""

    rows: int
    inputs: int
    terms: int
    outputs: int
    middle_limit: int
    cut_y: Segments
    cut_x: Segments
    epilogue: Epilogue

    @property
    def out_shape(self) -> tuple[int, int]:
        return self.rows, self.outputs

    @property
    def cost(self) -> Cost:
        """Counts on the outputs there are; two additions a mask entry, zeros included."""
        return self._cost(2 * self.terms * (self.inputs + self.outputs))

    @property
    def executed(self) -> Executed:
        """Counts on whole blocks of outputs and segments of inputs."""
        lanes = (_blocks(self.terms) * LANES, _blocks(self.outputs) * LANES)
        cost = self._cost(2 * (lanes[0] * self.cut_y.steps + lanes[1] * self.cut_x.steps))
        return Executed.of(cost, moves=self.rows * (self.inputs + self.outputs))

    def _cost(self, adds: int) -> Cost:
        """Counts with ``adds`` a row of activations."""
        multiplies = self.rows * (self.terms + self.outputs * self.epilogue.multiplies)
        masks = (_blocks(self.terms) * self.inputs + _blocks(self.outputs) * self.terms) * 2 * LANES // 8
        constants = 4 * self.terms + CONSTANT_BYTES * self.outputs
        return Cost(self.rows * adds, multiplies, 0, masks + constants)

    def prim_func(self, name: str) -> PrimFunc:
        """Arguments: x int8 (rows, n), masks of Y^T uint16 (blocks, n, 2, words), middle scale (1, k) float32, masks of
        X, bias (1, m) int32, scale (1, m) float32, [residual int8 (rows, m), its scale (1,)], out (rows, m)."""
        b = KernelBuilder(name, {"ffn.op": "ternary_gemv"})
        x = b.arg("x", (self.rows, self.inputs), "int8")
        masks_y = b.arg("masks_y", (_blocks(self.terms), self.inputs, 2, WORDS), "uint16")
        middle_scale = b.arg("middle_scale", (1, self.terms), "float32")
        masks_x = b.arg("masks_x", (_blocks(self.outputs), self.terms, 2, WORDS), "uint16")
        ends = EpilogueArguments.declare(b, self.epilogue, (1, self.outputs), self.out_shape)

        first = self._sum(b, "y", masks_y, self.cut_y, self.inputs, lambda r, k: T.Cast("int16", x[r, k]))
        middle = b.compute(
            "middle",
            (self.rows, self.terms),
            "int16",
            lambda r, k: ep.requantize(
                first[r, k // LANES, k % LANES // WORD, k % WORD], middle_scale[0, k], self.middle_limit
            ),
        )
        second = self._sum(b, "x", masks_x, self.cut_x, self.terms, lambda r, k: middle[r, k])

        def stored(r: Any, m: Any) -> Any:
            total = second[r, m // LANES, m % LANES // WORD, m % WORD]
            return ends.stored(total, (0, m), (r, m))

        b.compute("store", self.out_shape, self.epilogue.out_dtype, stored, out=ends.out)
        return b.finish()

    def _sum(self, b: KernelBuilder, stage: str, masks: Buffer, cut: Segments, inputs: int, value: Any) -> Buffer:
        length = cut.chunks * cut.length

        def term(r: Any, o: Any, s: Any, w: Any, i: Any, k: Any) -> Any:
            at = T.min(s * length + k, inputs - 1)
            item = value(r, at)
            bit = T.Cast("uint16", T.shift_left(T.int32(1), i))
            plus, minus = ((masks[o, at, sign, w] & bit) != T.uint16(0) for sign in (0, 1))
            signed = T.Select(plus, item, T.int16(0)) - T.Select(minus, item, T.int16(0))
            return signed if length * cut.segments == inputs else T.Select(s * length + k < inputs, signed, T.int16(0))

        outer = (self.rows, int(masks.shape[0]))
        partial = b.reduce(f"{stage}_partial", (*outer, cut.segments, WORDS, WORD), (length,), "int16", term)
        return b.reduce(
            f"{stage}_sum",
            (*outer, WORDS, WORD),
            (cut.segments,),
            "int32",
            lambda r, o, w, i, s: T.Cast("int32", partial[r, o, s, w, i]),
        )

    def reference(self, x: np.ndarray, *arguments: np.ndarray) -> np.ndarray:
        """NumPy oracle on the function's arguments without the output; returns the output."""
        masks_y, middle_scale, masks_x, bias, scale = arguments[:5]
        first = x.astype(np.int64) @ unpack_masks(masks_y, self.terms).T.astype(np.int64)
        middle = ep.requantize_numpy(first, middle_scale, self.middle_limit)
        second = middle.astype(np.int64) @ unpack_masks(masks_x, self.outputs).T.astype(np.int64)
        extra = (arguments[5], arguments[6]) if self.epilogue.residual else None
        return ep.apply_numpy(self.epilogue, second, bias, scale, extra)


def _blocks(outputs: int) -> int:
    """Blocks of `LANES` outputs."""
    return -(-outputs // LANES)
