"""Calibration data: every kind of source, restarts, limits, image preprocessing, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tvm_ffn.calibration import Calibration, Preprocess, open_calibration
from tvm_ffn.errors import ConfigError, DataError
from tvm_ffn.manifest import TensorInfo

IMAGES = (TensorInfo("image", (1, 3, 32, 48), "float32"),)
VECTORS = (TensorInfo("x", ("N", 5), "float32"),)
PAIR = (TensorInfo("a", ("N", 2), "float32"), TensorInfo("b", ("N", 3), "int64"))
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def vectors(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 5)).astype(np.float32)


def save_image(path: Path, height: int, width: int, mode: str = "RGB") -> np.ndarray:
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    pixels = np.random.default_rng(len(path.name)).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def joined(calibration: Calibration, name: str) -> np.ndarray:
    return np.concatenate([batch[name] for batch in calibration])


def test_array_in_batches_again_and_again() -> None:
    data = vectors(40)
    calibration = open_calibration(data, VECTORS, batch_size=16)
    assert len(calibration) == 40 and [len(batch["x"]) for batch in calibration] == [16, 16, 8]
    for _ in range(2):
        np.testing.assert_array_equal(joined(calibration, "x"), data)
    assert calibration.preprocess is None and not calibration.is_synthetic


@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_files(tmp_path: Path, suffix: str) -> None:
    data = vectors(7)
    path = tmp_path / f"data.{suffix}"
    np.save(path, data) if suffix == "npy" else np.savez(path, x=data, label=np.arange(7))
    calibration = open_calibration(str(path), VECTORS, limit=5)
    np.testing.assert_array_equal(joined(calibration, "x"), data[:5])
    assert len(calibration) == 5 and path.name in calibration.description


def test_list_of_batches_and_two_inputs() -> None:
    batches = [{"a": np.full((3, 2), i, np.float32), "b": np.full((3, 3), i)} for i in range(4)]
    calibration = open_calibration(batches, PAIR, limit=7, batch_size=2)
    assert len(calibration) == 7 and [len(batch["a"]) for batch in calibration] == [2, 1, 2, 1, 1]
    np.testing.assert_array_equal(joined(calibration, "b")[:, 0], [0, 0, 0, 1, 1, 1, 2])
    np.testing.assert_array_equal(joined(calibration, "a")[:, 0], joined(calibration, "b")[:, 0])


def test_one_shot_generator_is_kept_and_read_no_further_than_needed() -> None:
    read = []

    def generate() -> Iterator[dict[str, np.ndarray]]:
        for index in range(100):
            read.append(index)
            yield {"x": vectors(4, index)}

    calibration = open_calibration(generate(), VECTORS, limit=10)
    expected = np.concatenate([vectors(4, index) for index in range(3)])[:10]
    for _ in range(2):
        np.testing.assert_array_equal(joined(calibration, "x"), expected)
    assert len(calibration) == 10 and read == [0, 1, 2]


def test_fixed_batch_is_kept_whole() -> None:
    inputs = (TensorInfo("x", (4, 5), "float32"),)
    calibration = open_calibration(vectors(11), inputs, batch_size=16)
    assert len(calibration) == 8 and [len(batch["x"]) for batch in calibration] == [4, 4]
    assert len(Calibration.synthetic(inputs, 6, 0)) == 8


def test_synthetic_is_marked_and_repeats() -> None:
    calibration = Calibration.synthetic(PAIR, 20, seed=3)
    np.testing.assert_array_equal(joined(calibration, "a"), joined(calibration, "a"))
    assert len(calibration) == 20 and calibration.is_synthetic and "synthetic" in calibration.description
    assert joined(calibration, "b").dtype == np.int64


def test_opened_calibration_is_taken_as_it_is() -> None:
    calibration = Calibration.synthetic(VECTORS, 2)
    assert open_calibration(calibration, VECTORS) is calibration


def test_images_of_the_right_size_are_only_normalised(tmp_path: Path) -> None:
    pixels = [save_image(tmp_path / name, 32, 48) for name in ("b.png", "aa.png")]
    (tmp_path / "notes.txt").write_text("no image")
    calibration = open_calibration(tmp_path, IMAGES)
    values = joined(calibration, "image")
    for value, image in zip(values, pixels[::-1], strict=True):  # by name
        np.testing.assert_allclose(value, ((image / 255 - MEAN) / STD).transpose(2, 0, 1), atol=1e-5)
    assert values.dtype == np.float32 and values.shape == (2, 3, 32, 48)
    assert calibration.preprocess == Preprocess((32, 48), tuple(MEAN), tuple(STD), "NCHW", 1 / 255, "RGB")


def test_other_images_are_resized_and_cropped(tmp_path: Path) -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, 32:] = 255
    Image.fromarray(image).save(tmp_path / "half.png")
    inputs = (TensorInfo("image", (1, 3, 28, 28), "float32"),)
    plain = Preprocess.from_json({"mean": 0, "std": [1, 1, 1]})
    (batch,) = open_calibration(tmp_path, inputs, preprocess=plain)
    assert batch["image"].shape == (1, 3, 28, 28)
    np.testing.assert_allclose(batch["image"][0, :, :, :12], 0)
    np.testing.assert_allclose(batch["image"][0, :, :, -12:], 1, rtol=1e-6)


def test_gray_bgr_and_channels_last(tmp_path: Path) -> None:
    pixels = save_image(tmp_path / "digit.png", 8, 8, "L")
    gray = open_calibration(tmp_path, (TensorInfo("x", ("N", 1, 8, 8), "float32"),))
    np.testing.assert_allclose(joined(gray, "x")[0, 0], pixels / 255, rtol=1e-6)
    colours = save_image(tmp_path / "digit.png", 8, 8)
    bgr = Preprocess.from_json({"mean": [0, 0, 0], "std": [1, 1, 1], "channels": "BGR"})
    last = open_calibration(tmp_path, (TensorInfo("x", (1, 8, 8, 3), "float32"),), preprocess=bgr)
    np.testing.assert_allclose(joined(last, "x")[0], colours[:, :, ::-1] / 255, rtol=1e-6)


def test_preprocess_through_json() -> None:
    preprocess = Preprocess().for_input(IMAGES[0])
    assert Preprocess.from_json(preprocess.to_json()) == preprocess
    assert Preprocess.from_json({"size": 224}).size == (224, 224)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"meen": 0}, "mean"),
        ({"std": [1, 0, 1]}, "not 0"),
        ({"mean": "much"}, "numbers"),
        ({"layout": "HWC"}, "NCHW"),
        ({"channels": "CMYK"}, "CMYK"),
        ({"size": [0, 4]}, "positive"),
    ],
)
def test_impossible_preprocessing(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Preprocess.from_json(values)


def nan() -> np.ndarray:
    data = vectors(4)
    data[2, 1] = np.nan
    return data


@pytest.mark.parametrize(
    ("source", "inputs", "message"),
    [
        (None, VECTORS, "folder of images"),
        (3, VECTORS, "int"),
        ("nowhere.npz", VECTORS, "nowhere.npz"),
        (vectors(0), VECTORS, "no samples"),
        ([], VECTORS, "empty"),
        ([vectors(2)], VECTORS, "batch 0 is ndarray"),
        ({"y": vectors(2)}, VECTORS, "input 'x'; it holds y"),
        ([{"x": vectors(2)}, {"x": vectors(2).astype(np.float64)}], VECTORS, "batch 1: array 'x' is float64"),
        (vectors(2)[:, :4], VECTORS, r"shape \(2, 4\), the model takes \(samples, 5\)"),
        (nan(), VECTORS, "'x' holds NaN"),
        (np.float32(-1e30) * np.eye(5, dtype=np.float32), VECTORS, r"'x' holds values of magnitude 1e\+30"),
        (vectors(2), PAIR, "one array for 2 inputs"),
        ({"a": np.zeros((2, 2), np.float32), "b": np.zeros((3, 3), np.int64)}, PAIR, "differ"),
    ],
)
def test_what_is_refused(source: Any, inputs: tuple[TensorInfo, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_calibration(source, inputs)


def test_samples_that_are_all_the_same() -> None:
    zeros = np.zeros((40, 5), np.float32)
    assert open_calibration(zeros, VECTORS).is_uniform
    zeros[39, 4] = 1
    assert not open_calibration(zeros, VECTORS).is_uniform
    assert not open_calibration(zeros[:1], VECTORS).is_uniform


def test_bad_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("not arrays")
    with pytest.raises(DataError, match=r"text\.npz: damaged"):
        open_calibration(tmp_path / "text.npz", VECTORS)
    np.savez(tmp_path / "objects.npz", x=np.array([vectors(1), None], object))
    with pytest.raises(DataError, match=r"objects\.npz: arrays of objects are not accepted"):
        open_calibration(tmp_path / "objects.npz", VECTORS)
    np.savez(tmp_path / "nan.npz", x=nan())
    with pytest.raises(DataError, match=r"nan\.npz: array 'x'"):
        open_calibration(tmp_path / "nan.npz", VECTORS)
    with pytest.raises(DataError, match="limit"):
        open_calibration(vectors(2), VECTORS, limit=0)


def test_bad_image_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images"):
        open_calibration(tmp_path, IMAGES)
    save_image(tmp_path / "a.png", 32, 48)
    with pytest.raises(DataError, match="rank 4"):
        open_calibration(tmp_path, VECTORS)
    with pytest.raises(DataError, match="one input"):
        open_calibration(tmp_path, PAIR)
    with pytest.raises(DataError, match=r"images of \(8, 8\)"):
        open_calibration(tmp_path, IMAGES, preprocess=Preprocess(size=(8, 8)))
    (tmp_path / "b.jpg").write_bytes(b"\xff\xd8 cut")
    with pytest.raises(DataError, match=r"b\.jpg"):
        list(open_calibration(tmp_path, IMAGES))


def test_the_shared_images(shared_data: Callable[[str], Path]) -> None:
    inputs = (TensorInfo("input", (1, 3, 224, 224), "float32"),)
    calibration = open_calibration(shared_data("images/calibration"), inputs, limit=20)
    values = joined(calibration, "input")
    assert values.shape == (20, 3, 224, 224) and abs(values.mean()) < 0.5 and 0.7 < values.std() < 1.5


def test_the_first_samples_of_some() -> None:
    whole = open_calibration(vectors(40), VECTORS, batch_size=16)
    part = whole.first(21)
    assert len(part) == 21 and "first 21 of" in part.description
    for _ in range(2):
        np.testing.assert_array_equal(np.concatenate([batch["x"] for batch in part]), vectors(40)[:21])
    assert len(whole.first(99)) == 40 and sum(len(batch["x"]) for batch in whole.first(99)) == 40
