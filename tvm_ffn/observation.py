"""One pass of the fp32 network over the calibration data: samples of every int8 tensor, responses of every layer.

Positions are drawn once, with the configuration's seed; the quantised network is later read at the same positions, so
that the two can be compared row by row without keeping any whole activation. Every tenth sample is held out: its rows
judge what the others were fitted to, and its answers the whole network.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

from tvm_ffn.errors import DataError
from tvm_ffn.graph import Network, Unit, shape_of
from tvm_ffn.interpreter import Interpreter
from tvm_ffn.ranges import Sample, stored_as_int8
from tvm_ffn.unit_rows import inputs_at, outputs_of, positions

VALUES_A_TENSOR = 200_000  # sampled for the choice of a scale
INPUT_ROWS = 2048  # of a layer, kept with their fp32 inputs for planning
HELD_OUT = 10
ANSWER_BYTES = 1 << 28  # of the held-out answers kept


def is_held_out(sample: np.ndarray) -> np.ndarray:
    """Which sample numbers are held out: 9, 19, 29, ..."""
    return sample % HELD_OUT == HELD_OUT - 1


@dataclass(frozen=True)
class Rows:
    """Sampled output positions of one layer over all calibration samples.

    ``index``: sorted flat positions (sample * positions a sample + position), ``response``: float32 (rows, M), the fp32
    network's output there before the activation, a residual included; ``inputs``: float32 (fewer rows, groups, n), the
    fp32 network's inputs at some of them.
    """

    index: np.ndarray
    response: np.ndarray
    inputs: np.ndarray


@dataclass(frozen=True)
class Observation:
    """What the fp32 pass saw.

    ``peaks`` (2, C) are the channels' largest magnitudes of positive and of negative values, of every int8 tensor
    (N, C, H, W);
    ``answers`` are the outputs of the first held-out samples, samples first.
    """

    samples: dict[relax.Var, list[Sample]]
    peaks: dict[relax.Var, np.ndarray]
    rows: dict[Unit, Rows]
    answers: list[np.ndarray]
    count: int


class _LayerSample:
    """Draws positions of one layer batch by batch and keeps what is there."""

    def __init__(self, unit: Unit, rows: int, rng: np.random.Generator) -> None:
        self.unit, self.wanted, self.rng, self.seen = unit, rows, rng, 0
        self.index: list[np.ndarray] = []
        self.inputs: list[np.ndarray] = []
        self.responses: list[np.ndarray] = []
        self.chosen = np.zeros(0, np.int64)

    def see_input(self, x: np.ndarray, part: float) -> None:
        """Choose this batch's positions; ``part`` of all samples are in it."""
        count = positions(self.unit) * (len(x) // shape_of(self.unit.inputs[0])[0])
        size = max(1, min(count, round(self.wanted * part)))
        self.chosen = np.sort(self.rng.choice(count, size, replace=False))
        kept = self.chosen[:: max(1, self.wanted // INPUT_ROWS)]
        self.inputs.append(inputs_at(self.unit, x, kept))
        self.index.append(self.chosen + self.seen)
        self.seen += count

    def see_response(self, value: np.ndarray) -> None:
        self.responses.append(outputs_of(value, self.unit.kind)[self.chosen])

    def rows(self) -> Rows:
        return Rows(*(np.concatenate(parts) for parts in (self.index, self.responses, self.inputs)))


def observe(
    mod: tvm.IRModule,
    network: Network,
    batches: Iterable[dict[str, np.ndarray]],
    *,
    count: int,
    rows: int,
    seed: int,
) -> Observation:
    """Run the fp32 graph on ``batches`` of together ``count`` samples; about ``rows`` positions are kept a layer."""
    interpreter = Interpreter(mod)
    rng = np.random.default_rng(seed)
    wanted = stored_as_int8(network)
    samples: dict[relax.Var, list[Sample]] = {var: [] for var in wanted}
    peaks = {var: np.zeros((2, shape_of(var)[1]), np.float32) for var in wanted if len(shape_of(var)) == 4}
    layers = {unit: _LayerSample(unit, rows, rng) for unit in network.linear}
    readers: dict[relax.Var, list[_LayerSample]] = {}
    for unit, layer in layers.items():
        readers.setdefault(unit.inputs[0], []).append(layer)
    writers = {unit.response: layer for unit, layer in layers.items()}
    answers = _Answers(network)
    size = 0  # samples in the current run of the graph
    for batch in batches:
        for var, value in interpreter.values(batch):
            if var.same_as(network.parameters[0]):
                size = len(value)
            if var in wanted:
                if not np.isfinite(value).all():
                    raise DataError(f"the model computes NaN or infinity on the calibration data, at '{var.name}'")
                samples[var].append(_draw(value, round(VALUES_A_TENSOR * size / count), rng))
                if var in peaks:
                    ends = value.max(axis=(0, 2, 3)), -value.min(axis=(0, 2, 3))
                    peaks[var] = np.maximum(peaks[var], np.stack(ends))
            for layer in readers.get(var, []):
                layer.see_input(value, size / count)
            if var in writers:
                writers[var].see_response(value)
            answers.see(var, value, size)
    return Observation(samples, peaks, {unit: layer.rows() for unit, layer in layers.items()}, answers.result(), count)


def _draw(value: np.ndarray, wanted: int, rng: np.random.Generator) -> Sample:
    """At most ``wanted`` values of a tensor, and at least one."""
    place = rng.integers(0, value.size, max(1, min(value.size, wanted)))
    channels = place // int(np.prod(value.shape[2:])) % value.shape[1] if value.ndim == 4 else 0 * place
    return Sample(value.reshape(-1)[place].astype(np.float32), channels)


class _Answers:
    """The network's outputs for held-out samples, as far as they fit; none if an output is not one item a sample."""

    def __init__(self, network: Network) -> None:
        outputs = [out for out in network.outputs if isinstance(out, relax.Var)]
        self.seen = dict.fromkeys(outputs, 0)
        self.kept: dict[relax.Var, list[np.ndarray]] = {out: [] for out in outputs}
        self.usable = True

    def see(self, var: relax.Var, value: np.ndarray, samples: int) -> None:
        if var not in self.seen or not self.usable:
            return
        self.usable = value.ndim > 0 and len(value) == samples
        held = is_held_out(np.arange(self.seen[var], self.seen[var] + samples))
        self.seen[var] += samples
        if self.usable and held.any() and sum(part.nbytes for part in self.kept[var]) < ANSWER_BYTES // len(self.kept):
            self.kept[var].append(value[held])

    def result(self) -> list[np.ndarray]:
        if not self.usable or not self.kept or not all(self.kept.values()):
            return []
        kept = [np.concatenate(parts) for parts in self.kept.values()]
        fewest = min(map(len, kept))
        return [answers[:fewest] for answers in kept]
