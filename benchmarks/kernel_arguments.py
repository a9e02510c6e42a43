"""Arguments of integer kernels: typical ones, and the worst there are.

The worst case of a sum of int16 lanes is an input whose signs are those of a matrix row. It is made the other way
round: inputs of +-127 with random signs come first, then every row of Y takes the signs of one pixel's inputs, and
every row of X those of one pixel's middle. So all rows at once have a pixel where the sum is ``limit * non-zeros``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.shapes import Int8Conv, Int8Matmul, TernaryConv, TernaryMatmul
from tvm_ffn.kernels.epilogue import Epilogue, with_residual

LIMIT = 127
TYPICAL = "typical"


class Factored:
    """The matrices of a ternary layer, Y^T (groups, k, n) and X (groups, m, k), and its sets of arguments."""

    def __init__(
        self,
        shape: TernaryConv | TernaryMatmul,
        rng: np.random.Generator,
        size: tuple[int, ...],
        columns: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        self.shape, self.rng, self.columns = shape, rng, columns
        self.images = extremes(rng, size)
        worst = columns(self.images["worst"])
        self.y = facing(rng, worst, shape.terms, shape.zeros)
        self.x = facing(rng, np.sign(_product(self.y, worst)), shape.outputs, shape.zeros)

    def runs(
        self, packed_y: tuple[np.ndarray, ...], packed_x: tuple[np.ndarray, ...], out_shape: tuple[int, ...]
    ) -> dict[str, tuple[np.ndarray, ...]]:
        """Arguments by name: a middle that just fits its bits for every image, and for the worst one that saturates."""
        limit, rng, runs = self.shape.middle_limit, self.rng, {}
        kinds = [(name, name) for name in self.images] + [("saturated middle", "worst"), ("exact", "worst")]
        for name, image in kinds:
            columns = self.columns(self.images[image])
            first = _product(self.y, columns)
            reach = 3 * first.std() if name == TYPICAL else np.abs(first).max()
            scale = rng.uniform(0.8, 1.2, self.y.shape[:2]) * (limit / max(1.0, float(reach)))
            if name == "saturated middle":
                scale = scale * 1e6
            scale = scale.astype(np.float32)
            middle = np.clip(np.rint(first * scale[:, :, None]), -limit, limit)
            tail = _tail(self.shape.epilogue, rng, _product(self.x, middle), out_shape, name)
            runs[name] = (self.images[image], *packed_y, scale, *packed_x, *tail)
        return runs


def int8_runs(
    shape: Int8Conv | Int8Matmul,
    rng: np.random.Generator,
    size: tuple[int, ...],
    columns: Callable[[np.ndarray], np.ndarray],
    packed: Callable[[np.ndarray], np.ndarray],
    out_shape: tuple[int, ...],
    raised: int,
) -> dict[str, tuple[np.ndarray, ...]]:
    """As for ternary layers: weights of +-127 that face the worst image, and random ones for the typical image. The
    bias is that of a kernel whose activations are larger by ``raised``."""
    images = extremes(rng, size)
    largest = facing(rng, columns(images["worst"]), shape.outputs, 0.0) * np.int8(LIMIT)
    random = rng.integers(-LIMIT, LIMIT + 1, largest.shape).astype(np.int8)
    runs = {}
    for name, image in _single_stage(images):
        weight = random if name == TYPICAL else largest
        bias, *tail = _tail(shape.epilogue, rng, _product(weight, columns(images[image])), out_shape, name)
        bias = bias - raised * weight.sum(axis=2, dtype=np.int32)
        runs[name] = (images[image], packed(weight), bias, *tail)
    return runs


def planes_runs(
    epilogue: Epilogue,
    rng: np.random.Generator,
    images: dict[str, np.ndarray],
    columns: Callable[[np.ndarray], np.ndarray],
    weight: np.ndarray,
    out_shape: tuple[int, ...],
    packed: tuple[np.ndarray, ...] = (),
) -> dict[str, tuple[np.ndarray, ...]]:
    """Arguments of a kernel with the integer weights (groups, m, n), ``packed`` or held by the kernel itself."""
    return {
        name: (
            images[image],
            *packed,
            *_tail(epilogue, rng, _product(weight, columns(images[image])), out_shape, name),
        )
        for name, image in _single_stage(images)
    }


def _single_stage(images: dict[str, np.ndarray]) -> list[tuple[str, str]]:
    """Sets of arguments and their images."""
    return [(name, name) for name in images] + [("exact", "worst")]


def _tail(
    epilogue: Epilogue, rng: np.random.Generator, total: np.ndarray, out_shape: tuple[int, ...], name: str
) -> tuple[np.ndarray, ...]:
    """Bias (g, m), scale, residual and its multiplier for sums (images, g, m, pixels): outputs spread over their range.

    "exact": unscaled, the bias cancels each output's largest sum: one unit too much or too little there shows.
    """
    if name == "exact":
        flat = total.transpose(1, 2, 0, 3).reshape(*total.shape[1:3], -1)
        at = np.abs(flat).argmax(-1)[..., None]
        bias, scale = -np.take_along_axis(flat, at, -1)[..., 0], np.ones(flat.shape[:2])
    else:
        bias = np.rint(rng.uniform(-0.2, 0.2, total.shape[1:3]) * np.abs(total).max())
        reach = 2.5 * total.std() if name == TYPICAL else np.abs(total + bias[..., None]).max()
        scale = rng.uniform(0.8, 1.2, bias.shape) * ((epilogue.hi or LIMIT) / max(1.0, float(reach)))
    tail = (bias.astype(np.int32), scale.astype(np.float32))
    if not epilogue.residual:
        return tail
    residual = rng.integers(-LIMIT, LIMIT + 1, out_shape).astype(np.int8)
    return *tail, residual, with_residual(epilogue, 0.37)[1]


def _product(matrices: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(g, m, n) times (images, g, n, pixels): exact integers, by float64's BLAS."""
    return matrices.astype(np.float64) @ columns.astype(np.float64)


def facing(rng: np.random.Generator, columns: np.ndarray, rows: int, zeros: float) -> np.ndarray:
    """Ternary (groups, rows, n): each row has the signs, or the opposite, of a column of (images, groups, n, p)."""
    images, groups, inputs, pixels = columns.shape
    flat = columns.transpose(1, 2, 0, 3).reshape(groups, inputs, images * pixels)
    full = np.argsort(-np.count_nonzero(flat[0], axis=0), kind="stable")[: max(1, images * pixels // 2)]
    chosen = np.sign(flat[:, :, rng.choice(full, rows)]).transpose(0, 2, 1)
    signs = np.where(chosen == 0, rng.choice([-1, 1], chosen.shape), chosen) * rng.choice([-1, 1], (groups, rows, 1))
    return np.where(rng.random(signs.shape) < zeros, 0, signs).astype(np.int8)


def extremes(rng: np.random.Generator, size: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Activations: random ones, the two constants at the end of the range, and its two ends mixed."""
    return {
        TYPICAL: rng.integers(-LIMIT, LIMIT + 1, size).astype(np.int8),
        "largest": np.full(size, LIMIT, np.int8),
        "smallest": np.full(size, -LIMIT, np.int8),
        "worst": rng.choice(np.array([-LIMIT, LIMIT], np.int8), size),
    }


def one_scale(value: float) -> np.ndarray:
    return np.array([value], np.float32)
