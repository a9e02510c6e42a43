"""Depthwise convolution with int8 weights: vectors of pixels of one channel, no copy of its columns.

An instruction that multiplies `Dot.width` neighbours and adds them to one int32 takes that many taps at once where they
lie beside each other in the planes, which all of a row do (of every second column with stride 2, by their phase). Read
from a pixel on it gives every width-th output; so it reads from as many pixels, and what they give is interleaved:

    sums[i][j] = sum over runs of taps:  weights[run] . planes[first + i + width j + offset[run], + width)

3x3 with two taps an instruction: 12 products and as many additions for 16 outputs of 32-byte vectors; with four taps 3
for as many vectors of a quarter of the outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_ffn.kernels.builder import KernelBuilder
from tvm_ffn.kernels.dot import DOTS, Dot, sequence
from tvm_ffn.kernels.epilogue import CONSTANT_BYTES, Epilogue
from tvm_ffn.kernels.geometry import ConvGeometry
from tvm_ffn.kernels.planes import image_planes
from tvm_ffn.kernels.tiled_conv2d import Sums, Tile, TiledConv2d
from tvm_ffn.kernels.work import Cost, Executed

MOST_PIXELS = 1024  # of a tile: 4 KB of sums


@dataclass(frozen=True, eq=False)
class DepthwiseConv2d(TiledConv2d):
    """Static description: ``multiplier`` outputs of each channel, tiles of ``tile`` pixels."""

    op: ClassVar[str] = "int8_conv2d"
    isa: str
    multiplier: int
    tile: int

    @property
    def dot(self) -> Dot:
        return DOTS[self.isa]

    @property
    def pixel_block(self) -> int:
        return self.tile

    @property
    def outputs(self) -> int:
        return self.multiplier

    @property
    def parts(self) -> int:
        return self.geometry.groups * self.multiplier

    @property
    def argument_count(self) -> int:
        return 1

    @property
    def _span(self) -> int:
        """Pixels that may be read from any tap: what a last run reads beyond the tile's included."""
        return self.pixels + self.dot.lanes * self.dot.width

    @cached_property
    def runs(self) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """Runs of up to `Dot.width` taps that are neighbours in the planes: offset of the first, and the taps."""
        g = self.geometry
        places = sorted(
            (int(g.tap_offset(dy, dx, self._span)), dy * g.kernel[1] + dx)
            for dy in range(g.kernel[0])
            for dx in range(g.kernel[1])
        )
        runs: list[tuple[int, list[int]]] = []
        for place, tap in places:
            if runs and len(runs[-1][1]) < self.dot.width and place == runs[-1][0] + len(runs[-1][1]):
                runs[-1][1].append(tap)
            else:
                runs.append((place, [tap]))
        return tuple((place, tuple(taps)) for place, taps in runs)

    def cost_of(self, pixels: int) -> Cost:
        """Counts of ``pixels`` pixels."""
        return self._cost(pixels, self.geometry.taps)

    @property
    def executed(self) -> Executed:
        """Counts on whole tiles and runs of taps."""
        g, pixels = self.geometry, self.geometry.batch * self.pixels
        moves = g.moves(self.pixels, self.parts, self.epilogue.residual)
        return Executed.of(self._cost(pixels, len(self.runs) * self.dot.width), moves=moves)

    def _cost(self, pixels: int, products: int) -> Cost:
        """Counts of ``pixels`` pixels with ``products`` an output."""
        weights = len(self.runs) * self.dot.width * np.dtype(self.dot.weights).itemsize
        multiplies = pixels * self.parts * (products + self.epilogue.multiplies)
        return Cost(pixels * self.parts * products, multiplies, 0, self.parts * (weights + CONSTANT_BYTES))

    def arguments(self, b: KernelBuilder) -> list[Buffer]:
        """The weights (parts, runs, width) as `pack` gives them."""
        return [b.arg("weight", (self.parts, len(self.runs), self.dot.width), self.dot.weights)]

    def pack(self, weight: np.ndarray) -> np.ndarray:
        """Weights int8 (groups, multiplier, taps) as the kernel reads them, zeros where a run is short."""
        packed = np.zeros((self.parts, len(self.runs), self.dot.width), self.dot.weights)
        for index, (_, taps) in enumerate(self.runs):
            packed[:, index, : len(taps)] = weight.reshape(self.parts, -1)[:, list(taps)]
        return packed

    def planes_in(self, b: KernelBuilder, x: Buffer) -> Buffer:
        """Block "planes": activations as the instruction takes them (images, channels, span)."""
        return image_planes(b, x, self.geometry, self._span, self.dot.activations, self.dot.widened)

    def sums(self, b: KernelBuilder, arguments: list[Buffer], tile: Tile) -> Sums:
        """Block "dot"."""
        dot, planes, weights = self.dot, tile.source, arguments[0]
        lanes, width = dot.lanes, dot.width
        channel = tile.part // self.multiplier
        total = b.tensor("total", (1, self.tile), "int32")

        def sums_from(first: Any) -> Any:
            result = T.Broadcast(T.int32(0), lanes)
            for index, (offset, _) in enumerate(self.runs):
                start = tile.index * self.tile + first + offset
                inputs = planes[tile.image, channel, sequence(start, lanes * width)]
                result = dot.add(result, inputs, dot.spread(weights[tile.part, index, sequence(0, width)]))
            return result

        whole = weights[tile.part, 0 : len(self.runs), 0:width]
        reads = [planes[tile.image, channel, 0 : int(planes.shape[2])], whole]
        with b.program("dot", reads=reads, writes=[total[0:1, 0 : self.tile]]):
            with T.serial(self.tile // (lanes * width)) as block:
                first = block * lanes * width
                vectors = [sums_from(first + place) for place in range(width)]
                T.buffer_store(total, _interleaved(vectors, lanes), [0, sequence(first, lanes * width)])
        return lambda m, p: total[m, p]

    def sums_numpy(self, columns: np.ndarray, arguments: tuple[np.ndarray, ...]) -> np.ndarray:
        """NumPy reference of `sums`."""
        weight = np.zeros((self.parts, self.geometry.taps), np.int64)
        for index, (_, taps) in enumerate(self.runs):
            weight[:, list(taps)] = arguments[0][:, index, : len(taps)]
        return weight.reshape(self.geometry.groups, self.multiplier, -1) @ (columns + self.dot.raise_by)


def _interleaved(vectors: list[Any], lanes: int) -> Any:
    """One vector that takes an element of each in turn."""
    if len(vectors) == 1:
        return vectors[0]
    order = [place * lanes + lane for lane in range(lanes) for place in range(len(vectors))]
    return tirx.Shuffle(vectors, [T.int32(index) for index in order])


def depthwise_conv2d(geometry: ConvGeometry, multiplier: int, epilogue: Epilogue, isa: str) -> DepthwiseConv2d:
    """The convolution with equal tiles of whole vectors."""
    dot = DOTS[isa]
    unit = max(dot.lanes * dot.width, 2 * dot.lanes)
    units = -(-geometry.pixels // unit)
    tiles = -(-units * unit // MOST_PIXELS)
    return DepthwiseConv2d(geometry, epilogue, isa, multiplier, -(-units // tiles) * unit)
