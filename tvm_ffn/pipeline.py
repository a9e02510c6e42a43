"""The whole way from an ONNX model to an executable, as a list of named steps."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tvm
from tvm import relax

from tvm_ffn import sensitivity
from tvm_ffn.budget import first_within, solve_within
from tvm_ffn.cache import Cache
from tvm_ffn.calibration import Calibration, open_calibration
from tvm_ffn.comparison import is_classes
from tvm_ffn.config import FFNConfig, LayerConfig
from tvm_ffn.fingerprint import solution_key
from tvm_ffn.forms import with_forms, without_factors
from tvm_ffn.graph import Network, Unit, shape_of
from tvm_ffn.importer import ImportedModel, load_model
from tvm_ffn.interpreter import Interpreter
from tvm_ffn.kernel_plan import KernelPlans, default_plan
from tvm_ffn.matcher import match_units
from tvm_ffn.network_solver import samples_that_fit, solve_network, to_be_planned
from tvm_ffn.observation import Observation, observe
from tvm_ffn.passes.code_choice import choose_code
from tvm_ffn.passes.integer_graph import IntegerGraph, ToIntegerGraph
from tvm_ffn.passes.strip_quantization import StripQuantization
from tvm_ffn.passes.verify_multiply_free import VerifyMultiplyFree
from tvm_ffn.plan import Plan
from tvm_ffn.planner import make_plan
from tvm_ffn.progress import progress
from tvm_ffn.schedules.rules import apply_schedules
from tvm_ffn.sensitivity import Sensitivity
from tvm_ffn.solution import QuantizedNetwork
from tvm_ffn.solution_record import from_arrays, to_arrays
from tvm_ffn.tuning.apply import ApplyTuned
from tvm_ffn.tuning.layers import tasks_of, tuned_plans
from tvm_ffn.tuning.table import TunedTable
from tvm_ffn.tuning.task import Task

log = logging.getLogger("tvm_ffn")


@dataclass
class Compilation:
    """What goes in, and what each step adds."""

    model: Any
    target: tvm.target.Target
    config: FFNConfig
    calibration: Any
    imported: ImportedModel = field(init=False)
    settings: Mapping[str, LayerConfig | None] = field(init=False)
    data: Calibration = field(init=False)
    network: Network = field(init=False)
    cache: Cache = field(default_factory=Cache.of_user)
    key: str = ""  # of the solution in the cache
    recalled: bool = False  # the solution came from there
    observation: Observation = field(init=False)
    measured: Mapping[Unit, Sensitivity] = field(default_factory=dict)
    quantized: QuantizedNetwork = field(init=False)
    packed: Mapping[str, int] = field(default_factory=dict)  # bytes of layers as code, were they not
    tuned: TunedTable = field(default_factory=TunedTable)  # decisions of earlier tuning for this target
    tasks: Mapping[Unit, Task] = field(init=False)
    tuning: Mapping[str, str] = field(default_factory=dict)  # by layer: whether the table had its task
    operators: Mapping[str, str] = field(default_factory=dict)  # the same by other function
    kernels: KernelPlans = field(init=False)
    mod: tvm.IRModule = field(init=False)
    record: IntegerGraph = field(init=False)
    integer: tvm.IRModule = field(init=False)  # the integer graph before lowering, what `oracle` runs
    executable: tvm.runtime.Executable = field(init=False)
    seconds: dict[str, float] = field(default_factory=dict)


def import_model(c: Compilation) -> None:
    """ONNX to canonical Relax, without fake quantisation; the settings of each layer; the calibration data, checked."""
    c.imported = load_model(c.model)
    c.mod = tvm.transform.Sequential([StripQuantization()])(c.imported.mod)
    c.settings = c.config.resolve(c.imported.layer_names)
    c.data = open_calibration(c.calibration, c.imported.inputs)


def match(c: Compilation) -> None:
    """Cover the graph with units, and give each layer a form."""
    fp32 = [name for name, settings in c.settings.items() if settings is None]
    c.network = match_units(c.mod, c.imported.layer_names, fp32)
    c.settings = with_forms(c.network, c.settings, c.config)


def recall(c: Compilation) -> None:
    """Take the solution from the cache where the same model was solved with the same settings on the same data."""
    if c.cache.folder is None:
        return
    c.key = solution_key(c.mod, c.network, c.config, c.settings, c.data)
    known = c.cache.load(c.key, lambda arrays: from_arrays(arrays, c.network))
    if known is not None:
        c.quantized, c.recalled = known, True
        log.info("solved before: %s", c.cache.folder)


def calibrate(c: Compilation) -> None:
    """Run the fp32 network over the calibration data."""
    if c.recalled:
        return
    fits = samples_that_fit(c.network)
    if fits < len(c.data):
        log.warning("%d of %d calibration samples are used: no more fit into memory", fits, len(c.data))
        c.data = c.data.first(fits)
    total = sum(1 for _ in range(0, len(c.data), 16))
    batches = progress(c.data, "calibrating", total)
    c.observation = observe(
        c.mod, c.network, batches, count=len(c.data), rows=c.config.calibration_rows, seed=c.config.seed
    )


def measure(c: Compilation) -> None:
    """What each layer that has no price of a digit yet costs the answers, and what digits buy it."""
    if c.recalled:
        return
    open_layers = {unit: c.observation.rows[unit] for unit in c.network.linear if to_be_planned(unit, c.settings)}
    c.measured = sensitivity.measure(
        c.mod, open_layers, c.data, planes=c.config.planes, ridge=c.config.ridge, threads=c.config.threads
    )


def factorize(c: Compilation) -> None:
    """Plan the layers within the budget and solve each on what it will really see."""
    if c.recalled:
        return
    batched = Interpreter(c.mod).batched

    def solve(plan: Plan) -> QuantizedNetwork:
        return solve_network(c.network, c.observation, c.data, c.config, plan, batched=batched)

    budget, classes = c.config.budget, is_classes(shape_of(c.network.outputs[0]))

    def solved(settings: Mapping[str, LayerConfig | None]) -> QuantizedNetwork:
        def make(share: float, repaired: bool) -> Plan:
            return make_plan(settings, c.measured, budget, share, repaired=repaired)

        return solve_within(budget, make, solve, classes=classes)

    plain = without_factors(c.settings, c.config)
    forms = [c.settings, plain] if "max_drop" in budget and plain != c.settings else [c.settings]
    c.quantized = first_within(budget, map(solved, forms))
    if c.key:
        c.cache.store(c.key, to_arrays(c.quantized))


def choose(c: Compilation) -> None:
    """Decide each layer's kernel: start values, weights as code where that pays, what tuning found."""
    plans = KernelPlans(default_plan(c.target))
    if c.config.optimize == "speed":
        most_bytes = c.config.code_bytes or c.quantized.plan.budget.get("bytes")
        plans, c.packed = choose_code(c.quantized, plans, most_bytes)
    c.tasks = tasks_of(c.quantized, plans)
    c.kernels, c.tuning = tuned_plans(c.tasks, plans, c.tuned)


