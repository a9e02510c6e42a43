"""What convolutions with weights as code or as lists of digits share: planes in, one tile of pixels after the other,
epilogue, rows out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
from tvm.tirx import Buffer, PrimFunc

from tvm_ffn.kernels import epilogue as ep
from tvm_ffn.kernels.builder import KernelBuilder
from tvm_ffn.kernels.epilogue import Epilogue
from tvm_ffn.kernels.epilogue_arguments import EpilogueArguments
from tvm_ffn.kernels.geometry import ConvGeometry
from tvm_ffn.kernels.plane_layout import Layouts, PlaneLayout
from tvm_ffn.kernels.planes import cropped, flat_copy, im2col_numpy, image_planes
from tvm_ffn.kernels.work import Cost, Executed

Sums = Callable[[Any, Any], Any]  # int32 sum of output m at pixel p of the tile


@dataclass(frozen=True)
class Tile:
    """Where one instance of a tile finds its inputs: int16 planes or what `TiledConv2d.source` made of them, image,
    part of the outputs, and the tile's number within the image."""

    source: Buffer
    image: Any
    part: Any
    index: Any


@dataclass(frozen=True, eq=False)
class TiledConv2d(ABC):
    """A convolution over tiles of `pixel_block` pixels, a multiple of the vectors' lanes, and ``parts`` of its output
    channels: groups, or finer (`split.output_parts`)."""

    op: ClassVar[str]
    geometry: ConvGeometry
    epilogue: Epilogue
    layouts: Layouts = field(default=Layouts(), kw_only=True)

    @property
    @abstractmethod
    def pixel_block(self) -> int:
        """Pixels of a tile."""

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Output channels of one group."""

    @property
    @abstractmethod
    def parts(self) -> int:
        """Equal runs of output channels that are tiles of their own."""

    @property
    def rows(self) -> int:
        """Output channels of a part."""
        return self.geometry.groups * self.outputs // self.parts

    @property
    def tiles(self) -> int:
        """Tiles of one image and part."""
        return self.geometry.blocks(self.pixel_block)

    @abstractmethod
    def arguments(self, b: KernelBuilder) -> list[Buffer]:
        """Declare the arguments between the activation and the bias."""

    @abstractmethod
    def sums(self, b: KernelBuilder, arguments: list[Buffer], tile: Tile) -> Sums:
        """Add the blocks of one tile; the sums are those of its part's outputs."""

    @abstractmethod
    def sums_numpy(self, columns: np.ndarray, arguments: tuple[np.ndarray, ...]) -> np.ndarray:
        """NumPy reference of the sums, int64 (N, groups, outputs, pixels), from int64 columns (N, groups, inputs,
        pixels)."""

    @abstractmethod
    def cost_of(self, pixels: int) -> Cost:
        """Counts of ``pixels`` pixels."""

    @property
    def cost(self) -> Cost:
        """Counts on the stored pixels."""
        return self.cost_of(self.geometry.out_pixels)

    @property
    def executed(self) -> Executed:
        """Counts on whole tiles."""
        g = self.geometry
        moves = g.moves(self.pixels, g.groups * self.outputs, self.epilogue.residual)
        return Executed.of(self.cost_of(g.batch * self.pixels), moves=moves, **self.further_work(g.batch * self.pixels))

    def further_work(self, pixels: int) -> dict[str, int]:
        """Other counts of `Executed` for ``pixels`` pixels."""
        return {}

    @property
    def argument_count(self) -> int:
        """Arguments declared by `arguments`."""
        return 0

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of the activation's rows."""
        g = self.geometry
        return g.batch, g.channels, g.height, g.width

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of the output's and the residual's rows."""
        g = self.geometry
        return g.batch, g.groups * self.outputs, g.out_height, g.out_width

    @property
    def reads_planes(self) -> bool:
        """Whether the activation may lie in planes as they are."""
        return False

    @property
    def input_planes(self) -> PlaneLayout:
        """The planes that the sums read, at stride 1."""
        g = self.geometry
        return PlaneLayout(self.in_shape, g.pitch, g.first_pixel, g.span(self.pixels), g.pad_value)

    def with_layouts(self, layouts: Layouts) -> Self:
        """The same convolution between tensors that lie in planes."""
        epilogue = self.epilogue if layouts.out is None else replace(self.epilogue, out_dtype="int16")
        return replace(self, layouts=layouts, epilogue=epilogue)

    @property
    def span(self) -> int:
        """Elements of one channel's planes."""
        return self.geometry.span(self.pixels) if self.layouts.x is None else self.layouts.x.size

    @property
    def pixels(self) -> int:
        """Length of the flat pixel space, a multiple of the tile."""
        return self.tiles * self.pixel_block

    def prim_func(self, name: str) -> PrimFunc:
        """Arguments: x int8 (N, C, H, W), those of `arguments`, bias int32 (groups, m), scale float32 (groups, m),
        [residual int8 like the output, its multiplier int16 (1,)], out; what the layouts say is in planes instead."""
        g, dtype, layouts = self.geometry, self.epilogue.out_dtype, self.layouts
        b = KernelBuilder(name, {"ffn.op": self.op, "ffn.pixel_block": self.pixel_block})
        x = b.arg("x", *_tensor(self.in_shape, layouts.x))
        arguments = self.arguments(b)
        ends = EpilogueArguments.declare(
            b,
            self.epilogue,
            (g.groups, self.outputs),
            _tensor(self.out_shape, layouts.out)[0],
            _tensor(self.out_shape, layouts.residual),
        )
        source = self.source(b, arguments, x if layouts.x else self.planes_in(b, x))
        out = ends.out
        if not self.fills_rows and layouts.residual is None:
            ends = ends.with_copied_residual(lambda residual: self.residual_in(b, residual))
        if not self.fills_rows and layouts.out is None:
            out = b.tensor("flat", (g.batch, g.groups * self.outputs, self.pixels), dtype)
        with b.tile("tile", (g.batch, self.parts, self.tiles)) as (n, part, t):
            total = self.sums(b, arguments, Tile(source, n, part, t))

            def place(m: Any, p: Any, layout: PlaneLayout | None) -> tuple[Any, ...]:
                channel, pixel = part * self.rows + m, t * self.pixel_block + p
                if layout is not None:
                    return n, channel, layout.first + pixel
                row = (pixel // g.out_width, pixel % g.out_width) if self.fills_rows else (pixel,)
                return n, channel, *row

            def stored(m: Any, p: Any) -> Any:
                channel = part * self.rows + m
                of_outputs = channel // self.outputs, channel % self.outputs
                return ends.stored(total(m, p), of_outputs, place(m, p, layouts.residual))

            at = partial(place, layout=layouts.out)
            b.compute("epilogue", (self.rows, self.pixel_block), dtype, stored, out=out, at=at)
        if layouts.out is not None:
            layouts.out.pad(b, out)
        elif not self.fills_rows:
            self.rows_out(b, out, ends.out)
        return b.finish()

    def planes_in(self, b: KernelBuilder, x: Buffer) -> Buffer:
        """Block "planes": int16 (images, channels, span) of an activation in rows."""
        return image_planes(b, x, self.geometry, self.pixels, "int16")

    def source(self, b: KernelBuilder, arguments: list[Buffer], planes: Buffer) -> Buffer:
        """What `sums` reads: the planes, or what blocks before the tiles make of them."""
        return planes

    def residual_in(self, b: KernelBuilder, residual: Buffer) -> Buffer:
        """Block "residual_flat": int8 (images, groups * m, pixels)."""
        return flat_copy(b, residual, self.geometry, self.pixels)

    @property
    def fills_rows(self) -> bool:
        """Whether the tiles' pixels are those of the output, no more, and no `rows_out` is needed."""
        g = self.geometry
        return g.pitch == g.out_width and self.pixels == g.out_height * g.out_width

    def rows_out(self, b: KernelBuilder, flat: Buffer, out: Buffer) -> None:
        """Block "store": the output from its flat form (images, groups * m, pixels)."""
        cropped(b, out, self.geometry, lambda n, m, p: flat[n, m, p])

    def reference(self, x: np.ndarray, *arguments: np.ndarray) -> np.ndarray:
        """NumPy oracle on the function's arguments without the output; returns the output."""
        layouts, parameters = self.layouts, list(arguments)
        if layouts.residual is not None:
            parameters[-2] = layouts.residual.rows_numpy(parameters[-2])
        rows = self.outputs_numpy(x if layouts.x is None else layouts.x.rows_numpy(x), *parameters)
        rows = rows.reshape(self.out_shape)
        return rows if layouts.out is None else layouts.out.planes_numpy(rows)

    def outputs_numpy(self, x: np.ndarray, *arguments: np.ndarray) -> np.ndarray:
        """The stored values (N, groups, m, pixels) for an NCHW tensor; a residual's shape may be any."""
        own, rest = arguments[: self.argument_count], arguments[self.argument_count :]
        total = self.sums_numpy(im2col_numpy(x, self.geometry).astype(np.int64), own)
        extra = (rest[2].reshape(total.shape), rest[3]) if self.epilogue.residual else None
        bias, scale = rest[0][None, :, :, None], rest[1][None, :, :, None]
        return ep.apply_numpy(self.epilogue, total, bias, scale, extra)


def _tensor(shape: tuple[int, ...], layout: PlaneLayout | None) -> tuple[tuple[int, ...], str]:
    """Shape and dtype of an argument whose rows have the ``shape``."""
    return (shape, "int8") if layout is None else layout.tensor
