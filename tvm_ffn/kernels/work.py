"""What one run of an operator costs: the counts that are reported, and those the processor executes for them.

An element is one output of one pixel, whatever the vectors: a vector addition of 32 lanes counts as 32. Every operator
has ``cost``, on the pixels and outputs that somebody reads, and ``executed``, on whole tiles, blocks of outputs and
padded rows, as time follows.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Counts of one run of a layer: ``adds`` of elements, ``multiplies`` (requantisation, and the products of int8
    weights), ``lookups`` of elements at places that the weights name, and ``bytes`` of weights, scales and biases, with
    an estimate of machine code."""

    adds: int
    multiplies: int
    lookups: int
    bytes: int


@dataclass(frozen=True)
class Executed(Cost):
    """The same on padded sizes, and what else takes time.

    ``moves``: elements written in another layout (planes in, rows out). ``loads``: with weights as code, elements of
    inputs that blocks of rows load; ``misses``: those of them whose inputs do not fit L1. ``starts``: lists, once a
    run; nothing foretells where they end the first time, in later tiles a processor knows most.
    """

    moves: int
    loads: int = 0
    misses: int = 0
    starts: int = 0

    @classmethod
    def of(cls, cost: Cost, *, moves: int, loads: int = 0, misses: int = 0, starts: int = 0) -> Executed:
        """``cost`` counted on padded sizes, with the rest."""
        return cls(cost.adds, cost.multiplies, cost.lookups, cost.bytes, moves, loads, misses, starts)
