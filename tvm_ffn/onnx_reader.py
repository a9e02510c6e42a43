"""Read an ONNX model from disk or memory and refuse, with one short message, what cannot be imported.

Everything that can be said about a model before TVM sees it is said here: unreadable files, missing inputs, NaN
weights, operators that are not supported (all of them at once, with the names of their nodes). What leaves this
module has unique node names, so that a layer can be named in configurations and reports.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tvm_ffn.errors import DataError, ModelError
from tvm_ffn.onnx_float16 import widen

if TYPE_CHECKING:
    import onnx

log = logging.getLogger("tvm_ffn")

OLDEST_IR_VERSION = 3
NAMES_SHOWN = 4
WEIGHTED_OPS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "PRelu"})
CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})
DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})


def read_model(model: str | os.PathLike[str] | onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
    """Return a private copy of ``model`` with functions inlined, float16 made float32 and unique node names, and the
    model's name.

    Raises DataError for a path that does not exist and ModelError for a file that is no usable ONNX model.
    """
    import onnx
    from onnx.external_data_helper import uses_external_data

    if isinstance(model, onnx.ModelProto):
        proto, name = onnx.ModelProto(), model.graph.name or "model"
        proto.CopyFrom(model)
    else:
        path = Path(model)
        proto, name = _parse(path), path.stem
    if not proto.graph.node:
        where = name if isinstance(model, onnx.ModelProto) else model
        raise ModelError(f"{where}: not an ONNX model, or a model without nodes")
    absent = [tensor for tensor in proto.graph.initializer if uses_external_data(tensor)]
    if absent:
        raise ModelError(
            f"{name}: the data of initializer '{absent[0].name}' is in another file and was not loaded;"
            " load it with onnx.load_external_data_for_model, or give the model's path"
        )
    if proto.ir_version < OLDEST_IR_VERSION:
        raise ModelError(
            f"{name}: ONNX IR version {proto.ir_version} is older than {OLDEST_IR_VERSION}; export the model again"
        )
    del proto.graph.value_info[:]  # types are inferred here; what a file declares about them may be missing or wrong
    for value in proto.graph.output:
        value.type.tensor_type.shape.SetInParent()  # the checker insists on a shape, onnxruntime does not
    if proto.functions:
        from onnx import inliner

        try:
            proto = inliner.inline_local_functions(proto)
        except onnx.checker.ValidationError as error:
            raise ModelError(f"{name}: malformed ONNX functions: {_first_line(error)}") from error
    if widen(proto.graph):
        log.warning("%s: 16-bit floating point becomes float32, that of inputs and outputs too", name)
    _name_nodes(proto.graph)
    return proto, name


def check_model(proto: onnx.ModelProto, name: str, supported: Collection[str]) -> None:
    """Raise ModelError for a malformed graph, operands whose shapes contradict each other, damaged or NaN weights, no
    inputs or operators that are not in ``supported``."""
    import onnx

    graph = proto.graph
    _check_operators(graph, name, supported)
    if not real_inputs(graph):
        raise ModelError(f"{name}: the model has no inputs (every graph input is an initializer)")
    if not graph.output:
        raise ModelError(f"{name}: the model has no outputs")
    _check_weights(graph, name)
    bare = _without_weights(proto)
    try:
        onnx.checker.check_model(bare)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"{name}: malformed ONNX graph: {_first_line(error)}") from error
    for value in bare.graph.output:
        value.ClearField("type")  # what is declared of an output's shape may be wrong
    try:
        onnx.shape_inference.infer_shapes(bare, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise ModelError(f"{name}: malformed ONNX graph: {_inference(error)}") from error


def real_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The graph inputs that are not initializers (IR version 3 lists those as inputs too)."""
    initializers = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in initializers]


