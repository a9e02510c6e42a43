"""Where a convolution finds its inputs once the image is laid out as flat pixel planes.

The image is copied once into int8 or int16 planes with its padding in place, one plane for each phase of the stride,
or lies in them already (`plane_layout`).
All rows of a plane follow each other at a fixed pitch, so that every tap of the kernel reads *one contiguous run* of
the plane: output pixel ``p = row * pitch + column`` takes tap (dy, dx) from ``tap_offset(dy, dx) + p``. The columns
between the image's width and the pitch compute values that nobody reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class ConvGeometry:
    """Shape of a 2-D convolution over an NCHW tensor; sizes in elements, ``padding`` as (top, left, bottom, right)
    with int8 ``pad_value`` in it."""

    batch: int
    channels: int
    height: int
    width: int
    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    pad_value: int = 0

    @property
    def taps(self) -> int:
        return self.kernel[0] * self.kernel[1]

    @property
    def inputs(self) -> int:
        """Inputs of one output within its group: channels / groups * kernel height * kernel width."""
        return self.channels // self.groups * self.taps

    @cached_property
    def _reach(self) -> tuple[int, int]:
        return (self.kernel[0] - 1) * self.dilation[0], (self.kernel[1] - 1) * self.dilation[1]

    @cached_property
    def out_height(self) -> int:
        return (self.height + self.padding[0] + self.padding[2] - self._reach[0] - 1) // self.strides[0] + 1

    @cached_property
    def out_width(self) -> int:
        return (self.width + self.padding[1] + self.padding[3] - self._reach[1] - 1) // self.strides[1] + 1

    @property
    def phases(self) -> tuple[int, int]:
        """Phases of the stride that some tap reads, vertically and horizontally."""
        return min(self.strides[0], self._reach[0] + 1), min(self.strides[1], self._reach[1] + 1)

    @property
    def _shared(self) -> int:
        """Columns of padding that two rows share: at stride 1 the right one of a row is the left one of the next. No
        more than the kernel reaches, so that every output pixel has a place of its own."""
        return min(self.padding[1], self.padding[3], self._reach[1]) if self.strides[1] == 1 else 0

    def plane_rows(self, lanes: int) -> int:
        """Rows of a plane so that ``lanes`` pixels may be read from any tap's offset: those of the image with its
        padding, one of zeros below for the last row's shared padding, and what a last, longer run of pixels reaches."""
        image = self.out_height + self._reach[0] // self.strides[0] + (1 if self._shared else 0)
        furthest = self._reach[0] // self.strides[0] * self.pitch + self._reach[1] // self.strides[1] + lanes
        return max(image, -(-furthest // self.pitch))

    @cached_property
    def pitch(self) -> int:
        """Distance of two rows of a plane."""
        return self.out_width + self._reach[1] // self.strides[1] - self._shared

    @property
    def first_pixel(self) -> int:
        """Place of the image's first pixel in a plane, at stride 1."""
        return self.padding[0] * self.pitch + self.padding[1]

    @property
    def is_image(self) -> bool:
        """Whether a channel's planes are its image as it is: a 1x1 kernel, no stride and no padding."""
        return self._reach == (0, 0) and self.strides == (1, 1) and not any(self.padding)

    @property
    def has_own_planes(self) -> bool:
        """Whether the planes are one run of rows a channel, and more than the image."""
        return self.strides == (1, 1) and not self.is_image

    @property
    def is_depthwise(self) -> bool:
        """Whether every output reads one channel."""
        return self.groups == self.channels

    @property
    def pixels(self) -> int:
        """Length of the flat output space, the unread columns included (the last row ends with the image)."""
        return (self.out_height - 1) * self.pitch + self.out_width

    @property
    def out_pixels(self) -> int:
        """Output pixels of all images."""
        return self.batch * self.out_height * self.out_width

    def blocks(self, size: int) -> int:
        """Runs of ``size`` pixels that cover the flat output space of one image."""
        return -(-self.pixels // size)

    def plane_size(self, lanes: int) -> int:
        """Elements of one phase's plane."""
        return self.plane_rows(lanes) * self.pitch

    def span(self, lanes: int) -> int:
        """Elements of one channel: its planes, one for each phase."""
        return self.phases[0] * self.phases[1] * self.plane_size(lanes)

    def moves(self, lanes: int, channels: int, residual: bool) -> int:
        """Elements copied between layouts: planes in, as for `plane_rows`, and ``channels`` of output out, with a
        residual once more."""
        return self.batch * self.channels * self.span(lanes) + (1 + residual) * self.out_pixels * channels

    def tap_offset(self, dy, dx, lanes: int):  # type: ignore[no-untyped-def]  # integers or TensorIR expressions
        """Offset of tap (dy, dx) in a channel's planes."""
        down, right = dy * self.dilation[0], dx * self.dilation[1]
        phase = down % self.strides[0] * self.phases[1] + right % self.strides[1]
        return phase * self.plane_size(lanes) + down // self.strides[0] * self.pitch + right // self.strides[1]
