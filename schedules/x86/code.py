"""Schedule of convolutions whose weights are code: both stages on one tile, or in turn; tiles in parallel."""

from __future__ import annotations

from typing import ClassVar

from tvm_ffn.schedules.generic.tiled import Tiled


class Code(Tiled):
    """Schedules `ternary_code_conv2d`."""

    OPS: ClassVar[tuple[str, ...]] = ("ternary_code_conv2d",)