def rewrite(c: Compilation) -> None:
    """The fp32 graph becomes the integer graph."""
    c.record = IntegerGraph()
    passes = [ToIntegerGraph(c.quantized, c.kernels, c.record), VerifyMultiplyFree()]
    c.mod = c.integer = tvm.transform.Sequential(passes)(c.imported.mod)


def lower(c: Compilation) -> None:
    """What is left of Relax becomes TensorIR, neighbouring fp32 operators fused."""
    transform = relax.transform
    passes = [
        transform.LegalizeOps(),
        transform.AnnotateTIROpPattern(),
        transform.FuseOps(),
        transform.FuseTIR(),
        transform.DeadCodeElimination(["main"]),
    ]
    with c.target:
        c.mod = tvm.transform.Sequential(passes)(c.mod)


def schedule(c: Compilation) -> None:
    """Every TensorIR function gets its schedule: what tuning found, else that of the first rule that takes it."""
    apply_tuned = ApplyTuned(c.tuned)
    with c.target:
        c.mod = tvm.transform.Sequential([apply_tuned, apply_schedules(c.target)])(c.mod)
    c.operators = apply_tuned.found


def build(c: Compilation) -> None:
    """Machine code."""
    with c.target:
        c.executable = tvm.compile(c.mod, target=c.target, relax_pipeline="default_build")


STEPS = (import_model, match, recall, calibrate, measure, factorize, choose, rewrite, lower, schedule, build)


def run(
    c: Compilation, *, start_at: str | None = None, stop_after: str | None = None, dump_ir: Path | None = None
) -> Compilation:
    """Run the steps in order, timed, from ``start_at`` to ``stop_after`` (names of steps; default: all of them).

    ``dump_ir`` receives the module after each.
    """
    names = [step.__name__ for step in STEPS]
    first = 0 if start_at is None else names.index(start_at)
    last = len(STEPS) - 1 if stop_after is None else names.index(stop_after)
    for number, step in enumerate(STEPS[first : last + 1], first):
        start = time.perf_counter()
        step(c)
        c.seconds[step.__name__] = time.perf_counter() - start
        log.info("%s: %.1f s", step.__name__, c.seconds[step.__name__])
        if dump_ir is not None:
            dump_ir.mkdir(parents=True, exist_ok=True)
            (dump_ir / f"{number}-{step.__name__}.py").write_text(c.mod.script(show_meta=False))
    return c


def for_target(c: Compilation, target: tvm.target.Target, tuned: TunedTable) -> Compilation:
    """A solved compilation, to be finished for another target with ``run(..., start_at="choose")``."""
    other = copy.copy(c)
    other.target, other.seconds, other.tuned = target, dict(c.seconds), tuned
    return other