def _parse(path: Path) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    if not path.is_file():
        reason = "is a folder, not a model file" if path.is_dir() else "no such model file"
        raise DataError(f"{path}: {reason}; give the path of an .onnx file")
    try:
        return onnx.load(path, format="protobuf")
    except DecodeError as error:
        raise ModelError(f"{path}: not a readable ONNX model (truncated, or not ONNX at all)") from error
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(f"{path}: cannot be read: {_first_line(error)}") from error


def _without_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with its weights as inputs: the checker serialises what it checks, and refuses more than 2 GB.

    Integers stay, which may be shapes.
    """
    from onnx import TensorProto, helper

    source = proto.graph
    kept = [tensor for tensor in source.initializer if tensor.data_type == TensorProto.INT64]
    weights = [
        helper.make_tensor_value_info(t.name, t.data_type, t.dims)
        for t in source.initializer
        if t.data_type != TensorProto.INT64
    ]
    inputs = [*real_inputs(source), *weights]
    graph = helper.make_graph(source.node, source.name or "graph", inputs, source.output, kept)
    version = max(proto.ir_version, OLDEST_IR_VERSION + 1)  # with older ones initializers are inputs too
    return helper.make_model(graph, opset_imports=proto.opset_import, ir_version=version)


def _inference(error: Exception) -> str:
    """What shape inference says of the first node that it cannot take."""
    found = re.search(r"\(op_type:(\w+), node name: (.*)\): (?:\[\w+\] )?(.+)", str(error))
    return f"node '{found[2]}' ({found[1]}): {found[3].strip()}" if found else _first_line(error)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Give nodes without a name, or with one used twice, the name of their first output (unique by ONNX's rules)."""
    counts = Counter(node.name for node in graph.node)
    for node in graph.node:
        if node.output and (not node.name or counts[node.name] > 1):
            node.name = node.output[0]


def _check_operators(graph: onnx.GraphProto, name: str, supported: Collection[str]) -> None:
    missing: dict[str, list[str]] = {}
    for node in graph.node:
        known = node.domain in DOMAINS and node.op_type in supported and node.op_type not in CONTROL_FLOW
        if not known:
            label = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            missing.setdefault(label, []).append(node.name)
    if missing:
        listing = "; ".join(f"{label} ({_shorten(nodes)})" for label, nodes in missing.items())
        raise ModelError(f"{name}: {len(missing)} unsupported operator{'s' * (len(missing) > 1)}: {listing}")


def _shorten(nodes: list[str]) -> str:
    more = f" and {len(nodes) - NAMES_SHOWN} more" if len(nodes) > NAMES_SHOWN else ""
    return ", ".join(nodes[:NAMES_SHOWN]) + more


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, np.ndarray]]:
    """Name and value of every floating-point tensor stored in the graph."""
    import onnx

    tensors = [(tensor.name, tensor) for tensor in graph.initializer]
    tensors += [
        (node.output[0], attribute.t)
        for node in graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    ]
    floating = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
    for label, tensor in tensors:
        if tensor.data_type in floating:
            yield label, onnx.numpy_helper.to_array(tensor)


def _check_weights(graph: onnx.GraphProto, name: str) -> None:
    """Data of another size than declared is refused, and NaN; infinity where it is a weight (elsewhere it may be a mask
    or an open bound)."""
    import onnx

    weights = {value for node in graph.node if node.op_type in WEIGHTED_OPS for value in node.input}
    for tensor in graph.initializer:
        try:
            onnx.checker.check_tensor(tensor)
        except onnx.checker.ValidationError as error:
            raise ModelError(f"{name}: initializer '{tensor.name}' is damaged: {_first_line(error)}") from error
    for label, value in _constants(graph):
        # A finite sum proves all entries finite and is the cheap test; float64 keeps it from overflowing.
        if np.isfinite(value.sum(dtype=np.float64)):
            continue
        if np.isnan(value.astype(np.float32)).any() or (label in weights and not np.isfinite(value).all()):
            raise ModelError(
                f"{name}: initializer '{label}' holds NaN or infinite values; repair or export the model again"
            )
