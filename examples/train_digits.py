"""Train the small residual CNN of the README on scikit-learn's handwritten digits and write it as ONNX.

    pip install torch scikit-learn
    python examples/train_digits.py

The results are in the repository, so this is only needed to change the model. PyTorch does the training; the ONNX graph
is written node by node from the trained arrays, BatchNorm kept as nodes of its own so that folding them is part of
compiling the model. The 8x8 images are enlarged to 16x16 by repeating pixels and scaled to [0, 1]. Files written beside
this script:

- ``digits.onnx``: input ``image`` (N, 1, 16, 16) float32, output ``logits`` (N, 10) float32;
- ``digits_calibration.npz``: 256 unlabelled training images, as ``image``;
- ``digits_test.npz``: the 360 test images, as ``image``; ``digits_labels.csv``: their digits, in a column ``label``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

HERE = Path(__file__).parent
SEED = 0
EPOCHS = 60
BATCH = 64


class Block(nn.Module):
    """relu(bn(conv(relu(bn(conv(x))))) + shortcut(x)); the shortcut of a strided block is a 1x1 convolution."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.down = nn.Conv2d(channels, out, 1, stride, bias=True) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(y + (x if self.down is None else self.down(x)))


class Net(nn.Module):
    """Stem 3x3 convolution, max pooling, two residual blocks, global average pooling, dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 32, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(32)
        self.block1 = Block(32, 32, 1)
        self.block2 = Block(32, 64, 2)
        self.dense = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.bn(self.stem(x))), 2)
        x = self.block2(self.block1(x))
        return self.dense(x.mean((2, 3)))


def load() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Train images (1437, 1, 16, 16) float32, test images (360, ...), train labels, test labels."""
    data = load_digits()
    images = np.kron(data.images / 16, np.ones((1, 2, 2)))[:, None].astype(np.float32)
    return tuple(train_test_split(images, data.target, test_size=360, stratify=data.target, random_state=SEED))


def shifted(x: Tensor, generator: torch.Generator) -> Tensor:
    """The batch moved by up to two pixels each way, the augmentation of the training set."""
    dy, dx = (int(v) for v in torch.randint(0, 5, (2,), generator=generator))
    return functional.pad(x, (2, 2, 2, 2))[:, :, dy : dy + x.shape[2], dx : dx + x.shape[3]]


def train(images: np.ndarray, labels: np.ndarray) -> Net:
    """Cross entropy, Adam, one-cycle learning rate; the same weights at each call (one thread, fixed seed)."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(SEED)
    net = Net().train()
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    steps = EPOCHS * (len(x) // BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.01)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.005, total_steps=steps)
    for _ in range(EPOCHS):
        order = torch.randperm(len(x), generator=generator)
        for batch in order[: len(x) // BATCH * BATCH].split(BATCH):
            loss = functional.cross_entropy(net(shifted(x[batch], generator)), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
    return net.eval()


class GraphWriter:
    """Collects ONNX nodes and initializers; each method appends one node and returns the name of its output."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        self.weights, self.nodes, self.initializers = weights, [], []

    def constant(self, name: str) -> str:
        self.initializers.append(numpy_helper.from_array(self.weights[name], name))
        return name

    def node(self, op: str, name: str, *inputs: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [name], name, **attributes))
        return name

    def conv(self, x: str, name: str, stride: int = 1) -> str:
        kernel = self.weights[f"{name}.weight"].shape[-1]
        constants = [self.constant(f"{name}.{part}") for part in ("weight", "bias") if f"{name}.{part}" in self.weights]
        pads = [kernel // 2] * 4
        return self.node("Conv", name, x, *constants, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads)

    def batch_norm(self, x: str, name: str) -> str:
        parts = ("weight", "bias", "running_mean", "running_var")
        return self.node(
            "BatchNormalization", name, x, *[self.constant(f"{name}.{part}") for part in parts], epsilon=1e-5
        )

    def relu(self, x: str) -> str:
        return self.node("Relu", f"{x}.relu", x)

    def block(self, x: str, name: str, stride: int) -> str:
        y = self.relu(self.batch_norm(self.conv(x, f"{name}.conv1", stride), f"{name}.bn1"))
        y = self.batch_norm(self.conv(y, f"{name}.conv2"), f"{name}.bn2")
        shortcut = self.conv(x, f"{name}.down", stride) if stride > 1 else x
        return self.relu(self.node("Add", f"{name}.add", y, shortcut))


def to_onnx(net: Net) -> onnx.ModelProto:
    """The trained network as an ONNX model (opset 13, IR 8, symbolic batch ``N``)."""
    graph = GraphWriter({name: value.numpy() for name, value in net.state_dict().items()})
    x = graph.relu(graph.batch_norm(graph.conv("image", "stem"), "bn"))
    x = graph.node("MaxPool", "pool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = graph.block(graph.block(x, "block1", 1), "block2", 2)
    x = graph.node("Flatten", "flatten", graph.node("GlobalAveragePool", "mean", x))
    graph.node("Gemm", "logits", x, graph.constant("dense.weight"), graph.constant("dense.bias"), transB=1)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 16, 16])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])
    onnx_graph = helper.make_graph(graph.nodes, "digits", [image], [logits], graph.initializers)
    model = helper.make_model(onnx_graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    train_images, test_images, train_labels, test_labels = load()
    net = train(train_images, train_labels)
    with torch.no_grad():
        accuracy = (net(torch.from_numpy(test_images)).argmax(1).numpy() == test_labels).mean()
    print(f"test accuracy {accuracy:.2%} of {len(test_labels)}")
    onnx.save(to_onnx(net), HERE / "digits.onnx")
    np.savez_compressed(HERE / "digits_calibration.npz", image=train_images[:256])
    np.savez_compressed(HERE / "digits_test.npz", image=test_images)
    np.savetxt(HERE / "digits_labels.csv", test_labels, "%d", header="label", comments="")


if __name__ == "__main__":
    main()
