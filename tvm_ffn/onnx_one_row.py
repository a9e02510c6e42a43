"""One-dimensional operators of ONNX as two-dimensional ones on an image of one row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import relax

Attributes = dict[str, Any]


def in_one_row(
    bb: relax.BlockBuilder,
    data: relax.Expr,
    attrs: Attributes,
    convert: Callable[[relax.Expr, Attributes], relax.Expr],
) -> relax.Expr:
    """What ``convert`` makes of ``data`` (N, C, W) as (N, C, 1, W), as (N, C, W) again."""
    image = bb.emit(relax.op.expand_dims(data, 2))
    return relax.op.squeeze(bb.emit(convert(image, _of_height_one(attrs))), [2])


def _of_height_one(attrs: Attributes) -> Attributes:
    before, after = attrs.get("pads", (0, 0))
    sizes: Attributes = {name: (1, *attrs[name]) for name in ("kernel_shape", "strides", "dilations") if name in attrs}
    return {**attrs, **sizes, "pads": (0, before, 0, after)}
