"""The output of every integer kernel, from compiled code and from the NumPy oracle, compared bit for bit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvm_ffn.kernels.tiled_conv2d import TiledConv2d
from tvm_ffn.oracle import Oracle, called
from tvm_ffn.pipeline import Compilation

Named = list[tuple[str, np.ndarray]]


def compare_layers(
    built: Sequence[Compilation], batches: Iterable[dict[str, np.ndarray]], samples: int = 1
) -> dict[str, int]:
    """Number of differing elements by target and kernel over the first ``samples``; empty when all agree."""
    inputs = next(iter(batches))
    differing: dict[str, int] = {}
    for index in range(samples):
        sample = {name: value[index : index + 1] for name, value in inputs.items()}
        expected = oracle_values(built[0], sample)
        for c in built:
            found = compiled_values(c, sample)
            for (name, value), (_, right) in zip(found, expected, strict=True):
                bad = int(np.count_nonzero(value.reshape(right.shape) != right))
                if bad:
                    key = f"{c.target.attrs['mcpu']}: {name}"
                    differing[key] = differing.get(key, 0) + bad
    return differing


def oracle_values(c: Compilation, inputs: dict[str, np.ndarray]) -> Named:
    """Kernel outputs in order, computed by the operators' NumPy references."""
    oracle = Oracle(c.integer, c.record.operators)
    kernels = {binding.var: called(binding.value) for binding in oracle.bindings}
    named = [(kernels[var], value) for var, value in oracle.values(inputs) if kernels.get(var) in c.record.operators]
    return [(name, _rows(c.record.operators[name], value)) for name, value in named]


def compiled_values(c: Compilation, inputs: dict[str, np.ndarray]) -> Named:
    """The same from machine code, copied after each call."""
    machine = relax.VirtualMachine(c.executable, tvm.cpu())
    values: Named = []

    def after(_function: Any, name: str, before_run: bool, _result: Any, *arguments: Any) -> None:
        if not before_run and name in c.record.operators:
            values.append((name, _rows(c.record.operators[name], arguments[-1].numpy())))

    machine.set_instrument(after)
    machine["main"](*(tvm.runtime.tensor(value) for value in inputs.values()))
    return values


def _rows(operator: Any, value: np.ndarray) -> np.ndarray:
    """An operator's output as rows: builds may differ in what lies in planes."""
    layout = operator.layouts.out if isinstance(operator, TiledConv2d) else None
    return value if layout is None else layout.rows_numpy(value)
