"""How an activation lies between convolutions of one pitch: as the planes that the second one reads, which the first
one writes and a residual is read from, so that nobody copies it (see `geometry`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_ffn.kernels.builder import KernelBuilder


@dataclass(frozen=True)
class PlaneLayout:
    """A tensor of ``shape`` (N, C, H, W) as int16 planes (N, C, size): pixel (h, w) at ``first + h * pitch + w``, and
    ``pad_value`` everywhere else."""

    shape: tuple[int, ...]
    pitch: int
    first: int
    size: int
    pad_value: int

    @property
    def tensor(self) -> tuple[tuple[int, ...], str]:
        """Shape (N, C, size) and dtype of the planes."""
        return (*self.shape[:2], self.size), "int16"

    @property
    def end(self) -> int:
        """The place behind the last pixel."""
        return self.first + (self.shape[2] - 1) * self.pitch + self.shape[3]

    def pad(self, b: KernelBuilder, planes: Buffer) -> None:
        """Block "borders": everything between, before and behind the rows, in planes whose pixels are written."""
        images, channels, height, width = self.shape
        with b.tile("borders", (images, channels)) as (n, c):

            def fill(start: int, count: int) -> None:
                with T.serial(count) as q:
                    T.buffer_store(planes, T.int16(self.pad_value), [n, c, start + q])

            fill(0, self.first)
            with T.serial(height - 1) as h:
                fill(self.first + h * self.pitch + width, self.pitch - width)
            fill(self.end, self.size - self.end)

    def planes_numpy(self, rows: np.ndarray) -> np.ndarray:
        """NumPy reference: the planes of a tensor (N, C, H, W)."""
        shape, dtype = self.tensor
        planes = np.full(shape, self.pad_value, dtype)
        planes[:, :, self._places] = rows
        return planes

    def rows_numpy(self, planes: np.ndarray) -> np.ndarray:
        """NumPy reference: the tensor int8 (N, C, H, W) that lies in ``planes``."""
        return planes[:, :, self._places].astype(np.int8)

    @property
    def _places(self) -> np.ndarray:
        """Place of every pixel, (H, W)."""
        _, _, height, width = self.shape
        return self.first + np.arange(height)[:, None] * self.pitch + np.arange(width)


@dataclass(frozen=True)
class Layouts:
    """Which tensors of a convolution lie in planes; None: int8 rows (N, C, H, W)."""

    x: PlaneLayout | None = None
    residual: PlaneLayout | None = None
    out: PlaneLayout | None = None
