"""The padding of a transposed convolution whose output shape is given, by ONNX's equations.

    total = stride (input - 1) + output_padding + (kernel - 1) dilation + 1 - output
    begin = total // 2 (auto_pad SAME_UPPER), total - total // 2 (else);  end = total - begin

A negative total enlarges the output at its end. TVM's converter knows no output shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def with_padding(attrs: dict[str, Any], inputs: Sequence[int], kernel: Sequence[int]) -> dict[str, Any]:
    """A ConvTranspose's attributes with explicit pads in place of ``output_shape``, for spatial sizes ``inputs``."""
    if "output_shape" not in attrs:
        return attrs
    ones = [1] * len(inputs)
    begins, ends, enlarged = [], [], []
    for size, taps, stride, dilation, more, output in zip(
        inputs,
        kernel,
        attrs.get("strides", ones),
        attrs.get("dilations", ones),
        attrs.get("output_padding", [0] * len(inputs)),
        attrs["output_shape"],
        strict=True,
    ):
        total = stride * (size - 1) + more + (taps - 1) * dilation + 1 - output
        cut = max(total, 0)
        begins.append(cut // 2 if attrs.get("auto_pad") == b"SAME_UPPER" else cut - cut // 2)
        ends.append(cut - begins[-1])
        enlarged.append(more + max(-total, 0))
    return {**attrs, "auto_pad": b"NOTSET", "pads": begins + ends, "output_padding": enlarged}
