"""Convolutions and poolings: what they slide over their input, checked and made explicit.

    kernel_shape other than the weight's, a bias of another size  -> refused
    auto_pad "SAME_*"  -> pads for ceil(size / stride) outputs, the odd pixel last (UPPER) or first (LOWER)

ONNX's shape inference does not compare them, and TVM takes the kernel from the weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

POOLS = frozenset({"AveragePool", "LpPool", "MaxPool"})


def check_layer(operator: str, attrs: dict[str, Any], weight: tuple[int, ...], bias: tuple[int, ...] | None) -> None:
    """Raise ValueError where a convolution's attributes and bias contradict the shape of its weight."""
    kernel = tuple(attrs.get("kernel_shape", weight[2:]))
    if kernel != weight[2:]:
        raise ValueError(
            f"kernel_shape {kernel} contradicts the weight of shape {weight}; set it to {weight[2:]} or leave it out"
        )
    channels = weight[0] if operator == "Conv" else weight[1] * attrs.get("group", 1)
    if bias not in (None, (channels,)):
        raise ValueError(f"a bias of shape {bias} contradicts the weight of shape {weight}; give one of ({channels},)")


def pads(attrs: dict[str, Any], size: Sequence[int], kernel: Sequence[int]) -> list[int]:
    """What is added before each spatial axis, then what is added behind each, for an input of the given size."""
    mode = attrs.get("auto_pad", b"NOTSET").decode()
    none = [0] * len(size)
    if mode == "NOTSET":
        return list(attrs.get("pads", none * 2))
    if mode == "VALID":
        return none * 2
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise ValueError(f"auto_pad {mode!r} is none of NOTSET, SAME_UPPER, SAME_LOWER, VALID")
    ones = [1] * len(size)
    before, after = [], []
    for pixels, taps, stride, dilation in zip(
        size, kernel, attrs.get("strides", ones), attrs.get("dilations", ones), strict=True
    ):
        outputs = -(-pixels // stride)
        total = max((outputs - 1) * stride + (taps - 1) * dilation + 1 - pixels, 0)
        small, large = total // 2, total - total // 2
        before.append(small if mode == "SAME_UPPER" else large)
        after.append(large if mode == "SAME_UPPER" else small)
    return before + after
