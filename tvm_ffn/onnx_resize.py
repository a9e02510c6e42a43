"""Resize and Upsample of every opset as the one form that TVM's converter takes: spatial output sizes.

    Upsample, Resize-10           -> coordinates "asymmetric", pixels "floor" (enlarged) or "ceil" (shrunk)
    scales or sizes of ``axes``   -> sizes of the last axes, batch and channels as they are
    sizes, kept aspect ratio      -> round(scale * size), the scale the least (not_larger) or greatest (not_smaller)

Refused, as TVM would compute something else: scales that do not lead to whole sizes (its scale is that of the sizes),
antialiasing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax.frontend.onnx import onnx_frontend

Attributes = dict[str, Any]
ASPECT_POLICIES: dict[bytes, Callable[[np.ndarray], np.floating]] = {b"not_larger": np.min, b"not_smaller": np.max}


def upsample(bb: relax.BlockBuilder, inputs: list, attrs: Attributes, opset: int) -> relax.Expr:
    """Upsample-7 (scales an attribute) and -9 (an operand)."""
    return _without_modes(bb, inputs[0], attrs.get("scales") if opset < 9 else _values(inputs[1]), attrs)


def resize(bb: relax.BlockBuilder, inputs: list, attrs: Attributes, opset: int) -> relax.Expr:
    """Resize of any opset."""
    if opset < 11:
        return _without_modes(bb, inputs[0], _values(inputs[1]), attrs)
    data, scales, sizes = inputs[0], _values(inputs[2]), _values(inputs[3])
    dims = np.array([int(dim) for dim in data.ty.shape])
    axes = [axis % len(dims) for axis in attrs.get("axes", range(len(dims)))]
    policy = attrs.get("keep_aspect_ratio_policy", b"stretch")
    factors = np.ones(len(dims), np.float32)
    if sizes is None:
        factors[axes] = scales
        target = _scaled(dims, factors, attrs)
    elif policy == b"stretch":
        target = dims.copy()
        target[axes] = sizes
    else:
        if policy not in ASPECT_POLICIES:
            raise ValueError(
                f"keep_aspect_ratio_policy {policy.decode()!r} is none of stretch, not_larger, not_smaller"
            )
        factors[axes] = ASPECT_POLICIES[policy](sizes / dims[axes])
        target = _scaled(dims, factors, attrs, rounding=0.5)
    if attrs.get("antialias") and (attrs.get("mode") == b"cubic" or (target < dims).any()):
        raise ValueError("antialias is not supported; export the model without it")
    if attrs.get("coordinate_transformation_mode") == b"half_pixel_symmetric":
        attrs["coordinate_transformation_mode"] = b"half_pixel"  # the same where sizes are whole
    return _resize(bb, data, _whole_roi(inputs[1], axes, len(dims)), target, attrs)


def _without_modes(bb: relax.BlockBuilder, data: relax.Expr, scales: Any, attrs: Attributes) -> relax.Expr:
    dims = np.array([int(dim) for dim in data.ty.shape])
    pixels = {"coordinate_transformation_mode": b"asymmetric", "nearest_mode": b"floor"}
    target = _scaled(dims, np.asarray(scales, np.float32), pixels)
    if (target < dims).any():
        pixels["nearest_mode"] = b"ceil"
        if (target > dims).any():
            raise ValueError("an axis is enlarged and another shrunk, which is not supported; use opset 11 or later")
    return _resize(bb, data, None, target, {**attrs, **pixels})


def _resize(
    bb: relax.BlockBuilder, data: relax.Expr, roi: relax.Expr | None, sizes: np.ndarray, attrs: Attributes
) -> relax.Expr:
    if any(int(data.ty.shape[axis]) != sizes[axis] for axis in (0, 1)):
        raise ValueError("only the axes after batch and channels can be resized")
    operands = onnx_frontend.onnx_input([data, roi, None, relax.const(sizes.astype(np.int64))])
    return onnx_frontend.Resize._impl_v18(bb, operands, attrs, [{}, {}])


def _scaled(dims: np.ndarray, scales: np.ndarray, attrs: Attributes, rounding: float = 0.0) -> np.ndarray:
    """Sizes after scaling. ONNX maps coordinates by ``scales``, TVM by the ratio of the sizes, unless by corners."""
    sizes = np.floor(dims.astype(np.float32) * scales + rounding).astype(np.int64)
    by_corners = attrs.get("coordinate_transformation_mode") in (b"align_corners", b"tf_crop_and_resize")
    if not by_corners and not np.allclose(sizes / dims, scales, rtol=1e-6, atol=0):
        raise ValueError(
            f"scales ({', '.join(f'{scale:g}' for scale in scales)}) give no whole sizes for shape"
            f" {tuple(dims.tolist())}; export the model with sizes"
        )
    return sizes


def _whole_roi(roi: relax.Expr | None, axes: list[int], rank: int) -> relax.Expr | None:
    """The region of interest with starts and ends for every axis."""
    values = _values(roi) if len(axes) < rank else None
    if values is None:
        return roi
    whole = np.repeat(np.array([[0], [1]], np.float32), rank, axis=1)
    whole[:, axes] = values.reshape(2, -1)
    return relax.const(whole.reshape(-1))


def _values(operand: relax.Expr | None) -> np.ndarray | None:
    """The numbers of an operand that is known now; None for one that is left out or empty."""
    if operand is None:
        return None
    if not isinstance(operand, tvm.ir.GenericConst):
        raise ValueError("scales, sizes and region of interest must be constants")
    values = operand.value.numpy()
    return values if values.size else None
