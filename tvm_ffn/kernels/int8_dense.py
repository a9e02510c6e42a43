"""Dense layer with int8 weights, for layers that are not factorised: exact in int32.

Vectors run over outputs. A block of them takes ``vectors`` registers for each of ``rows`` activations, whose inputs are
the same for all lanes (`Dot`); weights that the instruction takes as int16 are widened on the way from memory to
registers. One row is limited by the bytes of the weights, 16 of them a cycle at most with vectors of 32 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer, PrimFunc

from tvm_ffn.kernels import epilogue as ep
from tvm_ffn.kernels.builder import KernelBuilder
from tvm_ffn.kernels.dot import DOTS, Dot, block_size, sequence
from tvm_ffn.kernels.epilogue import CONSTANT_BYTES, Epilogue
from tvm_ffn.kernels.epilogue_arguments import EpilogueArguments
from tvm_ffn.kernels.work import Cost, Executed

MOST_ROWS = 4


@dataclass(frozen=True)
class DenseTile:
    """``rows`` activations by ``vectors`` of outputs have their sums in registers."""

    isa: str
    rows: int
    vectors: int

    @property
    def dot(self) -> Dot:
        return DOTS[self.isa]

    @property
    def outputs(self) -> int:
        """Outputs of a block."""
        return self.vectors * self.dot.lanes


def dense_tile(isa: str, rows: int, outputs: int, most_vectors: int) -> DenseTile:
    """The tile of at most ``most_vectors``: as many sums as fit beside the inputs; few outputs in the last block that
    nobody reads."""
    dot = DOTS[isa]
    tall = -(-rows // -(-rows // MOST_ROWS))
    vectors = -(-outputs // dot.lanes)
    most = min(most_vectors, (dot.registers - 2) // tall - 1)
    return DenseTile(isa, tall, block_size(vectors, most))


@dataclass(frozen=True)
class Int8Dense:
    """Static description of ``rows`` activations of ``inputs`` n times an int8 matrix to ``outputs`` m."""

    rows: int
    inputs: int
    outputs: int
    epilogue: Epilogue
    tile: DenseTile

    @property
    def out_shape(self) -> tuple[int, int]:
        return self.rows, self.outputs

    @property
    def cost(self) -> Cost:
        """Counts on the outputs there are."""
        return self._cost(self.rows * self.outputs * self.inputs)

    @property
    def executed(self) -> Executed:
        """Counts on whole blocks."""
        cost = self._cost(self._padded_rows * self._blocks * self.tile.outputs * self._steps * self.tile.dot.width)
        return Executed.of(cost, moves=self.rows * (self.inputs + self.outputs))

    @property
    def _blocks(self) -> int:
        return -(-self.outputs // self.tile.outputs)

    @property
    def _padded_rows(self) -> int:
        return -(-self.rows // self.tile.rows) * self.tile.rows

    @property
    def _steps(self) -> int:
        return -(-self.inputs // self.tile.dot.width)

    def _cost(self, products: int) -> Cost:
        e, outputs = self.epilogue, self._blocks * self.tile.outputs
        constants = outputs * self._steps * self.tile.dot.width + self.outputs * CONSTANT_BYTES
        return Cost(products, products + self.rows * self.outputs * e.multiplies, 0, constants)

    def pack(self, weight: np.ndarray) -> np.ndarray:
        """(m, n) int8 as the kernel reads it: (blocks, steps, outputs * width), zeros beyond the last."""
        width = self.tile.dot.width
        padded = np.zeros((self._blocks * self.tile.outputs, self._steps * width), np.int8)
        padded[: self.outputs, : self.inputs] = weight
        apart = padded.reshape(self._blocks, self.tile.outputs, self._steps, width).transpose(0, 2, 1, 3)
        return np.ascontiguousarray(apart).reshape(self._blocks, self._steps, -1)

    def prim_func(self, name: str) -> PrimFunc:
        """Arguments: x int8 (rows, n), weight int8 as `pack` gives it, bias int32 (1, m), scale float32 (1, m),
        [residual int8 (rows, m), its scale float32 (1,)], out (rows, m)."""
        width = self.tile.dot.width
        b = KernelBuilder(name, {"ffn.op": "int8_dense"})
        x = b.arg("x", (self.rows, self.inputs), "int8")
        weight = b.arg("weight", (self._blocks, self._steps, self.tile.outputs * width), "int8")
        ends = EpilogueArguments.declare(b, self.epilogue, (1, self.outputs), self.out_shape)

        def widened(r: Any, k: Any) -> Any:  # what lies beyond the end meets weights of 0
            return self.tile.dot.widened(x[T.min(r, self.rows - 1), T.min(k, self.inputs - 1)])

        dtype = self.tile.dot.activations
        wide = b.compute("wide", (self._padded_rows, self._steps * width), dtype, widened)
        total = b.tensor("total", (self._padded_rows, self._blocks * self.tile.outputs), "int32")
        with b.tile("tile", (self._padded_rows // self.tile.rows, self._blocks)) as (row, block):
            self._sum(b, wide, weight, total, row * self.tile.rows, block)

        def stored(r: Any, m: Any) -> Any:
            return ends.stored(total[r, m], (0, m), (r, m))

        b.compute("store", self.out_shape, self.epilogue.out_dtype, stored, out=ends.out)
        return b.finish()

    def _sum(self, b: KernelBuilder, wide: Buffer, weight: Buffer, total: Buffer, row: Any, block: Any) -> None:
        """Add block "dot": the sums of a tile that starts at ``row``."""
        tile, dot = self.tile, self.tile.dot
        lanes, width = dot.lanes, dot.width
        # Tensors of less than 1 KB are on the stack: LLVM makes registers of these.
        sums = [b.tensor(f"sum{r}", (tile.outputs,), "int32") for r in range(tile.rows)]
        places = [(target, r, vector * lanes) for r, target in enumerate(sums) for vector in range(tile.vectors)]
        packed = weight[block, 0 : self._steps, 0 : tile.outputs * width]
        reads = [wide[row : row + tile.rows, 0 : self._steps * width], packed]
        first = block * tile.outputs
        with b.program("dot", reads=reads, writes=[total[row : row + tile.rows, first : first + tile.outputs]]):
            for target, _, place in places:
                T.buffer_store(target, T.Broadcast(T.int32(0), lanes), [sequence(place, lanes)])
            with T.serial(self._steps) as step:
                for target, r, place in places:
                    columns = weight[block, step, sequence(place * width, lanes * width)]
                    matrix = T.Cast(f"{dot.weights}x{lanes * width}", columns)
                    inputs = dot.spread(wide[row + r, sequence(step * width, width)])
                    at = sequence(place, lanes)
                    T.buffer_store(target, dot.add(target[at], inputs, matrix), [at])
            for target, r, place in places:
                T.buffer_store(total, target[sequence(place, lanes)], [row + r, sequence(first + place, lanes)])

    def reference(
        self, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, scale: np.ndarray, *residual: np.ndarray
    ) -> np.ndarray:
        """NumPy oracle on the function's arguments without the output; returns the output."""
        apart = weight.reshape(self._blocks, self._steps, self.tile.outputs, -1)
        matrix = apart.transpose(0, 2, 1, 3).reshape(self._blocks * self.tile.outputs, -1)
        total = (x.astype(np.int64) + self.tile.dot.raise_by) @ matrix[: self.outputs, : self.inputs].T.astype(np.int64)
        return ep.apply_numpy(self.epilogue, total, bias, scale, (residual[0], residual[1]) if residual else None)
