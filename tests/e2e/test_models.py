"""Whole models through the compiler: equal to the oracle, near fp32, integer from the first to the last layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from integer_check import CHEAP, INT8, Built, build
from small_net import Net

import tvm_ffn
from benchmarks.models import LIGHT, light_model, load_onnx, mlp, transformer_block
from tvm_ffn.calibration import open_calibration
from tvm_ffn.importer import load_model

Shared = Callable[[str], Path]
FAST = ("mlp", "transformer_block", "models/lenet_mnist", "models/cifar10_resnet20")
REAL = (
    "models/darknet_tiny", "models/squeezenet1_1", "models/mobilenet_v2", "models/resnet18",
    "models_misc/superres_core_224", "models_misc/yunet_n_320_320", "models_misc/mobilenet_v2_qdq_int8_lanznx",
)  # fmt: skip
SLOW = (*REAL, *LIGHT)
NORMALISATION = {"multiply", "nn.pad", "strided_slice", "add", "sqrt", "divide"}
ISLANDS = {  # operators on fp32 between integer layers; everything else there is integer
    "transformer_block": {
        "mean", "subtract", "power", "add", "sqrt", "divide", "multiply", "matmul", "nn.softmax", "permute_dims",
    },
    "bvlc_alexnet": NORMALISATION,
    "inception_v1": NORMALISATION,
    "zfnet512": NORMALISATION,
}  # fmt: skip
OUTSIDE = {"reshape", "permute_dims", "sigmoid", "clip"}  # of inputs and results
LARGE_DENSE = {"bvlc_alexnet": 0.02, "zfnet512": 0.02, "vgg19": 0.02}  # rank ratio: minutes each at a real one


def get(name: str, shared: Shared) -> onnx.ModelProto:
    if "/" in name:
        return load_onnx(shared(f"{name}.onnx.gz" if name.endswith("resnet18") else f"{name}.onnx"))
    built = {"mlp": mlp, "transformer_block": transformer_block}
    return built[name]() if name in built else light_model(name)


def data(model: onnx.ModelProto, shared: Shared, samples: int) -> dict[str, np.ndarray] | None:
    """Photographs where the model takes them, else None: noise."""
    inputs = load_model(model).inputs
    if inputs[0].shape[1:] != (3, 224, 224):
        return None
    batches = list(open_calibration(shared("images/calibration"), inputs, limit=samples))
    return {info.name: np.concatenate([batch[info.name] for batch in batches]) for info in inputs}


def check(name: str, built: Built) -> None:
    assert set(built.float_operators) <= ISLANDS.get(name, set()) | OUTSIDE
    if name not in ISLANDS:
        quantized = [kernel for kernel in built.kernels if kernel in ("quantize", "dequantize")]
        assert quantized == ["quantize"] * len(built.inputs)
        layers = [i for i, (_, kernel, _) in enumerate(built.calls) if kernel.startswith(("ternary", "int8_"))]
        last = layers[-1] if len(built.outputs) == 1 else layers[0]  # several outputs: the heads come one by one
        for _, kernel, dtype in built.calls[layers[0] : last]:
            assert dtype == "int8" or (dtype == "int16" and kernel.endswith("conv2d"))
    for result, expected in zip(built.outputs, built.oracle, strict=True):
        if "sigmoid" in built.float_operators or name in ISLANDS:
            np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
        else:
            np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("name", FAST)
def test_model(name: str, shared_data: Shared) -> None:
    check(name, build(get(name, shared_data), CHEAP))


@pytest.mark.parametrize("name", FAST)
def test_model_in_int8(name: str, shared_data: Shared) -> None:
    """Without factorising what is left is the integer graph's own error."""
    built = build(get(name, shared_data), INT8)
    check(name, built)
    assert max(built.errors) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_large_model(name: str, shared_data: Shared) -> None:
    model = get(name, shared_data)
    config = CHEAP.replace(rank_ratio=LARGE_DENSE.get(name, 0.5))
    check(name, build(model, config, data(model, shared_data, 4), runs=2))


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_large_model_in_int8(name: str, shared_data: Shared) -> None:
    model = get(name, shared_data)
    built = build(model, INT8, data(model, shared_data, 8), runs=2)
    check(name, built)
    # Depthwise layers amplify the rounding of uneven channels; the objectness of noise is all but zero.
    limits = {"mobilenet": 0.4, "yunet": 0.6}
    assert max(built.errors) < next((limit for part, limit in limits.items() if part in name), 0.05)


def test_compiled_module(shared_data: Shared) -> None:
    """The public way gives what the checks above looked at, for any batch."""
    model = get("models/cifar10_resnet20", shared_data)
    built = build(model, CHEAP)
    rng = np.random.default_rng(1)
    images = rng.standard_normal((24, 3, 32, 32)).astype(np.float32)
    module = tvm_ffn.compile(model, config=CHEAP, calibration=images)
    (name,) = built.inputs
    (logits,) = module.run({name: images[:3]})
    assert logits.shape == (3, 10)
    np.testing.assert_array_equal(logits[:1], built.outputs[0])
    assert [row["name"] for row in module.report.to_json()["layers"]] == [row.name for row in built.report.layers]


def test_the_report_knows_the_order_of_calls() -> None:
    """A layer that adds a residual runs after the layer that makes it, wherever their nodes stand."""
    net = Net(1, 4, 8, 8)
    stem = net("Relu", net.conv("x", 4, 6))
    main = net.conv(net("Relu", net.conv(stem, 6, 6)), 6, 6)
    model = net.model(net.conv(net("Relu", net("Add", main, net.conv(stem, 6, 6, 1))), 6, 4))
    images = np.random.default_rng(0).standard_normal((40, 4, 8, 8), np.float32)
    module = tvm_ffn.compile(model, calibration=images)
    called = [name.rstrip("0123456789") for name, _ in module.trace({module.inputs[0].name: images[:1]})]
    rows = sorted(module.report.layers, key=lambda row: row.call)
    assert [name for name in called if name.endswith("conv2d")] == [f"{row.kind}_conv2d" for row in rows]
    assert [row.shape[2] for row in rows] == [3, 3, 1, 3, 3]
    assert [row.shape[2] for row in module.report.layers] == [3, 3, 3, 1, 3]
