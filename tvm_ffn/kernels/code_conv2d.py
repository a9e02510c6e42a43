"""A factorised convolution whose ternary matrices are machine code (the ``code`` family; see `straight_line`).

Same numbers as `ternary_conv2d`; the weights are constants of the function instead of arguments. A tile of pixels
passes both stages before the next starts, and within it each block of outputs runs over all vectors of the tile while
its instructions are in the caches.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer, PrimFunc

from tvm_ffn.kernels import epilogue as ep
from tvm_ffn.kernels.builder import KernelBuilder
from tvm_ffn.kernels.codes import column_bounds
from tvm_ffn.kernels.epilogue import Epilogue
from tvm_ffn.kernels.geometry import ConvGeometry
from tvm_ffn.kernels.planes import flat_copy, im2col_numpy, image_planes
from tvm_ffn.kernels.straight_line import CodeBlock, VectorISA, emit_block, llvm_function

_INT16 = 2  # bytes
_SMALL_CODE = 100_000  # ternary entries, about 250 KB of instructions
_SMALL_TILE = 4  # vectors


@dataclass(frozen=True, eq=False)
class TernaryCode:
    """One ternary product (R, K) as blocks of code; ``bounds`` cuts the inputs into segments whose int16 sums
    cannot overflow, input k lies at ``offsets[k]`` bytes, a row of sums is ``row_bytes`` long."""

    ternary: np.ndarray
    bounds: tuple[int, ...]
    offsets: np.ndarray
    row_bytes: int
    isa: VectorISA

    @property
    def segments(self) -> int:
        return len(self.bounds) - 1

    @cached_property
    def blocks(self) -> dict[tuple[int, int], CodeBlock]:
        """Code by (segment, first row), rows outermost."""
        found = {}
        for row in range(0, len(self.ternary), self.rows_a_block):
            for segment, (start, end) in enumerate(pairwise(self.bounds)):
                part = self.ternary[row : row + self.rows_a_block, start:end]
                found[segment, row] = emit_block(part, self.offsets[start:end], self.row_bytes, self.isa)
        return found

    @property
    def rows_a_block(self) -> int:
        """Rows of a block: as even as the registers allow."""
        rows = len(self.ternary)
        return -(-rows // -(-rows // self.isa.rows))

    @property
    def adds(self) -> int:
        """Additions executed a pixel."""
        return sum(block.adds for block in self.blocks.values())

    @property
    def code_bytes(self) -> int:
        """Estimate of the machine code: 6 bytes an EVEX register form (4 VEX), 5 more for an address."""
        short = 6 if self.isa.vector_bytes == 64 else 4
        return sum(short * (block.adds + block.loads) + 5 * block.loads for block in self.blocks.values())

    @cached_property
    def names(self) -> dict[tuple[int, int], str]:
        """Function names; the digest of the code keeps the kernels of a module apart."""
        digest = hashlib.sha256(repr((self.offsets.tolist(), self.row_bytes, self.isa.name)).encode())
        digest.update(self.ternary.tobytes())
        stem = f"ffn_code_{digest.hexdigest()[:16]}"
        return {place: "_".join(map(str, (stem, *place))) for place in self.blocks}

    def llvm(self) -> str:
        """All blocks as one LLVM module."""
        return "".join(llvm_function(self.names[place], block, self.isa) for place, block in self.blocks.items())

    def calls(self, source: Any, target: Any, vectors: int) -> None:
        """Emit the calls for one tile of ``vectors``: ``source`` points to its first pixel, ``target(segment, row)`` to
        the place of a row's sums."""
        for (segment, row), name in self.names.items():
            T.evaluate(T.call_extern("int32", name, source, target(segment, row), T.int64(vectors)))


