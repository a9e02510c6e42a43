"""The one table of kernel shapes: tests take every record, kernel benchmarks those flagged ``benchmark``.

The small ones are chosen to break something: sizes that no vector divides, a single term or output, rows long enough
for several int16 segments, strides, borders and dilations that don't fit each other, every form of the epilogue.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tvm_ffn.kernels.epilogue import Epilogue
from tvm_ffn.kernels.geometry import ConvGeometry
from tvm_ffn.kernels.pool2d import Window

INT8 = Epilogue()
RELU = Epilogue(lo=0)
RESIDUAL = Epilogue(lo=0, residual=True)
LEAKY = Epilogue(slope=0.1)
LEAKY_ZERO = Epilogue(slope=0.1, zero=-83)
LEAKY_RESIDUAL = Epilogue(lo=-100, hi=99, slope=0.1, zero=-31, residual=True)
FLOAT = Epilogue("float32", None, None)
FLOAT_RELU6 = Epilogue("float32", 0.0, 6.0)


@dataclass(frozen=True)
class TernaryConv:
    """A factorised convolution; ``terms`` and ``outputs`` count one group, ``zeros`` is the share of zero entries.

    ``kernel``: "rows" (row tables), or "code" (weights as instructions; one group, targets with such a kernel only).
    """

    name: str
    geometry: ConvGeometry
    terms: int
    outputs: int
    epilogue: Epilogue = INT8
    middle_limit: int = 511
    zeros: float = 0.5
    kernel: str = "rows"
    benchmark: bool = False


@dataclass(frozen=True)
class PlanesConv:
    """A convolution of one group with weights in ``planes`` signed binary digits, as code."""

    name: str
    geometry: ConvGeometry
    planes: int
    outputs: int
    epilogue: Epilogue = INT8
    zeros: float = 0.5
    benchmark: bool = False


@dataclass(frozen=True)
class DigitsConv:
    """A convolution with weights as lists of ``planes`` signed binary digits; ``outputs`` counts one group.

    ``zeros`` is the share of zero digits; a negative one asks for the largest weights, all digits of one sign.
    """

    name: str
    geometry: ConvGeometry
    planes: int
    outputs: int
    epilogue: Epilogue = INT8
    zeros: float = 0.5
    benchmark: bool = False


@dataclass(frozen=True)
class DigitsMatmul:
    """A dense layer on ``rows`` activations with such weights."""

    name: str
    rows: int
    inputs: int
    planes: int
    outputs: int
    epilogue: Epilogue = INT8
    zeros: float = 0.5
    benchmark: bool = False


@dataclass(frozen=True)
class TernaryMatmul:
    """A factorised dense layer on ``rows`` activations, ``kernel`` "rows" (row tables), "masks" (bit masks) or
    "lut" (tables over outputs, targets with such a kernel only)."""

    name: str
    kernel: str
    rows: int
    inputs: int
    terms: int
    outputs: int
    epilogue: Epilogue = INT8
    middle_limit: int = 511
    zeros: float = 0.5
    benchmark: bool = False


@dataclass(frozen=True)
class Int8Conv:
    """A convolution with int8 weights; ``outputs`` counts one group."""

    name: str
    geometry: ConvGeometry
    outputs: int
    epilogue: Epilogue = INT8
    benchmark: bool = False


@dataclass(frozen=True)
class Int8Matmul:
    """A dense layer with int8 weights."""

    name: str
    rows: int
    inputs: int
    outputs: int
    epilogue: Epilogue = INT8
    benchmark: bool = False


@dataclass(frozen=True)
class Pool:
    """Pooling; ``kind`` is "max" or "average"."""

    name: str
    kind: str
    window: Window
    epilogue: Epilogue = INT8
    benchmark: bool = False


@dataclass(frozen=True)
class Pointwise:
    """An elementwise operator; ``kind`` is "add", "affine" or "rescale" (of a tensor of ``in_dtype`` whose 0 is
    ``zero``)."""

    name: str
    kind: str
    shape: tuple[int, ...]
    epilogue: Epilogue = INT8
    in_dtype: str = "int8"
    zero: int = 0
    benchmark: bool = False


@dataclass(frozen=True)
class Joined:
    """Tensors of ``shapes``, strung together along an axis."""

    name: str
    shapes: tuple[tuple[int, ...], ...]
    axis: int
    benchmark: bool = False


Linear = TernaryConv | PlanesConv | DigitsConv | DigitsMatmul | TernaryMatmul | Int8Conv | Int8Matmul
Shape = Linear | Pool | Pointwise | Joined

_SAME = (1, 1, 1, 1)
_UNEVEN = ConvGeometry(1, 8, 11, 12, (3, 2), (2, 3), (0, 1, 1, 2), (2, 1))
_SMALL = ConvGeometry(1, 5, 9, 9, (3, 3), (1, 1), _SAME)
_GROUPED = ConvGeometry(2, 8, 11, 9, (3, 3), (2, 2), _SAME, groups=2)

TERNARY_CONVS = (
    TernaryConv("conv3x3", _SMALL, 7, 6),
    TernaryConv("conv3x3-dense-entries", ConvGeometry(1, 4, 6, 7, (3, 3), (1, 1), _SAME), 9, 5, zeros=0.0),
    TernaryConv("conv3x3-one-term", _SMALL, 1, 6),
    TernaryConv("conv3x3-one-output", _SMALL, 7, 1, RELU),
    TernaryConv("conv3x3-one-pixel", ConvGeometry(1, 3, 3, 3, (3, 3)), 5, 4),
    TernaryConv("conv3x3-one-row", ConvGeometry(1, 3, 1, 70, (3, 3), (1, 1), _SAME), 5, 4),
    TernaryConv("conv3x3-stride2-groups-batch2-residual", _GROUPED, 7, 6, RESIDUAL),
    TernaryConv("conv3x3-depthwise", ConvGeometry(1, 5, 7, 6, (3, 3), (1, 1), _SAME, groups=5), 3, 2),
    TernaryConv("conv3x2-stride2x3-uneven-padding-dilation-leaky", _UNEVEN, 7, 6, LEAKY),
    TernaryConv("conv3x3-zero", _SMALL, 7, 6, LEAKY_ZERO),
    TernaryConv("conv3x3-dilation2", ConvGeometry(1, 5, 10, 9, (3, 3), (1, 1), (2, 2, 2, 2), (2, 2)), 8, 9),
    TernaryConv("conv3x3-wide-middle", _SMALL, 20, 6, middle_limit=2047),
    TernaryConv("conv3x3-float", _SMALL, 7, 6, FLOAT),
    TernaryConv("conv1x1", ConvGeometry(1, 10, 7, 7), 11, 13, RELU),
    TernaryConv("conv1x1-one-channel", ConvGeometry(1, 1, 5, 5), 2, 3),
    TernaryConv("conv1x1-stride2-float", ConvGeometry(1, 8, 11, 12, (1, 1), (2, 2)), 7, 6, FLOAT_RELU6),
    TernaryConv("conv1x1-stride3", ConvGeometry(2, 6, 11, 10, (1, 1), (3, 3)), 7, 6),
    TernaryConv("conv1x1-padding", ConvGeometry(1, 6, 5, 4, (1, 1), (1, 1), (1, 0, 2, 1)), 5, 4),
    TernaryConv("conv1x1-wide-padding-residual", ConvGeometry(1, 6, 5, 4, padding=(2, 2, 1, 1)), 5, 4, RESIDUAL),
    TernaryConv("conv5x5", ConvGeometry(1, 4, 9, 10, (5, 5), (1, 1), (2, 2, 2, 2)), 9, 8, LEAKY_RESIDUAL),
    TernaryConv("conv7x7-stride2", ConvGeometry(1, 3, 19, 21, (7, 7), (2, 2), (3, 3, 3, 3)), 12, 8),
    TernaryConv("conv7x1-stride3", ConvGeometry(1, 3, 17, 6, (7, 1), (3, 1), (3, 0, 3, 0)), 5, 4),
    TernaryConv("conv3x3-segments", ConvGeometry(1, 120, 4, 5, (3, 3), (1, 1), (2, 0, 2, 1)), 150, 6, zeros=0.3),
    TernaryConv(
        "conv3x3-segments-groups-residual",
        ConvGeometry(1, 130, 5, 4, (3, 3), (2, 1), _SAME, groups=2),
        80,
        5,
        RESIDUAL,
        zeros=0.1,
    ),
)

CODE_CONVS = (
    TernaryConv("code-conv3x3", _SMALL, 7, 6, kernel="code"),
    TernaryConv(
        "code-conv3x3-dense-entries-batch2", ConvGeometry(2, 4, 6, 7, (3, 3)), 29, 57, zeros=0.0, kernel="code"
    ),
    TernaryConv("code-conv3x3-one-term", _SMALL, 1, 6, FLOAT, kernel="code"),
    TernaryConv("code-conv3x3-one-output-residual", _SMALL, 40, 1, RESIDUAL, kernel="code"),
    TernaryConv("code-conv1x1-one-channel", ConvGeometry(1, 1, 5, 5), 2, 3, kernel="code"),
    TernaryConv("code-conv1x1-stride2", ConvGeometry(1, 70, 11, 12, (1, 1), (2, 2)), 33, 13, RELU, kernel="code"),
    TernaryConv("code-conv-uneven-leaky", _UNEVEN, 30, 6, LEAKY_RESIDUAL, 2047, kernel="code"),
    TernaryConv("code-conv3x3-zero", _SMALL, 30, 6, LEAKY_ZERO, kernel="code"),
    TernaryConv("code-conv7x7-stride2", ConvGeometry(1, 3, 39, 31, (7, 7), (2, 2), (3, 3, 3, 3)), 21, 8, kernel="code"),
    TernaryConv("code-conv3x3-segments", ConvGeometry(1, 120, 4, 5, (3, 3)), 150, 6, LEAKY, zeros=0.3, kernel="code"),
    TernaryConv("code-conv3x3-groups", _GROUPED, 7, 6, RESIDUAL, kernel="code"),
    TernaryConv("code-conv1x1-all-pixels-a-tile", ConvGeometry(1, 520, 9, 9), 190, 7, INT8, zeros=0.7, kernel="code"),
    TernaryConv("code-conv1x1-whole-tiles-residual", ConvGeometry(1, 10, 32, 56), 11, 6, RESIDUAL, kernel="code"),
)

PLANES_CONVS = (
    PlanesConv("planes-conv3x3", _SMALL, 5, 6),
    PlanesConv("planes-conv1x1-one-plane", ConvGeometry(2, 10, 7, 7), 1, 3, RELU),
    PlanesConv("planes-conv-uneven-residual", _UNEVEN, 4, 13, LEAKY_RESIDUAL),
    PlanesConv("planes-conv3x3-groups", _GROUPED, 4, 5, RESIDUAL),
    PlanesConv("planes-conv3x3-zero", _SMALL, 5, 13, LEAKY_ZERO),
    PlanesConv(
        "planes-conv3x3-batch2-residual", ConvGeometry(2, 4, 6, 7, (3, 3), (1, 1), (1, 1, 1, 1)), 4, 7, LEAKY_RESIDUAL
    ),
    PlanesConv("planes-conv1x1-whole-tiles-residual", ConvGeometry(2, 10, 8, 8), 4, 6, LEAKY_RESIDUAL),
    PlanesConv("planes-conv1x1-joined-pieces", ConvGeometry(1, 900, 5, 4), 4, 15, RELU, zeros=0.97),
    PlanesConv("planes-conv3x3-segments-float", ConvGeometry(1, 120, 4, 5, (3, 3)), 7, 9, FLOAT, zeros=0.3),
)

DIGITS = (
    DigitsConv("digits-conv3x3", _SMALL, 5, 6),
    DigitsConv("digits-conv3x3-one-output-residual", _SMALL, 5, 1, RESIDUAL, zeros=0.8),
    DigitsConv("digits-conv3x3-one-row", ConvGeometry(1, 3, 1, 70, (3, 3), (1, 1), _SAME), 3, 4),
    DigitsConv("digits-conv3x3-stride2-groups-batch2-residual", _GROUPED, 5, 6, RESIDUAL),
    DigitsConv("digits-conv3x3-depthwise", ConvGeometry(1, 5, 7, 6, (3, 3), (1, 1), _SAME, groups=5), 4, 2, zeros=0.3),
    DigitsConv("digits-conv-uneven-leaky", _UNEVEN, 6, 13, LEAKY_RESIDUAL, zeros=0.9),
    DigitsConv("digits-conv3x3-zero", _SMALL, 5, 13, LEAKY_ZERO),
    DigitsConv("digits-conv7x7-stride2", ConvGeometry(1, 3, 39, 31, (7, 7), (2, 2), (3, 3, 3, 3)), 5, 8, RELU),
    DigitsConv("digits-conv1x1-one-input-one-plane", ConvGeometry(1, 1, 5, 5), 1, 3, zeros=0.0),
    DigitsConv("digits-conv1x1-two-planes-float", ConvGeometry(2, 10, 7, 7), 2, 3, FLOAT),
    DigitsConv("digits-conv1x1-whole-tiles-residual", ConvGeometry(2, 10, 8, 8), 4, 6, RESIDUAL),
    DigitsConv("digits-conv1x1-chunks", ConvGeometry(1, 520, 9, 9), 5, 7, LEAKY, zeros=0.88),
    DigitsConv("digits-conv3x3-largest", ConvGeometry(1, 28, 4, 5, (3, 3)), 5, 7, FLOAT, zeros=-1),
    DigitsConv("digits-conv1x1-largest-four-planes", ConvGeometry(1, 172, 3, 5), 4, 5, zeros=-1),
    DigitsConv("digits-conv3x3-segments-float", ConvGeometry(1, 120, 4, 5, (3, 3)), 7, 9, FLOAT, zeros=0.3),
    DigitsMatmul("digits-dense", 19, 50, 5, 17),
    DigitsMatmul("digits-dense-zero", 19, 50, 5, 17, LEAKY_ZERO),
    DigitsMatmul("digits-dense-residual", 33, 20, 5, 30, RESIDUAL),
    DigitsMatmul("digits-dense-one-output-chunks-float", 12, 700, 6, 1, FLOAT, zeros=0.8),
)

TERNARY_MATMULS = (
    TernaryMatmul("dense-rows", "rows", 19, 50, 23, 17),
    TernaryMatmul("dense-rows-one-row", "rows", 1, 10, 7, 5, LEAKY),
    TernaryMatmul("dense-rows-zero", "rows", 19, 30, 17, 15, LEAKY_ZERO),
    TernaryMatmul("dense-rows-residual", "rows", 33, 20, 9, 30, RESIDUAL),
    TernaryMatmul("dense-rows-segments-float", "rows", 12, 700, 150, 21, FLOAT, zeros=0.2),
    TernaryMatmul("gemv", "masks", 1, 10, 7, 5),
    TernaryMatmul("gemv-one", "masks", 1, 1, 1, 1),
    TernaryMatmul("gemv-rows-residual", "masks", 3, 90, 70, 65, RESIDUAL),
    TernaryMatmul("gemv-segments", "masks", 2, 700, 150, 130, LEAKY, zeros=0.2),
    TernaryMatmul("gemv-zero", "masks", 2, 30, 17, 15, LEAKY_ZERO),
    TernaryMatmul("gemv-segments-that-do-not-divide", "masks", 1, 523, 141, 64, zeros=0.0),
    TernaryMatmul("gemv-wide-middle-float", "masks", 7, 65, 129, 10, FLOAT, middle_limit=2047),
    TernaryMatmul("lut", "lut", 1, 10, 7, 5),
    TernaryMatmul("lut-one", "lut", 1, 1, 1, 1),
    TernaryMatmul("lut-rows-residual", "lut", 3, 90, 70, 65, RESIDUAL),
    TernaryMatmul("lut-segments", "lut", 2, 700, 150, 330, LEAKY, zeros=0.2),
    TernaryMatmul("lut-zero", "lut", 2, 30, 17, 15, LEAKY_ZERO),
    TernaryMatmul("lut-segments-that-do-not-divide", "lut", 1, 523, 141, 64, zeros=0.0),
    TernaryMatmul("lut-wide-middle-float", "lut", 7, 65, 129, 10, FLOAT, middle_limit=2047),
)

INT8_LAYERS = (
    Int8Conv("int8-conv3x3", _SMALL, 6),
    Int8Conv("int8-conv7x7-stride2-first", ConvGeometry(1, 3, 23, 25, (7, 7), (2, 2), (3, 3, 3, 3)), 16, RELU),
    Int8Conv("int8-conv3x3-depthwise", ConvGeometry(1, 9, 13, 11, (3, 3), (2, 2), _SAME, groups=9), 1, RELU),
    Int8Conv(
        "int8-conv3x3-depthwise-zero", ConvGeometry(1, 9, 13, 35, (3, 3), (2, 2), _SAME, groups=9, pad_value=-127), 1
    ),
    Int8Conv("int8-conv3x3-depthwise-dilated", ConvGeometry(2, 4, 9, 8, (3, 3), (1, 1), (2, 1, 2, 3), (2, 2), 4), 1),
    Int8Conv("int8-conv3x3-groups-batch2-residual", _GROUPED, 3, RESIDUAL),
    Int8Conv("int8-conv-uneven-leaky", _UNEVEN, 5, LEAKY),
    Int8Conv("int8-conv3x3-zero", _SMALL, 5, LEAKY_ZERO),
    Int8Conv("int8-conv3x3-winograd", ConvGeometry(2, 16, 9, 7, (3, 3), (1, 1), _SAME, pad_value=-127), 32, LEAKY),
    Int8Conv("int8-conv3x3-winograd-uneven", ConvGeometry(1, 48, 10, 11, (3, 3), (1, 1), (0, 2, 1, 0)), 64, RESIDUAL),
    Int8Conv("int8-conv3x3-winograd-most", ConvGeometry(1, 3632, 5, 6, (3, 3), (1, 1), _SAME), 32, FLOAT),
    Int8Matmul("int8-dense-zero", 2, 33, 5, LEAKY_ZERO),
    Int8Conv("int8-conv3x3-chunks", ConvGeometry(1, 121, 4, 5, (3, 3), (1, 1), (2, 0, 2, 1)), 7, LEAKY_RESIDUAL),
    Int8Conv("int8-conv1x1-one-input", ConvGeometry(1, 1, 5, 5), 1, FLOAT),
    Int8Conv("int8-conv1x1-whole-tiles-residual", ConvGeometry(2, 10, 12, 16), 6, LEAKY_RESIDUAL),
    Int8Conv("int8-conv1x1-one-chunk-float", ConvGeometry(1, 512, 2, 3), 3, FLOAT),
    Int8Conv("int8-conv1x1-chunks-that-do-not-divide", ConvGeometry(1, 1041, 2, 3), 29, FLOAT),
    Int8Conv("int8-conv3x3-tiles-batch2", ConvGeometry(2, 3, 30, 21, (3, 3), (1, 1), _SAME), 2, LEAKY),
    Int8Matmul("int8-dense", 1, 10, 5),
    Int8Matmul("int8-dense-rows-residual", 5, 70, 65, RESIDUAL),
    Int8Matmul("int8-dense-one-output", 2, 33, 1, LEAKY),
    Int8Matmul("int8-dense-one-input", 1, 1, 131, FLOAT),
    Int8Matmul("int8-dense-many-inputs-float", 2, 2083, 70, FLOAT),
    Int8Matmul("int8-dense-rows-that-do-not-divide", 9, 34, 40, RELU),
)

POOLS = (
    Pool("max3x3-stride2", "max", Window((1, 6, 15, 17), (3, 3), (2, 2), (1, 1), (1, 1), (8, 9))),
    Pool("max3x3-ceil", "max", Window((1, 5, 14, 12), (3, 3), (2, 2), (0, 0), (1, 1), (7, 6))),
    Pool("max3x2-dilation", "max", Window((2, 5, 13, 11), (3, 2), (2, 1), (0, 1), (1, 2), (6, 11))),
    Pool("max-one-pixel", "max", Window((1, 1, 1, 1), (1, 1), (1, 1), (0, 0), (1, 1), (1, 1))),
    Pool("average-global", "average", Window((2, 7, 7, 7), (7, 7), (1, 1), (0, 0), (1, 1), (1, 1)), RELU),
    Pool("average2x2-float", "average", Window((1, 6, 10, 14), (2, 2), (2, 2), (0, 0), (1, 1), (5, 7)), FLOAT),
    Pool("average3x3-padding", "average", Window((1, 5, 9, 8), (3, 3), (1, 1), (1, 1), (1, 1), (9, 8))),
    Pool("average3x3-ceil", "average", Window((1, 5, 8, 11), (3, 3), (2, 2), (0, 0), (1, 1), (4, 5))),
    Pool(
        "average2x2-zero", "average", Window((1, 6, 10, 14), (2, 2), (2, 2), (0, 0), (1, 1), (5, 7)), Epilogue(zero=9)
    ),
    Pool("average2x3-dilation", "average", Window((1, 3, 9, 12), (2, 3), (1, 2), (0, 1), (2, 1), (7, 6))),
)

POINTWISE = (
    Pointwise("add", "add", (2, 5, 7, 9), Epilogue()),
    Pointwise("add-relu-2d", "add", (3, 131), RELU),
    Pointwise("add-all-pairs", "add", (1, 255, 255), Epilogue()),
    Pointwise("affine", "affine", (2, 7, 5, 11), INT8),
    Pointwise("affine-relu", "affine", (1, 6, 37), Epilogue(lo=0, hi=100)),
    Pointwise("rescale", "rescale", (1, 255), INT8),
    Pointwise("rescale-leaky", "rescale", (2, 3, 7, 5), LEAKY),
    Pointwise("rescale-leaky-zeros", "rescale", (1, 255), LEAKY_ZERO, zero=44),
    Pointwise("dequantize", "rescale", (3, 85), FLOAT),
    Pointwise("dequantize-zero", "rescale", (3, 85), FLOAT, zero=-127),
    Pointwise("quantize", "rescale", (1, 3, 9, 11), INT8, "float32"),
    Pointwise("quantize-zero", "rescale", (1, 3, 9, 11), Epilogue(zero=-60), "float32"),
    Pointwise("quantize-leaky", "rescale", (257,), LEAKY, "float32"),
    Joined("concat", ((1, 3, 5, 7), (1, 4, 5, 7), (1, 1, 5, 7)), 1),
    Joined("concat-batch", ((2, 65, 3, 3), (2, 2, 3, 3)), 1),
    Joined("concat-rows", ((2, 3, 5), (2, 3, 2)), 2),
    Joined("concat-one-axis", ((5,), (131,)), 0),
)


def _layer(
    channels: int, size: int, outputs: int, kernel: int, ratio: float, stride: int = 1, family: str = "rows"
) -> TernaryConv:
    """One of the guide's layers, with ``ratio * min(m, n)`` terms."""
    geometry = ConvGeometry(1, channels, size, size, (kernel, kernel), (stride, stride), (kernel // 2,) * 4)
    terms = int(ratio * min(outputs, geometry.inputs))
    name = f"{family}-conv{kernel}x{kernel}-{channels}to{outputs}at{size}-stride{stride}-ratio{ratio}"
    return TernaryConv(name, geometry, terms, outputs, RELU, kernel=family, benchmark=True)


LAYERS = (
    *(
        _layer(*layer, ratio, family=family)
        for family in ("rows", "code")
        for ratio in (1.0, 1.5)
        for layer in (
            (64, 56, 64, 3),
            (128, 28, 128, 3),
            (256, 14, 256, 3),
            (512, 7, 512, 3),
            (64, 56, 256, 1),
            (256, 56, 64, 1),
            (1024, 14, 256, 1),
        )
    ),
    _layer(64, 56, 128, 3, 1.5, stride=2),
    PlanesConv(
        "planes-conv3x3-64to64at56",
        ConvGeometry(1, 64, 56, 56, (3, 3), (1, 1), _SAME),
        5,
        64,
        zeros=0.88,
        benchmark=True,
    ),
    PlanesConv(
        "planes-conv3x3-256to256at14",
        ConvGeometry(1, 256, 14, 14, (3, 3), (1, 1), _SAME),
        5,
        256,
        zeros=0.88,
        benchmark=True,
    ),
    *(
        DigitsConv(
            f"digits-conv{kernel}x{kernel}-{channels}to{outputs}at{size}",
            ConvGeometry(1, channels, size, size, (kernel, kernel), (1, 1), (kernel // 2,) * 4),
            5,
            outputs,
            RELU,
            zeros=0.87,
            benchmark=True,
        )
        for channels, size, outputs, kernel in (
            (64, 56, 64, 3),
            (128, 28, 128, 3),
            (256, 14, 256, 3),
            (512, 7, 512, 3),
            (64, 56, 256, 1),
            (1024, 14, 256, 1),
        )
    ),
    TernaryMatmul("gemv-4096x4096-ratio1.0", "masks", 1, 4096, 4096, 4096, benchmark=True),
    TernaryMatmul("gemv-9216x4096-ratio1.0", "masks", 1, 9216, 4096, 4096, RELU, benchmark=True),
    TernaryMatmul("lut-9216x4096-ratio1.0", "lut", 1, 9216, 4096, 4096, RELU, benchmark=True),
    TernaryMatmul("dense-197x768x768-ratio1.0", "rows", 197, 768, 768, 768, RESIDUAL, benchmark=True),
    Int8Conv(
        "int8-conv7x7-3to64at224", ConvGeometry(1, 3, 224, 224, (7, 7), (2, 2), (3, 3, 3, 3)), 64, RELU, benchmark=True
    ),
    Int8Conv(
        "int8-depthwise3x3-144at56",
        ConvGeometry(1, 144, 56, 56, (3, 3), (1, 1), _SAME, groups=144),
        1,
        RELU,
        benchmark=True,
    ),
    Int8Matmul("int8-dense-512to1000", 1, 512, 1000, FLOAT, benchmark=True),
    Pool("max3x3-64at112", "max", Window((1, 64, 112, 112), (3, 3), (2, 2), (1, 1), (1, 1), (56, 56)), benchmark=True),
    Pool("average-512at7", "average", Window((1, 512, 7, 7), (7, 7), (1, 1), (0, 0), (1, 1), (1, 1)), benchmark=True),
    Pointwise("add-64at56", "add", (1, 64, 56, 56), RELU, benchmark=True),
    Pointwise("quantize-3at224", "rescale", (1, 3, 224, 224), INT8, "float32", benchmark=True),
)

SHAPES: tuple[Shape, ...] = (
    *TERNARY_CONVS,
    *CODE_CONVS,
    *PLANES_CONVS,
    *DIGITS,
    *TERNARY_MATMULS,
    *INT8_LAYERS,
    *POOLS,
    *POINTWISE,
    *LAYERS,
)


def tested() -> Iterator[Shape]:
    """The small records: every test runs them."""
    return (shape for shape in SHAPES if not shape.benchmark)


def benchmarked() -> Iterator[Shape]:
    """The layers that are timed."""
    return (shape for shape in SHAPES if shape.benchmark)
