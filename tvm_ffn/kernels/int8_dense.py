"""Dense layer with int8 weights, for layers that are not factorised; exact float32 arithmetic as in `int8_conv2d`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm.script.ir_builder import tirx as T
from tvm.tirx import PrimFunc

from tvm_ffn.kernels import epilogue as ep
from tvm_ffn.kernels.builder import KernelBuilder
from tvm_ffn.kernels.epilogue import CONSTANT_BYTES, Epilogue
from tvm_ffn.kernels.int8_conv2d import exact_runs
from tvm_ffn.kernels.work import Cost, Executed

WIDTHS = (64, 32, 16)  # outputs of a block


def block_width(outputs: int) -> int:
    """Of `WIDTHS` the one that leaves the fewest places of the last block unused, the widest of equal ones."""
    return min(WIDTHS, key=lambda width: -outputs % width)


@dataclass(frozen=True)
class Int8Dense:
    """Static description of ``rows`` activations of ``inputs`` n times an int8 matrix to ``outputs`` m."""

    rows: int
    inputs: int
    outputs: int
    epilogue: Epilogue

    @property
    def out_shape(self) -> tuple[int, int]:
        return self.rows, self.outputs

    @property
    def cost(self) -> Cost:
        """Counts on the outputs there are."""
        return self._cost(self.rows * self.outputs)

    @property
    def executed(self) -> Executed:
        """Counts on whole blocks of outputs."""
        cost = self._cost(self.rows * self._blocks * self.lanes)
        return Executed.of(cost, moves=self.rows * (self.inputs + self.outputs))

    @property
    def lanes(self) -> int:
        """Outputs of a block."""
        return block_width(self.outputs)

    @property
    def _blocks(self) -> int:
        return -(-self.outputs // self.lanes)

    def _cost(self, stored: int) -> Cost:
        constants = self._blocks * self.lanes * self.inputs + self.outputs * CONSTANT_BYTES
        return Cost(stored * self.inputs, stored * (self.inputs + self.epilogue.multiplies), 0, constants)

    @staticmethod
    def pack(weight: np.ndarray) -> np.ndarray:
        """(m, n) int8 as the kernel reads it: (blocks, n, lanes), zeros after the last output."""
        outputs, inputs = weight.shape
        lanes = block_width(outputs)
        padded = np.zeros((-(-outputs // lanes) * lanes, inputs), np.int8)
        padded[:outputs] = weight
        return np.ascontiguousarray(padded.reshape(-1, lanes, inputs).transpose(0, 2, 1))

    def prim_func(self, name: str) -> PrimFunc:
        """Arguments: x int8 (rows, n), weight int8 as `pack` gives it, bias int32 (1, m), scale float32 (1, m),
        [residual int8 (rows, m), its scale float32 (1,)], out (rows, m)."""
        e = self.epilogue
        blocks, lanes = self._blocks, self.lanes
        b = KernelBuilder(name, {"ffn.op": "int8_dense"})
        x = b.arg("x", (self.rows, self.inputs), "int8")
        weight = b.arg("weight", (blocks, self.inputs, lanes), "int8")
        bias = b.arg("bias", (1, self.outputs), "int32")
        scale = b.arg("scale", (1, self.outputs), "float32")
        residual = b.arg("residual", self.out_shape, "int8") if e.residual else None
        residual_scale = b.arg("residual_scale", (1,), "float32") if e.residual else None
        out = b.arg("out", self.out_shape, e.out_dtype)
        runs, length = exact_runs(self.inputs)

        def product(r: Any, o: Any, s: Any, i: Any, k: Any) -> Any:
            at = T.min(s * length + k, self.inputs - 1)
            item = T.Cast("float32", x[r, at]) * T.Cast("float32", weight[o, at, i])
            return item if runs * length == self.inputs else T.Select(s * length + k < self.inputs, item, T.float32(0))

        partial = b.reduce("partial", (self.rows, blocks, runs, lanes), (length,), "float32", product)
        total = b.reduce(
            "sum", (self.rows, blocks, lanes), (runs,), "int32", lambda r, o, i, s: T.Cast("int32", partial[r, o, s, i])
        )

        def stored(r: Any, m: Any) -> Any:
            pair = (residual[r, m], residual_scale[0]) if residual is not None and residual_scale is not None else None
            return ep.apply(e, total[r, m // lanes, m % lanes], bias[0, m], scale[0, m], pair)

        b.compute("store", self.out_shape, e.out_dtype, stored, out=out)
        return b.finish()

    def reference(
        self, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, scale: np.ndarray, *residual: np.ndarray
    ) -> np.ndarray:
        """NumPy oracle on the function's arguments without the output; returns the output."""
        matrix = weight.transpose(0, 2, 1).reshape(-1, self.inputs)[: self.outputs]
        total = x.astype(np.int64) @ matrix.T.astype(np.int64)
        return ep.apply_numpy(self.epilogue, total, bias, scale, (residual[0], residual[1]) if residual else None)
