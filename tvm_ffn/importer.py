"""ONNX -> Relax: one function "main" in the canonical form the other passes rely on.

After ``load_model`` the shapes are static (a symbolic batch is bound to 1, the runtime loops over it), the parameters
of "main" are the true inputs, weights are constants, there is one dataflow block, batch norms are folded and each
conv2d / matmul with a constant weight has at most one constant add of shape (1, C, 1, 1) / (n,) behind it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import tvm
from tvm import relax

from tvm_ffn.errors import ModelError
from tvm_ffn.manifest import TensorInfo
from tvm_ffn.onnx_frontend import LAYER_OPS, constant_value, convert, name_of, supported_operators
from tvm_ffn.onnx_reader import check_model, read_model, real_inputs
from tvm_ffn.passes.canonicalize import Canonicalize
from tvm_ffn.passes.fold_batch_norm import FoldBatchNorm

if TYPE_CHECKING:
    import onnx

INPUT_TYPES = frozenset(
    {"FLOAT", "DOUBLE", "BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"}
)


@dataclass(frozen=True)
class ImportedModel:
    """A model in canonical form.

    ``layer_names[i]`` is the ONNX node name (or output name) of the i-th conv2d / matmul with a constant weight, in
    topological order. With ``symbolic_batch`` the first dimension of each output is the batch's symbol.
    """

    mod: tvm.IRModule
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    layer_names: tuple[str, ...]
    name: str
    symbolic_batch: bool


def load_model(model: str | os.PathLike[str] | onnx.ModelProto) -> ImportedModel:
    """Import an ONNX model given as a path or a ModelProto (which is not changed).

    Raises DataError for a path that does not exist, ModelError for a model that cannot be read or is not supported.
    """
    proto, name = read_model(model)
    check_model(proto, name, supported_operators())
    inputs = tuple(_input_info(value, name) for value in real_inputs(proto.graph))
    shapes = {info.name: [1 if isinstance(dim, str) else dim for dim in info.shape] for info in inputs}
    batches = {info.shape[0] for info in inputs if info.shape and isinstance(info.shape[0], str)}
    if len(batches) > 1:
        raise ModelError(
            f"{name}: inputs with different symbolic batch sizes {sorted(map(str, batches))}; use one symbol"
        )
    mod = _normalize(convert(proto, name, shapes))
    _check_folded(mod["main"], name)
    batch = batches.pop() if batches else None
    outputs = _output_infos(mod["main"], [value.name for value in proto.graph.output], name, batch)
    return ImportedModel(mod, inputs, outputs, _layer_names(mod["main"]), name, batch is not None)


def layer_calls(func: relax.Function) -> list[tuple[relax.Var, relax.Call]]:
    """The conv2d / matmul bindings with a constant weight, in topological order."""
    return [
        (binding.var, binding.value)
        for block in func.body.blocks
        for binding in block.bindings
        if isinstance(binding.value, relax.Call)
        and isinstance(binding.value.op, tvm.ir.Op)
        and binding.value.op.name in LAYER_OPS
        and isinstance(binding.value.args[1], tvm.ir.GenericConst)
    ]


def _normalize(mod: tvm.IRModule) -> tvm.IRModule:
    transform = relax.transform
    passes = [
        transform.FoldConstant(),
        transform.CanonicalizeBindings(),
        Canonicalize(),
        transform.CanonicalizeBindings(),
        FoldBatchNorm(),
        transform.CanonicalizeBindings(),
        transform.DeadCodeElimination(["main"]),
    ]
    return tvm.transform.Sequential(passes)(mod)


def _check_folded(func: relax.Function, name: str) -> None:
    """Refuse scales and weights that folding has made NaN or infinite."""
    layer = "the input"
    for block in func.body.blocks:
        for binding in block.bindings:
            call = binding.value
            if not isinstance(call, relax.Call) or not isinstance(call.op, tvm.ir.Op):
                continue
            layer = name_of(call) or layer
            if call.op.name in (*LAYER_OPS, "relax.multiply", "relax.add"):
                value = constant_value(call.args[1])
                scale = call.op.name != "relax.add"  # an added infinity may be a mask
                if (
                    value is not None
                    and value.dtype.kind == "f"
                    and (np.isnan(value).any() or (scale and np.isinf(value).any()))
                ):
                    raise ModelError(
                        f"{name}: NaN or infinite weights at or after '{layer}' once batch norms are folded;"
                        " their variance + epsilon must be positive"
                    )


def _input_info(value: onnx.ValueInfoProto, name: str) -> TensorInfo:
    import onnx

    types = {number: label for label, number in onnx.TensorProto.DataType.items()}
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
        raise ModelError(
            f"{name}: input '{value.name}' is no tensor of known rank; export the model with its input shapes"
        )
    dims: list[int | str] = [dim.dim_value if dim.dim_value > 0 else dim.dim_param or "?" for dim in tensor.shape.dim]
    if any(isinstance(dim, str) for dim in dims[1:]):
        shape = ", ".join(map(str, dims))
        raise ModelError(
            f"{name}: input '{value.name}' has shape ({shape}); only the first dimension (the batch) may be symbolic:"
            " give the others fixed sizes, for example with onnxruntime.tools.make_dynamic_shape_fixed"
        )
    if dims and dims[0] == "?":
        dims[0] = "N"
    dtype = types.get(tensor.elem_type, str(tensor.elem_type))
    if dtype not in INPUT_TYPES:
        raise ModelError(f"{name}: input '{value.name}' is of type {dtype}, which is not supported; give it float32")
    return TensorInfo(value.name, tuple(dims), onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name)


def _output_infos(func: relax.Function, names: list[str], name: str, batch: int | str | None) -> tuple[TensorInfo, ...]:
    types = list(func.ret_ty.fields) if isinstance(func.ret_ty, relax.TupleType) else [func.ret_ty]
    infos = []
    for label, tensor in zip(names, types, strict=True):
        if tensor.shape is None or any(not isinstance(dim, tvm.tirx.IntImm) for dim in tensor.shape):
            raise ModelError(f"{name}: output '{label}' has a shape that depends on the data, which is not supported")
        dims: list[int | str] = [int(dim) for dim in tensor.shape]
        if batch is not None:
            if not dims or dims[0] != 1:
                raise ModelError(
                    f"{name}: output '{label}' of shape {tuple(dims)} (for batch 1) does not start with the batch"
                    " dimension; export the model with a fixed batch size"
                )
            dims[0] = batch
        infos.append(TensorInfo(label, tuple(dims), str(tensor.dtype)))
    return tuple(infos)


def _layer_names(func: relax.Function) -> tuple[str, ...]:
    """Names from the calls' spans; what one node expanded to several layers is numbered."""
    names: list[str] = []
    for var, call in layer_calls(func):
        base = name_of(call) or var.name
        copies = sum(1 for name in names if name == base or name.startswith(f"{base}:"))
        names.append(f"{base}:{copies}" if copies else base)
    return tuple(names)
