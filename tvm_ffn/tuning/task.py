"""A tuning task: all that the latency of a linear layer depends on, its shape and how dense its weights are.

Equal layers are one task. A task is plain data: it is stored with the records, and whoever reads it can make up weights
and activations of that kind again (`tuning.problem`), without the model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from tvm_ffn.kernels.epilogue import Epilogue
from tvm_ffn.kernels.geometry import ConvGeometry
from tvm_ffn.kernels.layer_kernel import LayerShape

PLANES, FACTORS, INT8 = "planes", "factors", "int8"
DENSITY_STEP = 0.1  # densities are rounded to it: within a step the same decisions are best


@dataclass(frozen=True)
class Task:
    """A linear layer: ``groups`` groups of ``outputs`` m and ``inputs`` n, over a ``geometry`` or over ``rows``.

    ``form`` and ``terms``: digit "planes" and their number, "factors" of any form and their terms k, or "int8" (0).
    ``density``: digits a weight, or the share of X and Y that is not zero, rounded (1 for int8). ``middle_bits`` are
    those of the value between two factors. ``code``: the weights may be code.
    """

    form: str
    geometry: ConvGeometry | None
    rows: int
    groups: int
    inputs: int
    outputs: int
    terms: int
    density: float
    middle_bits: int
    epilogue: Epilogue
    code: bool = False

    @property
    def shape(self) -> LayerShape:
        """Where its products happen."""
        return LayerShape(self.geometry) if self.geometry is not None else LayerShape.dense(self.rows)

    @cached_property
    def key(self) -> str:
        """The same for tasks that differ by density and bounds of the output only."""
        bare = Epilogue(self.epilogue.out_dtype, slope=self.epilogue.slope, residual=self.epilogue.residual)
        geometry = self.geometry and replace(self.geometry, pad_value=0)
        return json.dumps(asdict(replace(self, density=1.0, epilogue=bare, geometry=geometry)), sort_keys=True)

    @property
    def name(self) -> str:
        """For people: "planes conv 3x3/1 64->64 @56x56"."""
        g = self.geometry
        channels = f"{self.groups * self.inputs // (g.taps if g else 1)}->{self.groups * self.outputs}"
        terms = f"-{self.terms}" if self.form == FACTORS else ""
        if g is None:
            return f"{self.form}{terms} dense {channels} x{self.rows}"
        kernel = "x".join(map(str, g.kernel)) + (f"/{g.strides[0]}" if g.strides != (1, 1) else "")
        grouped = f" g{self.groups}" if self.groups > 1 else ""
        extra = " +residual" * self.epilogue.residual + " leaky" * (self.epilogue.slope != 1.0)
        code = " as code" if self.code else ""
        return f"{self.form}{terms} conv {kernel} {channels}{grouped} @{g.out_height}x{g.out_width}{extra}{code}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Task:
        """Inverse of `to_dict`; anything else is a TypeError, KeyError or ValueError."""
        fields = dict(values)
        geometry = fields["geometry"]
        if geometry is not None:
            pairs: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in geometry.items()}
            geometry = ConvGeometry(**pairs)
        return cls(**{**fields, "geometry": geometry, "epilogue": Epilogue(**fields["epilogue"])})


def rounded_density(density: float) -> float:
    """To `DENSITY_STEP`, at least one step."""
    return float(np.round(max(1, round(density / DENSITY_STEP)) * DENSITY_STEP, 6))
