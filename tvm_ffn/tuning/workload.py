"""A task as MetaSchedule sees it: a function that only carries the task, and schedules that only carry decisions.

    ffn.task = {"form": "planes", ...}          # attribute of the function
    v0 = sch.sample_categorical([8, 16], ...)   # one a decision
    sch.annotate(layer, "ffn.digit_vectors", v0)

The kernel is made when a candidate is built: a trace stays a few hundred bytes even where the weights are code.
"""

from __future__ import annotations

import json

import tvm
from tvm import s_tir

from tvm_ffn.kernels.builder import KernelBuilder
from tvm_ffn.tuning.space import Point, Space
from tvm_ffn.tuning.task import Task

TASK_ATTRIBUTE = "ffn.task"
_PREFIX = "ffn."
_BLOCK = "layer"


def workload(task: Task) -> tvm.IRModule:
    """The module that stands for a task."""
    b = KernelBuilder("main", {TASK_ATTRIBUTE: json.dumps(task.to_dict(), sort_keys=True)})
    x, out = b.arg("x", (1,), "int8"), b.arg("out", (1,), "int8")
    b.compute(_BLOCK, (1,), "int8", lambda i: x[i], out=out)
    return tvm.IRModule({"main": b.finish().with_attr("global_symbol", "main")})


def decide(sch: s_tir.Schedule, space: Space, point: Point | None = None) -> s_tir.Schedule:
    """Sample every decision of the space, or take them from a ``point``."""
    block = sch.get_sblock(_BLOCK)
    for name, values in space.choices.items():
        place = None if point is None else values.index(point[name])
        value = sch.sample_categorical(list(values), [1.0 / len(values)] * len(values), decision=place)
        sch.annotate(block, _PREFIX + name, value)
    return sch


def task_of(mod: tvm.IRModule) -> Task:
    """The task that a module stands for."""
    return Task.from_dict(json.loads(str(mod["main"].attrs[TASK_ATTRIBUTE])))


def point_of(mod: tvm.IRModule) -> dict[str, int]:
    """The decisions of a scheduled module."""
    sch = s_tir.Schedule(mod)
    annotations = sch.get(sch.get_sblock(_BLOCK)).annotations
    return {
        str(name)[len(_PREFIX) :]: int(value) for name, value in annotations.items() if str(name).startswith(_PREFIX)
    }
