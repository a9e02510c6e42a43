"""Ratios of channels and offsets: who has them, who shares them, and that they leave the arithmetic what it was."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import tvm
from tvm import relax

from tests.integer_check import relative_error
from tests.small_net import Net
from tvm_ffn import targets
from tvm_ffn.config import FFNConfig, LayerConfig
from tvm_ffn.interpreter import Interpreter
from tvm_ffn.pipeline import Compilation, run
from tvm_ffn.ranges import INT8_LIMIT, Ranges

INT8 = FFNConfig(layers={"re:.*": LayerConfig(precision="int8")}, calibration_rows=4000)
DATA = np.random.default_rng(0).standard_normal((60, 3, 10, 10)).astype(np.float32)
UNEVEN = np.geomspace(0.08, 1, 8).astype(np.float32)


def uneven(net: Net, x: str, inputs: int) -> str:
    """A convolution whose 8 outputs differ in size by up to 12 times."""
    weight = net.rng.standard_normal((8, inputs, 3, 3)) * UNEVEN[:, None, None, None] / np.sqrt(9 * inputs)
    return str(net("Conv", x, net.const(weight), net.const(0.1 * UNEVEN), pads=[1] * 4, kernel_shape=[3, 3]))


def solved(model: onnx.ModelProto, config: FFNConfig = INT8) -> Compilation:
    return run(Compilation(model, targets.parse_target("llvm"), config, DATA), stop_after="factorize")


def ratios(c: Compilation) -> dict[str, np.ndarray | None]:
    """By the kind and number of the unit that writes a tensor."""
    ranges = c.quantized.ranges
    return {f"{u.kind}{i}": ranges.ratios.get(u.output) for i, u in enumerate(c.network.units)}


def test_tensors_between_layers_have_ratios_that_follow_their_channels() -> None:
    net = Net(1, 3, 10, 10)
    x = net("Relu", uneven(net, "x", 3))
    c = solved(net.model(net.dense(net("Flatten", net("GlobalAveragePool", net.conv(x, 8, 6))), 6, 4)))
    found = ratios(c)["conv2d0"]
    assert found is not None and np.corrcoef(np.log(found), np.log(UNEVEN))[0, 1] > 0.95
    assert c.network.parameters[0] not in c.quantized.ranges.ratios


@pytest.mark.parametrize("axis", [2, -1])
def test_concatenations_of_rows_and_columns_have_none(axis: int) -> None:
    """``torch.roll`` of an image."""
    net = Net(1, 3, 10, 10)
    x = net("Relu", uneven(net, "x", 3))
    axes, cut = net.const(np.array([axis])), net.const(np.array([4]))
    last = net("Slice", x, cut, net.const(np.array([10])), axes)
    rolled = net("Concat", last, net("Slice", x, net.const(np.array([0])), cut, axes), axis=axis)
    c = solved(net.model(net("GlobalAveragePool", net.conv(rolled, 8, 4))))
    assert [unit.kind for unit in c.network.units] == ["conv2d", "view", "view", "concat", "conv2d", "avg_pool2d"]
    assert not c.quantized.ranges.ratios.keys() & {unit.output for unit in c.network.units[:4]}


def test_sums_share_and_concatenations_string_together() -> None:
    net = Net(1, 3, 10, 10)
    stem = net("Relu", uneven(net, "x", 3))
    joined = net("Relu", net("Add", net.conv(stem, 8, 8), stem))
    both = net(
        "Concat",
        net("MaxPool", joined, kernel_shape=[2, 2], strides=[2, 2]),
        net.conv(stem, 8, 5, strides=[2, 2]),
        axis=1,
    )
    c = solved(net.model(net("GlobalAveragePool", net.conv(both, 13, 4))))
    units, found = c.network.units, c.quantized.ranges.ratios
    stem_out, joined_out = units[0].output, next(u for u in units if u.residual is not None).output
    np.testing.assert_array_equal(found[stem_out], found[joined_out])
    concat = next(u for u in units if u.kind == "concat")
    np.testing.assert_array_equal(found[concat.output][:8], found[joined_out])
    np.testing.assert_array_equal(found[concat.output], np.concatenate([found[var] for var in concat.inputs]))


def test_what_others_read_has_none() -> None:
    net = Net(1, 3, 10, 10)
    x = uneven(net, "x", 3)
    model = net.model(
        net.conv(net("Softmax", x, axis=1), 8, 4),
        net.conv(net("Clip", uneven(net, "x", 3), net.const(np.float32(-0.2)), net.const(np.float32(0.3))), 8, 4),
    )
    found = solved(model).quantized.ranges.ratios
    assert not found


@pytest.mark.parametrize("bound", [0.05, 6.0])
def test_every_channel_is_clipped_at_the_activations_bound(bound: float) -> None:
    net = Net(1, 3, 10, 10)
    x = net("Clip", uneven(net, "x", 3), net.const(np.float32(0)), net.const(np.float32(bound)))
    c = solved(net.model(net.conv(x, 8, 6)))
    clipped = c.network.units[0]
    assert clipped.activation.hi == np.float32(bound)
    steps = c.quantized.ranges.channel_steps(clipped.output, 8)
    levels = INT8_LIMIT - c.quantized.ranges.zero(clipped.output)
    assert levels == 254 and np.all(steps * levels <= bound * 1.0001)


def test_equalised_channels_keep_their_small_values() -> None:
    """A channel that is twelve times smaller than the largest is read by a layer that needs it as much."""
    net = Net(1, 3, 10, 10)
    x = net("Relu", uneven(net, "x", 3))
    weight = net.rng.standard_normal((6, 8, 1, 1)) / UNEVEN[:, None, None]
    c = solved(net.model(net("Conv", x, net.const(weight), kernel_shape=[1, 1])))
    assert c.quantized.held_out is not None
    assert max(c.quantized.held_out.relative_error.values()) < 0.03


def test_weights_take_the_ratios_of_their_inputs() -> None:
    net = Net(1, 3, 10, 10)
    x = net("Relu", uneven(net, "x", 3))
    c = solved(net.model(net.conv(x, 8, 8, groups=2)))
    unit = c.network.units[1]
    ratio = np.arange(1, 9, dtype=np.float32)
    scaled = Ranges({}, {unit.inputs[0]: ratio}, {}).weight(unit)
    np.testing.assert_array_equal(scaled[0, :, :9], unit.weight[0, :, :9] * 1)
    np.testing.assert_array_equal(scaled[1, :, 27:36], unit.weight[1, :, 27:36] * 8)


def rectified(net: Net, x: str, slope: float) -> str:
    return str(net("LeakyRelu", x, alpha=slope) if slope else net("Relu", x))


def missed(model: onnx.ModelProto, data: np.ndarray) -> tuple[list[float], list[int]]:
    """Relative errors of the outputs of a module with int8 weights, and the zero points of its tensors."""
    c = run(Compilation(model, targets.parse_target("llvm"), INT8, data))
    expected = Interpreter(c.imported.mod).run({c.imported.mod["main"].params[0].name: data[:2]})
    module = relax.VirtualMachine(c.executable, tvm.cpu())
    results = [module["main"](tvm.runtime.tensor(x[None])) for x in data[:2]]
    parts = [[result] if hasattr(result, "numpy") else list(result) for result in results]
    found = [np.concatenate([part.numpy() for part in output]) for output in zip(*parts, strict=True)]
    errors = [relative_error(have, want) for have, want in zip(found, expected, strict=True)]
    return errors, list(c.quantized.ranges.zeros.values())


@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_offsets_are_taken_up_by_padding_biases_and_residuals(slope: float) -> None:
    """Rectified tensors through padded, strided, grouped and depthwise layers, a residual, a concatenation, a pooling:
    what an offset forgot would show as a large error."""
    net = Net(1, 3, 10, 10)
    stem = rectified(net, net.conv("x", 3, 8), slope)
    inner = rectified(net, net.conv(stem, 8, 8, groups=8), slope)
    block = rectified(net, net("Add", net.conv(inner, 8, 8), stem), slope)
    pooled = net("MaxPool", block, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    joined = net("Concat", pooled, rectified(net, net.conv(block, 8, 4, strides=[2, 2]), slope), axis=1)
    errors, zeros = missed(net.model(net.conv(joined, 12, 6, groups=2)), DATA)
    assert sum(-120 < zero < -40 if slope else zero == -127 for zero in zeros) >= 6
    assert max(errors) < 0.015


@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_offsets_of_inputs_averages_activations_and_outputs(slope: float) -> None:
    """The same for what reads or writes an offset tensor without weights."""
    net = Net(1, 3, 10, 10)
    stem = rectified(net, net.conv("x", 3, 8), slope)
    pads = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    averages = [net("AveragePool", stem, **pads, count_include_pad=include) for include in (0, 1)]
    again = rectified(net, net("MaxPool", rectified(net, net.conv("x", 3, 8), slope), kernel_shape=[1, 1]), 0.5)
    layers = [net.conv(x, 8, 4) for x in (*averages, again)]
    errors, zeros = missed(net.model(*layers, net("GlobalAveragePool", stem), stem), DATA + np.float32(1.5))
    assert sum(-126 < zero < -20 for zero in zeros) >= (5 if slope else 1)
    assert sum(zero != 0 for zero in zeros) >= 7
    assert max(errors) < 0.02


def test_channels_fill_the_negative_and_the_positive_range() -> None:
    """The largest ratio belongs to the channel that fills most of one of the two, not to the largest magnitude."""
    net = Net(1, 3, 10, 10)
    shift = np.array([3, 3, 3, 3, -3, -3, -3, -3], np.float32)
    weight = net.rng.standard_normal((8, 3, 3, 3)) / np.sqrt(27)
    x = net("Conv", "x", net.const(weight), net.const(shift), pads=[1] * 4, kernel_shape=[3, 3])
    c = solved(net.model(net.conv(net("LeakyRelu", x, alpha=0.1), 8, 4)))
    found = ratios(c)["conv2d0"]
    assert found is not None and found.max() / found.min() < 2
    step = c.quantized.ranges.channel_steps(c.network.units[0].output, 8)
    zero = c.quantized.ranges.zero(c.network.units[0].output)
    lowest = 127 + zero
    assert -120 < zero < -90
    assert all(0.3 <= lowest * step[c] <= 1.0 for c in range(4, 8))


def test_silent_channels_are_not_blown_up() -> None:
    net = Net(1, 3, 10, 10)
    weight = net.rng.standard_normal((8, 3, 3, 3)) * np.array([1, 1e-4, 0, 1, 1, 1, 1, 1])[:, None, None, None]
    x = net("Relu", net("Conv", "x", net.const(weight), pads=[1] * 4, kernel_shape=[3, 3]))
    found = ratios(solved(net.model(net.conv(x, 8, 4))))["conv2d0"]
    assert found is not None
    np.testing.assert_allclose(found[1:3], found.max() / 16)


def test_sums_with_bounded_tensors_have_none() -> None:
    """Ratios that fit ReLU6 would clip what it is added to."""
    net = Net(1, 3, 10, 10)
    bounds = [net.const(np.float32(0)), net.const(np.float32(1))]
    x = net("Clip", uneven(net, "x", 3), *bounds)
    total = net("Add", net("MaxPool", x, kernel_shape=[1, 1]), net.conv(x, 8, 8))
    c = solved(net.model(net.conv(total, 8, 4)))
    assert not c.quantized.ranges.ratios
    assert c.quantized.held_out is not None and max(c.quantized.held_out.relative_error.values()) < 0.05


def test_a_bound_of_nothing() -> None:
    net = Net(1, 3, 10, 10)
    x = net("Clip", uneven(net, "x", 3), net.const(np.float32(-3)), net.const(np.float32(0)))
    assert not solved(net.model(net.conv(x, 8, 4))).quantized.ranges.ratios


def test_averaged_tensors_have_none() -> None:
    net = Net(1, 3, 10, 10)
    classes = net("Relu", uneven(net, net("Relu", uneven(net, "x", 3)), 8))
    c = solved(net.model(net("GlobalAveragePool", classes)))
    assert [layer.output in c.quantized.ranges.ratios for layer in c.network.linear] == [True, False]


def test_who_may_not_have_an_offset() -> None:
    """What zeros are padded to, what is added to without a layer, and what a product of two stages reads."""
    net = Net(1, 3, 10, 10)
    read, padded, added = (net("Relu", net.conv("x", 3, 8)) for _ in range(3))
    padding = net("Pad", padded, net.const([0, 0, 1, 1, 0, 0, 1, 1]))
    total = net("Add", net("MaxPool", added, kernel_shape=[1, 1]), net("MaxPool", added, kernel_shape=[1, 1]))
    model = net.model(net.conv(read, 8, 4), net.conv(padding, 8, 4), net.conv(total, 8, 4))
    c = solved(model)
    first = [unit for unit in c.network.linear if unit.activation.lo == 0.0]
    assert [c.quantized.ranges.zero(unit.output) for unit in first] == [-127, 0, 0]
    two_stages = solved(net.model(net.conv(read, 8, 4)), FFNConfig(rank_ratio=1.0, last_layer="ternary"))
    assert two_stages.quantized.ranges.zero(two_stages.network.units[0].output) == 0
