"""From an image file to a model's input: resize, centre crop, scale, normalise.

    y = (scale * x - mean) / std     for each channel of the 8-bit image x

An image that already has the model's size is taken as it is; any other is resized (bilinear, antialiased) until it
covers 256/224 of that size and cropped in the centre, as torchvision evaluates ImageNet models. Three-channel inputs
default to ImageNet's mean and std, one-channel inputs are gray and only scaled to 0..1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tvm_ffn.errors import ConfigError, DataError
from tvm_ffn.manifest import TensorInfo
from tvm_ffn.suggest import did_you_mean

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CROP = 256 / 224
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".gif", ".tif", ".tiff"})
COLOURS = {"RGB": 3, "BGR": 3, "L": 1}


@dataclass(frozen=True)
class Preprocess:
    """How images become inputs; what is None follows from the model's input (``for_input``)."""

    size: tuple[int, int] | None = None  # height, width
    mean: tuple[float, ...] | None = None  # per channel, of scaled values
    std: tuple[float, ...] | None = None
    layout: str | None = None  # NCHW or NHWC
    scale: float = 1 / 255
    channels: str | None = None  # RGB, BGR or L (gray)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Preprocess:
        """Build from a JSON object; an unknown key or an impossible value is a ConfigError."""
        fields = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in fields:
                raise ConfigError(
                    f"unknown preprocessing key {key!r}{did_you_mean(key, fields)}; known: {', '.join(fields)}"
                )
        given = {key: value for key, value in values.items() if value is not None}
        try:
            if "size" in given:
                size = given["size"]
                height, width = (size, size) if isinstance(size, int) else size if len(size) == 2 else (*size, *size)
                given["size"] = (int(height), int(width))
            for key in ("mean", "std"):
                if key in given:
                    numbers = given[key] if isinstance(given[key], (list, tuple)) else [given[key]]
                    given[key] = tuple(float(number) for number in numbers)
            given["scale"] = float(given.get("scale", cls.scale))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"preprocessing: size is [height, width], mean and std are numbers: {error}") from error
        result = cls(**given)
        result._check()
        return result

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict."""
        values = dataclasses.asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    def for_input(self, info: TensorInfo) -> Preprocess:
        """Fill in what is None from the model's input; DataError if images do not fit it."""
        shape = info.shape
        if len(shape) != 4 or info.dtype != "float32" or any(isinstance(dim, str) for dim in shape[1:]):
            raise DataError(f"images need a float32 input of rank 4, the model takes {info}; give an .npz file")
        layout = self.layout or ("NHWC" if shape[1] not in (1, 3) and shape[3] in (1, 3) else "NCHW")
        depth, height, width = (int(dim) for dim in ((shape[3], *shape[1:3]) if layout == "NHWC" else shape[1:]))
        channels = self.channels or ("L" if depth == 1 else "RGB")
        if COLOURS[channels] != depth:
            raise DataError(f"{channels} images in layout {layout} do not fit the input {info}; give an .npz file")
        if self.size not in (None, (height, width)):
            raise DataError(f"preprocessing gives images of {self.size}, the model takes {info}")
        colour = depth == 3
        mean = self.mean or (IMAGENET_MEAN if colour else (0.0,))
        std = self.std or (IMAGENET_STD if colour else (1.0,))
        for key, numbers in (("mean", mean), ("std", std)):
            if len(numbers) not in (1, depth):
                raise DataError(f"preprocessing has {len(numbers)} values of {key} for {depth} channels")
        return dataclasses.replace(
            self,
            size=(height, width),
            mean=_repeat(mean, depth),
            std=_repeat(std, depth),
            layout=layout,
            channels=channels,
        )

    def load(self, path: Path) -> np.ndarray:
        """Decode one image to uint8 (height, width, channels) of the final size; ``self`` must be complete."""
        from PIL import Image

        if self.size is None or self.channels is None:
            raise ConfigError("the preprocessing has no size yet: complete it with for_input")
        height, width = self.size
        try:
            with Image.open(path) as opened:
                image = opened.convert("L" if self.channels == "L" else "RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f"{path}: no readable image: {error}") from error
        if image.size != (width, height):
            factor = max(height * CROP / image.height, width * CROP / image.width)
            image = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BILINEAR)
            left, top = (image.width - width) // 2, (image.height - height) // 2
            image = image.crop((left, top, left + width, top + height))
        pixels = np.asarray(image).reshape(height, width, -1)
        return pixels[:, :, ::-1] if self.channels == "BGR" else pixels

    def normalize(self, pixels: np.ndarray) -> np.ndarray:
        """Turn uint8 images (n, height, width, channels) into float32 inputs in ``layout``."""
        mean, std = np.asarray(self.mean, np.float64), np.asarray(self.std, np.float64)
        values = pixels * (self.scale / std).astype(np.float32) - (mean / std).astype(np.float32)
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2)) if self.layout == "NCHW" else values

    def _check(self) -> None:
        if self.size is not None and min(self.size) < 1:
            raise ConfigError(f"preprocessing: size {self.size} is not positive")
        if self.layout not in (None, "NCHW", "NHWC"):
            raise ConfigError(f"preprocessing: layout {self.layout!r} is neither NCHW nor NHWC")
        if self.channels not in (None, *COLOURS):
            raise ConfigError(f"preprocessing: channels {self.channels!r} is none of {', '.join(COLOURS)}")
        if not np.isfinite([self.scale, *(self.mean or ()), *(self.std or ())]).all() or 0.0 in (
            self.scale,
            *(self.std or ()),
        ):
            raise ConfigError("preprocessing: scale, mean and std must be finite, scale and std not 0")


def image_files(folder: Path) -> list[Path]:
    """The images of a folder, by name."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())


def _repeat(numbers: tuple[float, ...], depth: int) -> tuple[float, ...]:
    return numbers * depth if len(numbers) == 1 else numbers
