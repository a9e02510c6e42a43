"""The arguments of a kernel that every sum meets at its end, in their order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tvm.tirx import Buffer

from tvm_ffn.kernels import epilogue as ep
from tvm_ffn.kernels.builder import KernelBuilder
from tvm_ffn.kernels.epilogue import Epilogue


@dataclass(frozen=True)
class EpilogueArguments:
    """Buffers of an ``epilogue``; no residual: both of its buffers are None."""

    epilogue: Epilogue
    bias: Buffer
    scale: Buffer
    residual: Buffer | None
    residual_multiplier: Buffer | None
    out: Buffer

    @staticmethod
    def declare(
        b: KernelBuilder,
        epilogue: Epilogue,
        channels: tuple[int, int],
        out_shape: Sequence[int],
        residual: tuple[Sequence[int], str] | None = None,
    ) -> EpilogueArguments:
        """Declare bias int32 and scale float32 of the shape ``channels`` (groups, m), [the residual, of a shape and
        dtype of its own or int8 like the output, its multiplier int16 (1,)], and the output."""
        return EpilogueArguments(
            epilogue,
            b.arg("bias", channels, "int32"),
            b.arg("scale", channels, "float32"),
            b.arg("residual", *(residual or (out_shape, "int8"))) if epilogue.residual else None,
            b.arg("residual_multiplier", (1,), "int16") if epilogue.residual else None,
            b.arg("out", out_shape, epilogue.out_dtype),
        )

    def with_copied_residual(self, copy: Callable[[Buffer], Buffer]) -> EpilogueArguments:
        """With the residual's ``copy`` in its place, if there is a residual."""
        return self if self.residual is None else replace(self, residual=copy(self.residual))

    def stored(self, total: Any, channel: tuple[Any, Any], place: tuple[Any, ...]) -> Any:
        """The value to be stored for the sum ``total`` of a ``channel`` whose residual lies at ``place``."""
        pair = None
        if self.residual is not None and self.residual_multiplier is not None:
            pair = (self.residual[place], self.residual_multiplier[0])
        return ep.apply(self.epilogue, total, self.bias[channel], self.scale[channel], pair)
