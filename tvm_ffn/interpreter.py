"""Run a Relax graph operator by operator in NumPy: the reference that calibration, planning and verification share.

An operator is computed by its NumPy form (``numpy_ops``) or, if it has none, by a TVM build of just this operator,
kept for the next call of the same form. ``Interpreter.values`` hands out every intermediate tensor and frees each
after its last reader.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import relax

from tvm_ffn.batching import runs_in_batches
from tvm_ffn.errors import DataError
from tvm_ffn.numpy_conv import conv2d, im2col_rows
from tvm_ffn.numpy_ops import OPERATORS

__all__ = ["Interpreter", "conv2d", "evaluate", "im2col_rows"]

Value = Any  # an array, a tuple of values, or an expression that is no tensor

_BUILT: dict[int, list[tuple[relax.Function, Any]]] = {}  # structural hash -> single-operator functions with that hash


def evaluate(call: relax.Call, args: Sequence[Value]) -> Value:
    """Compute one call from the values of its operands.

    A tensor operand is an array, a tuple operand a tuple of arrays; others are the expression itself. The function of
    a call_tir is given as the PrimFunc.
    """
    name = call.op.name if isinstance(call.op, tvm.ir.Op) else ""
    if name in OPERATORS:
        result = OPERATORS[name](call, *args)
        if result is not None:
            return np.asarray(result) if isinstance(result, np.generic) else result
    return _build_and_run(call, args)


class Interpreter:
    """Runs the function "main" of a module whose parameters are its inputs."""

    def __init__(self, mod: tvm.IRModule) -> None:
        self.mod = mod
        self.func: relax.Function = mod["main"]
        self.bindings = [binding for block in self.func.body.blocks for binding in block.bindings]
        self.batched = runs_in_batches(self.func)
        self._constants: dict[tvm.ir.GenericConst, np.ndarray] = {}
        self._dying = self._last_reads()

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Return the outputs for inputs by parameter name; where the graph has a batch of 1, any batch may be given."""
        results = [self._outputs(sample) for sample in self._samples(inputs)]
        return results[0] if len(results) == 1 else [np.concatenate(parts) for parts in zip(*results, strict=True)]

    def values(self, inputs: Mapping[str, np.ndarray]) -> Iterator[tuple[relax.Var, np.ndarray]]:
        """Yield every tensor, inputs first, with its value.

        A graph that cannot run in batches yields each variable once a sample of the batch.
        """
        for sample in self._samples(inputs):
            for var, value in self._walk(sample, {}):
                if isinstance(value, np.ndarray):
                    yield var, value

    def alternatives(
        self, inputs: Mapping[str, np.ndarray], weights: Mapping[int, np.ndarray]
    ) -> Iterator[tuple[int | None, np.ndarray, list[np.ndarray]]]:
        """Yield the outputs once for each binding named in ``weights``, with that array in place of its call's second
        operand, as (binding, change of the call's value, outputs of the graph), and last those of the graph as it is,
        as (None, empty, outputs). What lies before a binding is computed once."""
        for sample in self._samples(inputs):
            environment: dict[relax.Var, Value] = {}
            for position, _ in enumerate(self._walk(sample, environment), -len(self.func.params)):
                if position in weights:
                    call, other = self.bindings[position].value, dict(environment)
                    first = self._value(call.args[0], environment)
                    value = evaluate(call, [first, weights[position]])
                    other[self.bindings[position].var] = value
                    yield position, value - environment[self.bindings[position].var], self._rest(other, position + 1)
            yield None, np.zeros(0), self._results(environment)

    def _outputs(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        environment: dict[relax.Var, Value] = {param: inputs[param.name] for param in self.func.params}
        return self._rest(environment, 0)

    def _rest(self, environment: dict[relax.Var, Value], start: int) -> list[np.ndarray]:
        for _ in self._continue(environment, start):
            pass
        return self._results(environment)

    def _results(self, environment: dict[relax.Var, Value]) -> list[np.ndarray]:
        result = self._value(self.func.body.body, environment)
        return [np.asarray(part) for part in (result if isinstance(result, tuple) else (result,))]

    def _walk(
        self, inputs: Mapping[str, np.ndarray], environment: dict[relax.Var, Value]
    ) -> Iterator[tuple[relax.Var, Value]]:
        for param in self.func.params:
            environment[param] = inputs[param.name]
            yield param, environment[param]
        yield from self._continue(environment, 0)

    def _continue(self, environment: dict[relax.Var, Value], start: int) -> Iterator[tuple[relax.Var, Value]]:
        """Compute the bindings from ``start`` on; each value is dropped after its last reader."""
        for position, binding in enumerate(self.bindings[start:], start):
            value = self._value(binding.value, environment)
            environment[binding.var] = value
            yield binding.var, value
            for var in self._dying[position]:
                environment.pop(var, None)

    def _value(self, expr: relax.Expr, environment: dict[relax.Var, Value]) -> Value:
        if isinstance(expr, relax.Var):
            return environment[expr]
        if isinstance(expr, tvm.ir.GenericConst):
            if expr not in self._constants:
                self._constants[expr] = expr.value.numpy()
            return self._constants[expr]
        if isinstance(expr, relax.Tuple):
            values = tuple(self._value(field, environment) for field in expr.fields)
            return values if all(isinstance(value, (np.ndarray, tuple)) for value in values) else expr
        if isinstance(expr, relax.TupleGetItem):
            return self._value(expr.tuple_value, environment)[expr.index]
        if isinstance(expr, tvm.ir.GlobalVar):
            return self.mod[expr]
        if isinstance(expr, relax.Call) and (isinstance(expr.op, tvm.ir.Op)):
            return evaluate(expr, [self._value(arg, environment) for arg in expr.args])
        return expr

    def _samples(self, inputs: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        """The inputs as given if the graph takes them at once, else one sample after the other."""
        batch = 1
        for param in self.func.params:
            if param.name not in inputs:
                raise DataError(f"input '{param.name}' is missing; given: {', '.join(inputs) or 'none'}")
            shape, given = tuple(int(dim) for dim in param.ty.shape), inputs[param.name].shape
            if given != shape:
                if len(given) != len(shape) or given[1:] != shape[1:] or shape[0] != 1:
                    raise DataError(f"input '{param.name}' has shape {given}, the model takes {shape}")
                batch = given[0]
        arrays = {param.name: np.asarray(inputs[param.name]) for param in self.func.params}
        if self.batched or batch == 1:
            yield arrays
            return
        for index in range(batch):
            yield {name: array[index : index + 1] if len(array) == batch else array for name, array in arrays.items()}

    def _last_reads(self) -> list[list[relax.Var]]:
        """For each binding the variables that nothing reads after it."""
        last: dict[relax.Var, int] = {}
        for position, binding in enumerate(self.bindings):
            last[binding.var] = position

            def note(expr: relax.Expr, position: int = position) -> None:
                if isinstance(expr, relax.Var):
                    last[expr] = position

            relax.analysis.post_order_visit(binding.value, note)
        relax.analysis.post_order_visit(self.func.body.body, lambda expr: last.pop(expr, None))
        dying: list[list[relax.Var]] = [[] for _ in self.bindings]
        for var, position in last.items():
            dying[position].append(var)
        return dying


def _build_and_run(call: relax.Call, args: Sequence[Value]) -> Value:
    operands: list[np.ndarray] = []
    builder = relax.BlockBuilder()

    def parameter(value: Value) -> relax.Expr:
        if isinstance(value, tuple):
            return relax.Tuple([parameter(part) for part in value])
        if isinstance(value, np.ndarray):
            operands.append(np.asarray(value, order="C"))
            return parameters.setdefault(
                len(operands), relax.Var(f"x{len(operands)}", relax.TensorType(value.shape, str(value.dtype)))
            )
        return builder.add_func(value, "kernel") if isinstance(value, tvm.tirx.PrimFunc) else value

    parameters: dict[int, relax.Var] = {}
    arguments = [parameter(value) for value in args]
    single = relax.Call(call.op, arguments, call.attrs, call.ty_args)
    with builder.function("main", list(parameters.values())):
        builder.emit_func_output(builder.emit(single))
    module = builder.get()
    same_hash = _BUILT.setdefault(tvm_ffi.structural_hash(module), [])
    machine = next((built for known, built in same_hash if tvm_ffi.structural_equal(known, module)), None)
    if machine is None:
        machine = relax.VirtualMachine(tvm.compile(module, "llvm"), tvm.cpu())
        same_hash.append((module, machine))
    return _to_numpy(machine["main"](*(tvm.runtime.tensor(operand) for operand in operands)))


def _to_numpy(result: Any) -> Any:
    return result.numpy() if hasattr(result, "numpy") else tuple(_to_numpy(part) for part in result)
