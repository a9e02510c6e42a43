"""Rewrite an imported fp32 graph into integer operators (the pass that factorises).

    conv2d + bias [+ residual] + relu  ->  call_tir(ternary_conv2d, [int8, codes, scales, ...]) -> int8
    max_pool2d, add, views, concat ... ->  the same on int8
    anything else                      ->  as it was, on fp32, with dequantise / quantise at the border

Activations are int8 rows (N, C, H, W), or planes where only convolutions see them (`plane_layouts`).

Each kernel is a TensorIR function with the attribute ``ffn.op``, by which `schedules` knows it. The operators' NumPy
references are kept, so that the rewritten graph can be run without compiling it (`tvm_ffn.oracle`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvm_ffn.graph import Unit, shape_of
from tvm_ffn.kernel_plan import KernelPlans
from tvm_ffn.kernels.concat import Concat
from tvm_ffn.kernels.epilogue import Epilogue
from tvm_ffn.kernels.plane_layout import Layouts, PlaneLayout
from tvm_ffn.kernels.pointwise import Add, Affine, Rescale
from tvm_ffn.kernels.pool2d import AvgPool2d, MaxPool2d
from tvm_ffn.kernels.tiled_conv2d import TiledConv2d
from tvm_ffn.passes.bounds import stored_bounds
from tvm_ffn.passes.linear_operator import LinearOperator, Scales, linear_operator
from tvm_ffn.passes.plane_layouts import plane_layouts
from tvm_ffn.passes.pool_window import average_weights, pool_window
from tvm_ffn.ranges import direct_float
from tvm_ffn.solution import QuantizedNetwork
from tvm_ffn.unit_kinds import channel_values

_OPAQUE = 8  # TOpPattern: never fused with its neighbours


@dataclass
class IntegerGraph:
    """What the pass leaves beside the module: operators by function name, linear kernels by unit."""

    operators: dict[str, Any] = field(default_factory=dict)
    linear: dict[Unit, LinearOperator] = field(default_factory=dict)


@tvm.transform.module_pass(opt_level=0, name="ToIntegerGraph")
class ToIntegerGraph:
    """Replace "main" by its integer form; ``record`` receives the operators."""

    def __init__(self, quantized: QuantizedNetwork, plans: KernelPlans, record: IntegerGraph) -> None:
        self.quantized, self.plans, self.record = quantized, plans, record

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        """Build the new module from the network's units."""
        network = self.quantized.network
        attributes = mod["main"].attrs
        emitter = _Emitter(self.quantized, self.plans, self.record)
        parameters = [relax.Var(var.name, var.ty) for var in network.parameters]
        with emitter.builder.function("main", parameters, attrs=dict(attributes) if attributes else None):
            with emitter.builder.dataflow():
                for old, new in zip(network.parameters, parameters, strict=True):
                    emitter.floats[old] = new
                for unit in network.units:
                    emitter.unit(unit)
                results = [emitter.builder.emit_output(emitter.same(out, emitter.float)) for out in network.outputs]
            emitter.builder.emit_func_output(results[0] if len(results) == 1 else relax.Tuple(results))
        return emitter.builder.get()


