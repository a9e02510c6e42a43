"""What a session searches and plays off: to it, layers and other operators are alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import tvm
from tvm.s_tir import meta_schedule as ms

from tvm_ffn.tuning.operator import Operator
from tvm_ffn.tuning.table import TunedOperator, TunedTask
from tvm_ffn.tuning.task import Task

Tuned = TunedTask | TunedOperator


@dataclass(frozen=True)
class Entrant:
    """A candidate in a play-off: what is built, and what is remembered if it wins (`TunedTask.decisions`,
    `TunedOperator.trace`)."""

    mod: tvm.IRModule
    decisions: Any


class Subject(Protocol):
    """A task or operator and what was measured of it so far."""

    @property
    def task(self) -> Task | Operator:
        """Which."""

    @property
    def count(self) -> int:
        """Its layers, or calls."""

    @property
    def size(self) -> float:
        """How many candidates there are."""

    @property
    def tried(self) -> int:
        """How many were measured."""

    @property
    def failures(self) -> int:
        """How many of these failed."""

    @property
    def best_seconds(self) -> float | None:
        """Of the fastest."""

    @property
    def default_seconds(self) -> float | None:
        """Of what runs without tuning, once measured."""

    def context(self, target: tvm.target.Target, deadline: float, seed: int) -> ms.TuneContext:
        """For MetaSchedule, which ends the search at ``deadline`` (of ``time.monotonic``)."""

    def entrants(self, count: int) -> list[Entrant]:
        """The default and the ``count`` fastest; none where nothing ran."""

    def entry(self, winner: Entrant, seconds: float, default_seconds: float) -> Tuned:
        """What is remembered of an entrant that won."""
