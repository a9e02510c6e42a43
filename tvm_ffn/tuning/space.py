"""What is decided for a task, and among which values; the default decisions are one point of the space.

A decision is a field of `KernelPlan`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tvm_ffn.kernel_plan import KernelPlan
from tvm_ffn.kernels.digit_sum import tile_for
from tvm_ffn.kernels.winograd_conv2d import is_winograd
from tvm_ffn.tuning.task import FACTORS, INT8, PLANES, Task

Point = Mapping[str, int]  # a value for each decision

_MOST_VECTORS = 16
_MOST_CHUNK = 48
_ROWS_OF_CODE = {"avx512": (0, 10, 14, 20), "avx2": (0, 6, 9)}  # of a block; 0: as many as the registers hold
LEAST_LANES = 16  # narrower vectors never pay


@dataclass(frozen=True)
class Space:
    """Values of each decision in ascending order, and the ``default`` point."""

    choices: Mapping[str, Sequence[int]]
    default: Point

    @property
    def size(self) -> int:
        """Number of points."""
        total = 1
        for values in self.choices.values():
            total *= len(values)
        return total

    def has(self, point: Point) -> bool:
        """Whether the point is one of this space."""
        return point.keys() == self.choices.keys() and all(v in self.choices[name] for name, v in point.items())


def space_of(task: Task, plan: KernelPlan) -> Space:
    """The space of a task around the decisions of ``plan``."""
    choices: dict[str, Sequence[int]] = {}
    conv = task.geometry is not None
    if task.code and plan.isa:
        choices["code"] = (0, 1)
        choices["code_vectors"] = (4, 6, 8, 12, 16, 24, 48)
        choices["code_rows"] = _ROWS_OF_CODE[plan.isa]
        choices["pair_window"] = (32, 96, 256)
        choices["code_length"] = (25, 50, 100, 200)
        if task.geometry is not None and task.geometry.pixels <= max(choices["code_vectors"]) * plan.lanes:
            choices["sums_kb"] = (0, 96, 192, 384, 768)
        if task.form == PLANES:
            choices["load_planes"] = (1, 2, 3, 6)
    if task.form == PLANES and not task.shape.few_rows:
        pixels = task.geometry.pixels if task.geometry is not None else task.rows
        choices["digit_vectors"] = _tiles(pixels, plan)
        choices["table_kb"] = (12, 24, 48, 96, 192)
        if plan.lanes > LEAST_LANES:
            choices["lanes"] = (plan.lanes // 2, plan.lanes)
    if task.form == FACTORS and not task.shape.few_rows:
        choices["pixel_block"] = tuple(plan.lanes * vectors for vectors in (1, 2, 3, 4, 6, 8))
        choices["table_group"] = (0, 2, 3, 4)
        choices["chunk"] = (4, 8, 16, 32, _MOST_CHUNK)
    if task.form == FACTORS and task.shape.few_rows and plan.lut:
        choices["lut_vectors"] = (1, 2, 4, 6, 8, 12)
        choices["lut_ahead"] = (0, 2, 4, 8, 16)
    if task.geometry is not None and task.form == INT8 and not task.geometry.is_depthwise:
        choices["dot_rows"] = (0, 1, 2, 3, 4)
        choices["dot_groups"] = (2, 4, 8, 12, 16)
        choices["dot_chunk"] = (128, 256, 512, 2048)
        if is_winograd(task.geometry, task.outputs, plan.dot):
            choices["winograd"] = (0, 1)
    elif not conv and (task.form == INT8 or (task.form == PLANES and task.shape.few_rows)):
        choices["dense_vectors"] = (1, 2, 4, 6, 8, 10)
    default = {name: int(getattr(replace(plan, code=task.code), name)) for name in choices}
    return Space({name: sorted({*values, default[name]}) for name, values in choices.items()}, default)


def _tiles(pixels: int, plan: KernelPlan) -> Sequence[int]:
    """The numbers of vectors that are a tile: others give the tile of a smaller number."""
    return [v for v in range(1, _MOST_VECTORS + 1) if tile_for(pixels, plan.lanes, v, 1).vectors == v]