@dataclass(frozen=True, eq=False)
class CodeConv2d:
    """Static description with the matrices: ``y`` int8 (k, n), ``x`` int8 (m, k), one group; ``tile`` pixels pass both
    stages together, a multiple of the ISA's lanes."""

    geometry: ConvGeometry
    y: np.ndarray
    x: np.ndarray
    bounds_y: tuple[int, ...]
    bounds_x: tuple[int, ...]
    middle_limit: int
    epilogue: Epilogue
    isa: VectorISA
    tile: int

    @property
    def outputs(self) -> int:
        return len(self.x)

    @property
    def terms(self) -> int:
        return len(self.y)

    @property
    def out_shape(self) -> tuple[int, int, int, int]:
        g = self.geometry
        return g.batch, g.groups * self.outputs, g.out_height, g.out_width

    @property
    def pixels(self) -> int:
        """Length of the flat pixel space, a multiple of the tile."""
        return -(-self.geometry.pixels // self.tile) * self.tile

    @cached_property
    def code_y(self) -> TernaryCode:
        """Stage one, reading the planes."""
        g = self.geometry
        k = np.arange(g.inputs)
        tap = k % g.taps
        places = [g.tap_offset(int(t) // g.kernel[1], int(t) % g.kernel[1], self.pixels) for t in tap]
        offsets = (k // g.taps * g.span(self.pixels) + np.array(places)) * _INT16
        return TernaryCode(self.y, self.bounds_y, offsets, self.tile * _INT16, self.isa)

    @cached_property
    def code_x(self) -> TernaryCode:
        """Stage two, reading the tile's middle."""
        offsets = np.arange(self.terms) * self.tile * _INT16
        return TernaryCode(self.x, self.bounds_x, offsets, self.tile * _INT16, self.isa)

    @property
    def work(self) -> tuple[int, int]:
        """Additions and multiplies executed."""
        g = self.geometry
        pixels = g.batch * g.out_height * g.out_width
        scaled = g.groups * (self.terms + self.outputs * self.epilogue.multiplies)
        return pixels * (self.code_y.adds + self.code_x.adds), pixels * scaled

    @property
    def code_bytes(self) -> int:
        """Estimated machine code of both stages."""
        return self.code_y.code_bytes + self.code_x.code_bytes

    def prim_func(self, name: str) -> PrimFunc:
        """Arguments: x int8 (N, C, H, W), middle scale float32 (groups, k), bias int32 (groups, m), scale float32 (1 or
        2, groups, m), [residual int8 like the output, its scale float32 (1,)], out."""
        g, e = self.geometry, self.epilogue
        b = KernelBuilder(name, {"ffn.op": "ternary_code_conv2d", "ffn.pixel_block": self.tile})
        x = b.arg("x", (g.batch, g.channels, g.height, g.width), "int8")
        middle_scale = b.arg("middle_scale", (g.groups, self.terms), "float32")
        bias = b.arg("bias", (g.groups, self.outputs), "int32")
        scale = b.arg("scale", (2 if e.leaky else 1, g.groups, self.outputs), "float32")
        residual = b.arg("residual", self.out_shape, "int8") if e.residual else None
        residual_scale = b.arg("residual_scale", (1,), "float32") if e.residual else None
        out = b.arg("out", self.out_shape, e.out_dtype)
        planes = image_planes(b, x, g, self.pixels, "int16")
        extra = flat_copy(b, residual, g, self.pixels) if residual is not None else None
        flat_shape = (g.batch, self.outputs, self.pixels)
        flat = b.tensor("flat", flat_shape, e.out_dtype)
        with b.tile("tile", (g.batch, self.pixels // self.tile)) as (n, t):
            start = t * self.tile
            span = planes[n, 0 : g.channels, 0 : g.span(self.pixels)]
            first = self._product(b, "y", self.code_y, span, planes[n, 0, start])

            def requantized(k: Any, p: Any) -> Any:
                return ep.requantize(_total(first, k, p), middle_scale[0, k], self.middle_limit)

            middle = b.compute("middle", (self.terms, self.tile), "int16", requantized)
            whole = middle[0 : self.terms, 0 : self.tile]
            second = self._product(b, "x", self.code_x, whole, middle[0, 0])

            def stored(m: Any, p: Any) -> Any:
                pair = None
                if extra is not None and residual_scale is not None:
                    pair = (extra[n, m, start + p], residual_scale[0])
                return ep.apply(e, _total(second, m, p), bias[0, m], lambda i: scale[i, 0, m], pair)

            b.compute(
                "epilogue", (self.outputs, self.tile), e.out_dtype, stored, out=flat, at=lambda m, p: (n, m, start + p)
            )

        def cropped(n: Any, m: Any, h: Any, w: Any) -> Any:
            return flat[n, m, h * g.pitch + w]

        b.compute("store", self.out_shape, e.out_dtype, cropped, out=out)
        return b.finish()

    def _product(self, b: KernelBuilder, stage: str, code: TernaryCode, reads: Any, source: Any) -> Buffer:
        """Block "<stage>_code": int16 sums (segments, rows, tile) of the tile whose first input is ``source``."""

        def calls(total: Buffer) -> None:
            code.calls(T.address_of(source), lambda s, r: T.address_of(total[s, r, 0]), self.tile // self.isa.lanes)

        shape = (code.segments, len(code.ternary), self.tile)
        return b.call_assembly(f"{stage}_code", shape, "int16", code.llvm(), reads=reads, calls=calls)

    def reference(self, x: np.ndarray, *arguments: np.ndarray) -> np.ndarray:
        """NumPy oracle on the function's arguments without the output; returns the output."""
        middle_scale, bias, scale = arguments[:3]
        g = self.geometry
        columns = im2col_numpy(x, g).astype(np.int64)
        first = self.y.astype(np.int64) @ columns
        middle = ep.requantize_numpy(first, middle_scale[None, :, :, None], self.middle_limit)
        second = self.x.astype(np.int64) @ middle.astype(np.int64)
        extra = (arguments[3].reshape(second.shape), arguments[4]) if self.epilogue.residual else None
        stored = ep.apply_numpy(self.epilogue, second, bias[None, :, :, None], scale[:, None, :, :, None], extra)
        return stored.reshape(self.out_shape)


def code_conv2d(
    geometry: ConvGeometry,
    y: np.ndarray,
    x: np.ndarray,
    limits: tuple[int, int],
    epilogue: Epilogue,
    isa: VectorISA,
) -> CodeConv2d:
    """The convolution with its segments and its tile; ``limits`` bound the magnitudes of input and middle.

    A tile is a few vectors where the code fits the second-level cache, and all pixels where it does not, so that each
    block's instructions are fetched once.
    """
    entries = y.size + x.size
    whole = -(-geometry.pixels // isa.lanes) * isa.lanes
    tile = whole if entries > _SMALL_CODE else min(whole, _SMALL_TILE * isa.lanes)
    bounds_y, bounds_x = column_bounds(y, limits[0]), column_bounds(x, limits[1])
    return CodeConv2d(geometry, y, x, bounds_y, bounds_x, limits[1], epilogue, isa, tile)


def _total(partial: Buffer, m: Any, p: Any) -> Any:
    """int32 sum over the segments of an int16 partial sum."""
    total = T.Cast("int32", partial[0, m, p])
    for segment in range(1, int(partial.shape[0])):
        total = total + T.Cast("int32", partial[segment, m, p])
    return total
