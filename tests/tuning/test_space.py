"""Tasks as plain data, and what is decided for them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from tasks import TASKS, planes
from tvm import s_tir

from tvm_ffn.kernel_plan import KernelPlan, plan_for
from tvm_ffn.kernels.epilogue import Epilogue
from tvm_ffn.tuning.problem import Problem
from tvm_ffn.tuning.space import space_of
from tvm_ffn.tuning.task import Task, rounded_density
from tvm_ffn.tuning.workload import decide, point_of, task_of, workload

PLAN = plan_for("x86_64", 32)
IDS = [task.name for task in TASKS]


@pytest.mark.parametrize("task", TASKS, ids=IDS)
def test_a_task_survives_json_and_a_module(task: Task) -> None:
    assert Task.from_dict(json.loads(json.dumps(task.to_dict()))) == task
    assert task_of(workload(task)) == task


def test_names_and_keys_tell_tasks_apart() -> None:
    assert len(set(IDS)) == len({task.key for task in TASKS}) == len(TASKS)


def test_density_and_bounds_are_not_part_of_the_key() -> None:
    task = planes()
    assert planes(0.9).key == task.key
    assert replace(task, epilogue=Epilogue(lo=0.0)).key == task.key
    assert replace(task, epilogue=Epilogue(residual=True)).key != task.key
    assert planes(outputs=9).key != task.key


@pytest.mark.parametrize(("density", "rounded"), [(0.0, 0.1), (0.04, 0.1), (0.62, 0.6), (0.66, 0.7), (1.31, 1.3)])
def test_densities_are_rounded(density: float, rounded: float) -> None:
    assert rounded_density(density) == rounded


@pytest.mark.parametrize("task", TASKS, ids=IDS)
def test_the_default_is_a_point_of_the_space(task: Task) -> None:
    space = space_of(task, PLAN)
    assert space.has(space.default)
    assert space.size == np.prod([len(values) for values in space.choices.values()] or [1])
    assert {**space.default, "code": int(task.code)}.items() >= space.default.items()
    for name, value in space.default.items():
        assert name == "code" or getattr(PLAN, name) == value


def test_code_is_no_choice_where_there_are_no_instructions_for_it() -> None:
    task = next(task for task in TASKS if task.code)
    assert "code" in space_of(task, PLAN).choices
    assert not {"code", "code_rows"} & space_of(task, plan_for("aarch64", 16)).choices.keys()


def test_tables_over_outputs_have_decisions_where_there_are_some() -> None:
    task = Task("factors", None, 1, 1, 64, 24, 24, 0.5, 10, Epilogue())
    assert space_of(task, replace(PLAN, lut="")).size == 1
    assert space_of(task, PLAN).choices.keys() == {"lut_vectors", "lut_ahead"}


@pytest.mark.parametrize("task", TASKS, ids=IDS)
def test_decisions_survive_a_trace(task: Task) -> None:
    space = space_of(task, PLAN)
    point = {name: values[-1] for name, values in space.choices.items()}
    sch = decide(s_tir.Schedule(workload(task)), space, point)
    assert point_of(sch.mod) == point
    text = json.dumps(json.loads(str(sch.trace.as_json()).replace("'", '"'))) if not space.choices else None
    assert text is None or len(text) < 500
    again = s_tir.Schedule(workload(task))
    sch.trace.apply_to_schedule(again, remove_postproc=False)
    assert point_of(again.mod) == point


@pytest.mark.parametrize("plan", [PLAN, plan_for("x86_64", 64)], ids=["avx2", "avx512"])
@pytest.mark.parametrize("task", TASKS, ids=IDS)
def test_all_points_have_the_same_numbers(task: Task, plan: KernelPlan) -> None:
    """The oracle on each point's own packing agrees with the plainest one's."""
    problem, space = Problem(task), space_of(task, plan)
    expected = problem.expected
    assert expected.std() > 5  # outputs that are all alike would hide errors
    for place in (0, -1):
        point = {name: values[place] for name, values in space.choices.items()}
        kernel = problem.kernel(replace(plan, **point))  # type: ignore[arg-type]
        np.testing.assert_array_equal(kernel.operator.reference(*problem.arguments(kernel)), expected)
