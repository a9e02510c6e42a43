"""What solving leaves of a layer and of a network: the numbers that the integer graph is built from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tvm_ffn.comparison import Verification
from tvm_ffn.factorize import Factors
from tvm_ffn.graph import Network, Unit
from tvm_ffn.plan import Plan
from tvm_ffn.ranges import Ranges


@dataclass(frozen=True)
class LayerSolution:
    """One layer in integers: ternary factors a group, or int8 weights with the reason why.

    ``bias`` (M,) float32 makes the mean response exact. Both errors are relative: ``response_error`` is the layer's
    own, of its weights in the metric of its inputs, ``accumulated_error`` that of its response in the quantised network
    against the fp32 network's (a residual's error included).
    """

    bias: np.ndarray
    response_error: float
    accumulated_error: float
    factors: tuple[Factors, ...] = ()
    middle_scale: float = 0.0
    weight: np.ndarray | None = None  # int8 (groups, m, n)
    weight_scale: np.ndarray | None = None  # float32 (groups, m)
    reason: str = ""

    @property
    def is_ternary(self) -> bool:
        return bool(self.factors)

    @cached_property
    def effective_weight(self) -> np.ndarray:
        """The fp32 matrix (groups, m, n) that the layer's integers stand for, on inputs divided by their ratios."""
        if self.factors:
            return np.stack([factors.weight() for factors in self.factors])
        assert self.weight is not None and self.weight_scale is not None
        return self.weight.astype(np.float32) * self.weight_scale[:, :, None]


@dataclass(frozen=True)
class QuantizedNetwork:
    """The units with the range of every int8 tensor and the solution of every linear unit.

    ``plan`` is what was solved for. ``held_out`` compares the network with fp32 on the calibration samples that no
    weight was fitted to (None without any).
    """

    network: Network
    ranges: Ranges
    layers: Mapping[Unit, LayerSolution]
    middle_bits: int
    plan: Plan
    held_out: Verification | None = None
