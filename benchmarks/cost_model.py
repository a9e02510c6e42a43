"""Predicted cycles (`tvm_ffn.cost`) beside measured times: families, shapes and densities on one core, hot caches.

    python -m benchmarks.cost_model --target "llvm -mcpu=x86-64-v3" --families rows digits --json OUT.json

Prints every case, Spearman's rank correlation over all cases and within each family, and the worst misfits: measured
over predicted time, relative to the geometric mean of all. Times are minima of CPU time over interleaved rounds.
`benchmarks.rate_fit` turns the JSON into rates.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.shapes import (
    FLOAT,
    LAYERS,
    DigitsConv,
    Int8Conv,
    Int8Matmul,
    PlanesConv,
    Shape,
    TernaryConv,
    TernaryMatmul,
)

PLANES = 5
ZEROS = (0.35, 0.5, 0.65)
DIGITS = (0.4, 0.6, 0.8)  # that are not zero, a weight
DENSE = ((2048, 1000), (512, 1000), (768, 768))
FEWEST_MICROSECONDS = 300  # of one measurement: shorter kernels run several times


@dataclass(frozen=True)
class Measurement:
    """One case: its predicted cycles, its measured nanoseconds, and the counts of `tvm_ffn.cost.vector_counts`."""

    name: str
    family: str
    cycles: float
    nanoseconds: float
    counts: tuple[float, ...]


def main() -> None:
    """Parse the command line, measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="llvm", help='default: this machine; or e.g. "llvm -mcpu=x86-64-v3"')
    parser.add_argument(
        "--families", nargs="+", default=["rows", "code", "planes", "digits", "lut", "masks", "int8", "int8-dense"]
    )
    parser.add_argument("--only", default="", help="part of the names of the cases to run")
    parser.add_argument("--rank-ratio", default="1.0", choices=("1.0", "1.5"), help="of the factorised convolutions")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ["TVM_NUM_THREADS"] = "1"  # before TVM is imported
    chosen = [
        (family, shape)
        for family, shape in cases(options.rank_ratio)
        if family in options.families and options.only in shape.name
    ]
    found = measure(chosen, options.target, options.rounds)
    print(table(found))
    if options.json:
        options.json.write_text(json.dumps([vars(m) for m in found], indent=1) + "\n")


def cases(rank_ratio: str) -> Iterator[tuple[str, Shape]]:
    """Families and records: the convolutions of the shape table at one rank ratio, and dense layers on one row."""
    ending = f"-stride1-ratio{rank_ratio}"
    for layer in LAYERS:
        if not isinstance(layer, TernaryConv) or layer.kernel != "rows" or not layer.name.endswith(ending):
            continue
        name, geometry, outputs = layer.name.removeprefix("rows-"), layer.geometry, layer.outputs
        for zeros in ZEROS:
            yield "rows", replace(layer, name=f"rows-{name}-zeros{zeros}", zeros=zeros)
            yield "code", replace(layer, name=f"code-{name}-zeros{zeros}", zeros=zeros, kernel="code")
        name = name.removesuffix(ending)
        for digits in DIGITS:
            zeros = 1 - digits / PLANES
            yield "planes", PlanesConv(f"planes-{name}-{digits}", geometry, PLANES, outputs, layer.epilogue, zeros)
            yield "digits", DigitsConv(f"digits-{name}-{digits}", geometry, PLANES, outputs, layer.epilogue, zeros)
        yield "int8", Int8Conv(f"int8-{name}", geometry, outputs, layer.epilogue)
    for inputs, outputs in DENSE:
        terms = min(inputs, outputs)
        for zeros in ZEROS:
            for kind in ("lut", "masks"):
                name = f"{kind}-{inputs}to{outputs}-zeros{zeros}"
                yield kind, TernaryMatmul(name, kind, 1, inputs, terms, outputs, FLOAT, zeros=zeros)
        yield "int8-dense", Int8Matmul(f"int8-{inputs}to{outputs}", 1, inputs, outputs, FLOAT)


def measure(chosen: list[tuple[str, Shape]], target_name: str, rounds: int) -> list[Measurement]:
    """Build every case, then time all of them in turn, round by round."""
    import tvm

    from benchmarks.kernel_arguments import TYPICAL
    from benchmarks.kernel_build import ENTRY, build, plan
    from benchmarks.kernel_case import fits, kernel_case
    from tvm_ffn import targets
    from tvm_ffn.cost import predicted_cycles, vector_counts

    target = targets.parse_target(target_name)
    decisions = plan(target)
    built: list[tuple[Any, list[Any]]] = []
    found: list[Measurement] = []
    for family, shape in chosen:
        if not fits(shape, decisions):
            continue
        case = kernel_case(shape, decisions)
        kernel = build(case.operator.prim_func("kernel"), target)
        out = np.zeros(kernel.out_shape, kernel.out_dtype)
        built.append((kernel.library[ENTRY], [tvm.runtime.tensor(value) for value in (*case.runs[TYPICAL], out)]))
        counts = vector_counts(case.operator, decisions.lanes)
        cycles = predicted_cycles(case.operator, decisions.lanes)
        found.append(Measurement(shape.name, family, cycles, np.inf, counts))
    for _ in range(rounds):
        for index, (function, arguments) in enumerate(built):
            found[index] = replace(found[index], nanoseconds=min(found[index].nanoseconds, timed(function, arguments)))
    return found


def timed(function: Any, arguments: list[Any]) -> float:
    """Nanoseconds of CPU time of one call, after one that fills the caches."""
    start = time.process_time_ns()
    function(*arguments)
    calls = 1 + int(FEWEST_MICROSECONDS * 1000 / max(1, time.process_time_ns() - start))
    start = time.process_time_ns()
    for _ in range(calls):
        function(*arguments)
    return (time.process_time_ns() - start) / calls


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation; equal values share their mean rank."""
    ranks = []
    for values in (a, b):
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((counts.cumsum() - (counts - 1) / 2)[inverse])
    return float(np.corrcoef(*ranks)[0, 1])


def table(found: list[Measurement], worst: int = 8) -> str:
    """All cases, rank correlations and the worst misfits."""
    cycles = np.array([m.cycles for m in found])
    times = np.array([m.nanoseconds for m in found])
    misfits = np.log(times / cycles)
    misfits = np.exp(misfits - misfits.mean())
    lines = [f"{'':46}{'Mcycles':>9}{'us':>9}{'misfit':>8}"]
    rows = [f"{m.name:46}{m.cycles / 1e6:9.3f}{m.nanoseconds / 1e3:9.1f}" for m in found]
    lines += [f"{row}{misfit:8.2f}" for row, misfit in zip(rows, misfits, strict=True)]
    lines.append(f"Spearman, {len(found)} cases: {spearman(cycles, times):.3f}")
    for family in dict.fromkeys(m.family for m in found):
        of = np.array([m.family == family for m in found])
        spread = np.exp(np.log(misfits[of]).std())
        lines.append(f"  {family:8}{of.sum():4}  {spearman(cycles[of], times[of]):.3f}   misfits within x{spread:.2f}")
    order = np.argsort(-np.abs(np.log(misfits)))[:worst]
    return "\n".join([*lines, "worst:", *(f"  {misfits[i]:5.2f}  {found[i].name}" for i in order)])


if __name__ == "__main__":
    main()
