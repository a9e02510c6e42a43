"""Weights and activations made up for a task, and the integers that every right kernel must give for them.

The scales keep each value in the middle of its range: activations are uniform (standard deviation S = 73 steps), the
middle of two factors gets a quarter of its limit, outputs 40 steps.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tvm_ffn.kernel_plan import KernelPlan
from tvm_ffn.kernels.digit_lists import integer_weights
from tvm_ffn.kernels.epilogue import with_residual
from tvm_ffn.kernels.layer_kernel import INT8_LIMIT, LayerKernel, factored_kernel, int8_kernel, planes_kernel
from tvm_ffn.tuning.task import FACTORS, PLANES, Task

_SPREAD = 73.0
_OUT_SPREAD = 40.0


@dataclass(frozen=True, eq=False)
class Problem:
    """A task with numbers; the same task always has the same."""

    task: Task

    def kernel(self, plan: KernelPlan) -> LayerKernel:
        """The task's kernel with the decisions of ``plan``."""
        t = self.task
        if t.form == PLANES:
            return planes_kernel(t.shape, self._digits, t.epilogue, plan)
        if t.form == FACTORS:
            y, x = self._factors
            return factored_kernel(t.shape, y, x, self._middle_scale, self._limit, t.epilogue, plan)
        return int8_kernel(t.shape, self._weight, t.epilogue, plan)

    def arguments(self, kernel: LayerKernel) -> tuple[np.ndarray, ...]:
        """Arguments of the kernel's function but for the output."""
        t = self.task
        bias = np.zeros((t.groups, t.outputs), np.int32)
        if kernel.raised:
            weight = integer_weights(self._digits) if t.form == PLANES else self._weight
            bias -= kernel.raised * weight.sum(axis=2, dtype=np.int32)
        scale = np.full((t.groups, t.outputs), self._scale, np.float32)
        values = (self._activation, *kernel.weights, bias, scale)
        if not t.epilogue.residual:
            return values
        residual = self._rng("residual").integers(-INT8_LIMIT, INT8_LIMIT + 1, kernel.operator.out_shape, np.int8)
        return (*values, residual, with_residual(t.epilogue, 1.0)[1])

    @cached_property
    def expected(self) -> np.ndarray:
        """The output by NumPy, from the weights as the plainest of plans packs them."""
        plain = self.kernel(KernelPlan())
        return np.asarray(plain.operator.reference(*self.arguments(plain)))

    def _rng(self, what: str) -> np.random.Generator:
        return np.random.default_rng(zlib.crc32(f"{what} {self.task.key}".encode()))

    @cached_property
    def _activation(self) -> np.ndarray:
        g = self.task.geometry
        size = (self.task.rows, self.task.inputs) if g is None else (g.batch, g.channels, g.height, g.width)
        return self._rng("activation").integers(-INT8_LIMIT, INT8_LIMIT + 1, size, np.int8)

    @cached_property
    def _digits(self) -> np.ndarray:
        t = self.task
        return _ternary(self._rng("digits"), (t.groups, t.terms, t.outputs, t.inputs), t.density / t.terms)

    @cached_property
    def _factors(self) -> tuple[np.ndarray, np.ndarray]:
        t = self.task
        y = _ternary(self._rng("y"), (t.groups, t.terms, t.inputs), t.density)
        return y, _ternary(self._rng("x"), (t.groups, t.outputs, t.terms), t.density)

    @cached_property
    def _weight(self) -> np.ndarray:
        t = self.task
        return self._rng("weight").integers(-INT8_LIMIT, INT8_LIMIT + 1, (t.groups, t.outputs, t.inputs), np.int8)

    @property
    def _limit(self) -> int:
        return 2 ** (self.task.middle_bits - 1) - 1

    @cached_property
    def _middle_scale(self) -> np.ndarray:
        t = self.task
        scale = self._limit / 4 / (_SPREAD * np.sqrt(t.inputs * t.density))
        return np.full((t.groups, t.terms), scale, np.float32)

    @property
    def _scale(self) -> float:
        t = self.task
        if t.form == FACTORS:
            return float(_OUT_SPREAD / (self._limit / 4 * np.sqrt(t.terms * t.density)))
        weight = integer_weights(self._digits) if t.form == PLANES else self._weight
        return float(_OUT_SPREAD / (_SPREAD * np.sqrt(t.inputs) * max(weight.std(), 1e-3)))


def _ternary(rng: np.random.Generator, size: tuple[int, ...], density: float) -> np.ndarray:
    """Entries in {-1, 0, 1}, each other than zero with probability ``density``."""
    signs = rng.choice(np.array([-1, 1], np.int8), size)
    return np.where(rng.random(size, np.float32) < density, signs, np.int8(0))