class _Emitter:
    """Emits units into a block builder; remembers each variable's int8 and fp32 forms."""

    def __init__(self, quantized: QuantizedNetwork, plans: KernelPlans, record: IntegerGraph) -> None:
        self.quantized, self.plans, self.record = quantized, plans, record
        self.network, self.ranges, self.scales = quantized.network, quantized.ranges, quantized.ranges.scales
        self.builder = relax.BlockBuilder()
        self.integers: dict[relax.Var, relax.Var] = {}
        self.floats: dict[relax.Var, relax.Var] = {}
        record.linear.update((unit, self._linear_operator(unit)) for unit in self.network.linear)
        operators = {unit: built.operator for unit, built in record.linear.items()}
        self.planes: dict[relax.Var, PlaneLayout] = plane_layouts(self.network, operators)

    def unit(self, unit: Unit) -> None:
        """Emit one unit."""
        if unit.is_linear:
            self._linear(unit)
        elif unit.kind == "float":
            self.floats[unit.output] = self.builder.emit(self.same(unit.call, self.float), name_hint=unit.output.name)
        elif unit.kind == "view":
            self.integers[unit.output] = self.builder.emit(self.same(unit.call, self.integer))
        else:
            getattr(self, f"_{unit.kind}")(unit)

    def integer(self, var: relax.Var) -> relax.Var:
        """The int8 form of a variable, quantised here if it has none yet."""
        if var not in self.integers:
            scale = np.array([1.0 / self.scales[var]], np.float32)
            operator = Rescale(shape_of(var), "float32", Epilogue(zero=self.ranges.zero(var)))
            self.integers[var] = self._call("quantize", operator, [self.floats[var], scale])
        return self.integers[var]

    def float(self, var: relax.Var) -> relax.Var:
        """The fp32 form of a variable, dequantised here if it has none yet."""
        if var not in self.floats:
            scale = np.array([self.scales[var]], np.float32)
            operator = Rescale(shape_of(var), "int8", Epilogue("float32", None, None), self.ranges.zero(var))
            self.floats[var] = self._call("dequantize", operator, [self.integers[var], scale])
        return self.floats[var]

    def _call(self, name: str, operator: Any, arguments: Sequence[relax.Expr | np.ndarray]) -> relax.Var:
        """Emit a call of the operator's TensorIR function, equal functions shared."""
        function = operator.prim_func(name).with_attr("op_pattern", _OPAQUE)
        variable = self.builder.add_func(function, name)
        self.record.operators[variable.name_hint] = operator
        operands = [relax.const(value) if isinstance(value, np.ndarray) else value for value in arguments]
        out = relax.TensorType(*_out_tensor(operator))
        return self.builder.emit(relax.call_tir(variable, operands, out))

    def same(self, value: relax.Expr, form: Callable[[relax.Var], relax.Var]) -> relax.Expr:
        """The same expression on the new variables."""
        if isinstance(value, relax.Var):
            return form(value)
        if isinstance(value, relax.Tuple):
            return relax.Tuple([self.same(field, form) for field in value.fields])
        if isinstance(value, relax.TupleGetItem):
            return relax.TupleGetItem(self.same(value.tuple_value, form), value.index)
        if isinstance(value, tvm.ir.GlobalVar):
            return self.builder.add_func(self.network.functions[value.name_hint], value.name_hint)
        if not isinstance(value, relax.Call):
            return value
        return relax.Call(value.op, [self.same(arg, form) for arg in value.args], value.attrs, value.ty_args)

    def _reshape(self, value: relax.Var, shape: tuple[int, ...]) -> relax.Var:
        return value if shape_of(value) == shape else self.builder.emit(relax.op.reshape(value, shape))

    def _store(self, unit: Unit, value: relax.Var, *, is_float: bool) -> None:
        (self.floats if is_float else self.integers)[unit.output] = self._reshape(value, shape_of(unit.output))

    def _linear_operator(self, unit: Unit) -> LinearOperator:
        is_float = direct_float(unit, self.network)
        channels = unit.groups * unit.weight.shape[1]
        ranges, residual = self.ranges, unit.residual
        steps = np.ones(channels) if is_float else ranges.channel_steps(unit.output, channels)
        offset = np.zeros(channels)
        if residual is not None:
            offset -= ranges.zero(residual) * ranges.channel_steps(residual, channels)
        scales = Scales(
            self.scales[unit.inputs[0]],
            None if is_float else self.scales[unit.output],
            None if residual is None else self.scales[residual],
            steps,
            offset,
            ranges.zero(unit.inputs[0]),
            0 if is_float else ranges.zero(unit.output),
        )
        solution = self.quantized.layers[unit]
        return linear_operator(unit, solution, scales, self.quantized.middle_bits, self.plans.of(unit.name))

    def _linear(self, unit: Unit) -> None:
        built, x = self.record.linear[unit], self.integer(unit.inputs[0])
        operator, residual = built.operator, unit.residual
        if unit.kind == "dense":
            x = self._reshape(x, (int(np.prod(shape_of(x)[:-1])), shape_of(x)[-1]))
        arguments: list[relax.Expr | np.ndarray] = [x, *built.constants]
        if residual is not None:
            assert built.residual_multiplier is not None
            added = self.integer(residual)
            arguments += [
                added if residual in self.planes else self._reshape(added, operator.out_shape),
                built.residual_multiplier,
            ]
        layouts = Layouts(*(self.planes.get(var) for var in (unit.inputs[0], residual, unit.output)))
        if layouts != Layouts():
            operator = operator.with_layouts(layouts)
            self.record.linear[unit] = replace(built, operator=operator)
        kind = "ternary" if self.quantized.layers[unit].is_ternary else "int8"
        value = self._call(f"{kind}_{unit.kind}", operator, arguments)
        if layouts.out is not None:
            self.integers[unit.output] = value
        else:
            self._store(unit, value, is_float=direct_float(unit, self.network))

    def _concat(self, unit: Unit) -> None:
        parts = [self.integer(part) for part in unit.call.args[0].fields]
        axis = int(unit.call.attrs.axis) % len(shape_of(unit.output))
        operator = Concat(tuple(shape_of(part) for part in parts), axis)
        self._store(unit, self._call("concat", operator, parts), is_float=False)

    def _max_pool2d(self, unit: Unit) -> None:
        operator = MaxPool2d(pool_window(unit))
        self._store(unit, self._call("max_pool2d", operator, [self.integer(unit.inputs[0])]), is_float=False)

    def _avg_pool2d(self, unit: Unit) -> None:
        window = pool_window(unit)
        is_float = direct_float(unit, self.network)
        ratio = self.scales[unit.inputs[0]] / (1.0 if is_float else self.scales[unit.output])
        scale = (average_weights(unit, window) * ratio).astype(np.float32)
        bias = (-self.ranges.zero(unit.inputs[0]) * window.counts()).astype(np.int32)
        if is_float:
            lo, hi = (None if np.isinf(v) else float(v) for v in (unit.activation.lo, unit.activation.hi))
            operator = AvgPool2d(window, Epilogue("float32", lo, hi))
        else:
            operator = AvgPool2d(window, Epilogue("int8", *self._bounds(unit), zero=self.ranges.zero(unit.output)))
        value = self._call("avg_pool2d", operator, [self.integer(unit.inputs[0]), bias, scale])
        self._store(unit, value, is_float=is_float)

    def _add(self, unit: Unit) -> None:
        first, second = unit.call.args
        out = self.scales[unit.output]
        operator = Add(shape_of(unit.output), Epilogue("int8", *self._bounds(unit)))
        constants = operator.constants((self.scales[first] / out, self.scales[second] / out))
        arguments = [self.integer(first), self.integer(second), *constants]
        self._store(unit, self._call("add", operator, arguments), is_float=False)

    def _affine(self, unit: Unit) -> None:
        channels = shape_of(unit.call)[1]
        out = self.ranges.channel_steps(unit.output, channels)
        constant = channel_values(unit.call.args[1], channels)
        if unit.call.op.name == "relax.add":
            factor, bias = np.ones_like(constant), constant
        else:
            factor, bias = constant, np.zeros_like(constant) if unit.bias is None else unit.bias
        scale = factor * (self.ranges.channel_steps(unit.inputs[0], channels) / out)
        operator = Affine(shape_of(unit.output), Epilogue("int8", *self._bounds(unit)))
        arguments = [self.integer(unit.inputs[0]), *operator.constants(scale, bias / out)]
        value = self._call("affine", operator, arguments)
        self._store(unit, value, is_float=False)

    def _activation(self, unit: Unit) -> None:
        scale = np.array([self.scales[unit.inputs[0]] / self.scales[unit.output]], np.float32)
        zeros = [self.ranges.zero(var) for var in (unit.inputs[0], unit.output)]
        epilogue = Epilogue("int8", *self._bounds(unit), unit.activation.slope, zeros[1])
        operator = Rescale(shape_of(unit.output), "int8", epilogue, zeros[0])
        self._store(unit, self._call("activation", operator, [self.integer(unit.inputs[0]), scale]), is_float=False)

    def _bounds(self, unit: Unit) -> tuple[int, int]:
        ranges = self.ranges
        return stored_bounds(unit.activation, ranges.step(unit.output).reshape(-1), ranges.zero(unit.output))


def _out_tensor(operator: Any) -> tuple[tuple[int, ...], str]:
    """Shape and dtype of an operator's output."""
    if isinstance(operator, TiledConv2d) and operator.layouts.out is not None:
        return operator.layouts.out.tensor
    holder = getattr(operator, "product", operator)
    return operator.out_shape, holder.epilogue.out_dtype if hasattr(holder, "epilogue") else "int8"
