"""Networks compiled for processors with AVX-512, run by the C++ runner in the emulator: the same numbers as here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from emulator import bochs
from integer_check import CHEAP, INT8
from small_net import Net

import tvm_ffn
from tvm_ffn import targets
from tvm_ffn.config import FFNConfig

TERNARY = CHEAP.replace(first_layer="ternary", last_layer="ternary")
DIGITS = TERNARY.replace(rank_ratio=None, method="planes", penalty=0.02)
SHAPE = (2, 6, 19, 17)


def network() -> onnx.ModelProto:
    """Residual stages at two sizes, a depthwise layer, groups, poolings and a dense layer."""
    net = Net(image=SHAPE)
    x = net("Relu", net.conv("image", 6, 16, strides=[2, 2]))
    x = net("Relu", net("Add", net.conv(net("Relu", net.conv(x, 16, 16)), 16, 16), x))
    x = net("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = net("Relu", net.conv(net("Relu", net.conv(x, 16, 40, 1)), 40, 40, groups=40))
    x = net("Relu", net("Add", net.conv(net("Relu", net.conv(x, 40, 40, groups=2)), 40, 40, 1), x))
    net.dense(net("Flatten", net("GlobalAveragePool", x)), 40, 10)
    net.nodes[-1].output[0] = "logits"
    return net.model("logits")


@pytest.mark.parametrize("cpu", ["cascadelake", "skylake-avx512"])
@pytest.mark.parametrize(
    "config",
    [TERNARY, DIGITS, DIGITS.replace(optimize="size"), INT8],
    ids=["factors", "planes", "lists-of-digits", "int8"],
)
def test_the_same_numbers(config: FFNConfig, cpu: str, tmp_path: Path) -> None:
    target = f"llvm -mcpu={cpu}"
    if not bochs.runs(targets.parse_target(target)):
        pytest.skip("needs Bochs and Linux: see tests/emulator/bochs.py")
    image = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    given = {"config": config, "calibration": [{"image": image}]}
    (expected,) = tvm_ffn.compile(network(), **given).run({"image": image})
    tvm_ffn.compile(network(), target, **given).save(tmp_path / "net", compress=False)
    image.tofile(tmp_path / "image.bin")
    bochs.machine().run(tmp_path, "exec tvm-ffn-runner net results image=image.bin --repeat 3")
    logits = np.fromfile(tmp_path / "results" / "0.bin", np.float32).reshape(expected.shape)
    np.testing.assert_array_equal(logits, expected)
