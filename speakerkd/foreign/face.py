"""Face images through a face network in ONNX: prepares the images, computes vectors, combines several vectors into one."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from speakerkd.conf import opt
from speakerkd.verify.onnxsession import open_session


@dataclass(frozen=True)
class FaceConf:
    """What the network takes: (value - mean) · scale, for values from 0 to 255. The defaults are those of ArcFace."""

    size: int = opt(112, "height and width of the network's input in pixels; other images are cut square and scaled")
    colors: str = opt("rgb", "order of the colours: rgb or bgr")
    layout: str = opt("nchw", "layout of the input: nchw or nhwc")
    mean: tuple[float, ...] = opt((127.5,), "value to subtract: one, or one per colour in the network's order")
    scale: tuple[float, ...] = opt((1 / 127.5,), "factor after the subtraction: one, or one per colour")
    output: str = opt("", "name of the network's output that is the vector; empty: the first output")

    def __post_init__(self) -> None:
        if self.colors not in ("rgb", "bgr") or self.layout not in ("nchw", "nhwc") or self.size < 1:
            raise ValueError("--colors must be rgb or bgr, --layout nchw or nhwc, --size 1 or more")
        if {len(self.mean), len(self.scale)} - {1, 3}:
            raise ValueError("--mean and --scale must be one number, or three")


class ImageError(ValueError):
    """An error that concerns one image; the others are not affected."""


def need_packages() -> None:
    missing = [
        name for name, module in (("pillow", "PIL"), ("onnxruntime", "onnxruntime")) if find_spec(module) is None
    ]
    if missing:
        raise ValueError(f"faces need {' and '.join(missing)}, which is not installed: tools/setup.sh --extras face")


def read_image(path: str | Path, conf: FaceConf) -> np.ndarray:
    """(3, size, size) or (size, size, 3), float32, as the network takes it."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file).convert("RGB")
    # Pillow raises SyntaxError for some broken PNGs; a decompression bomb is an image with too many pixels
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or str(error).replace(str(path), "it") or type(error).__name__
        raise ImageError(f"can't be read ({reason})") from error
    if image.size != (conf.size, conf.size):
        image = ImageOps.fit(image, (conf.size, conf.size), Image.Resampling.BILINEAR)
    pixels = np.asarray(image, np.float32)  # (H, W, 3)
    if conf.colors == "bgr":
        pixels = pixels[..., ::-1]
    pixels = (pixels - np.asarray(conf.mean, np.float32)) * np.asarray(conf.scale, np.float32)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1) if conf.layout == "nchw" else pixels)


class FaceNet:
    """The face network: images (B, ...) -> vectors (B, D)."""

    def __init__(self, path: str | Path, conf: FaceConf, device: str = "cpu", threads: int = 1) -> None:
        self.session = open_session(path, threads, device)
        self.path, self.conf = path, conf
        (self.input, *others) = self.session.get_inputs()
        names = [each.name for each in self.session.get_outputs()]
        if others or self.input.type != "tensor(float)":
            raise ValueError(
                f"{path}: takes {1 + len(others)} input(s), {self.input.type}; one of float images is needed"
            )
        if conf.output and conf.output not in names:
            raise ValueError(f"{path}: has no output '{conf.output}' (there are: {' '.join(names)})")
        self.output = conf.output or names[0]
        self.check_shape()
        self.dim = self(np.zeros((1, *self.wanted), np.float32)).shape[1]

    @property
    def wanted(self) -> tuple[int, int, int]:
        size = self.conf.size
        return (3, size, size) if self.conf.layout == "nchw" else (size, size, 3)

    def check_shape(self) -> None:
        shape = self.input.shape  # a name or None: any number is allowed
        fixed = [want == have for want, have in zip(self.wanted, shape[1:], strict=False) if isinstance(have, int)]
        if len(shape) != 4 or not all(fixed):
            raise ValueError(
                f"{self.path}: takes images of shape {shape}, not {self.wanted}; say so with --size and --layout in the "
                "file of --face-config"
            )

    def __call__(self, images: np.ndarray) -> np.ndarray:
        count = self.input.shape[0] if isinstance(self.input.shape[0], int) else len(images)
        vectors = []
        for start in range(0, len(images), count):  # some networks take only a fixed number of images
            part = images[start : start + count]
            blank = np.zeros((count - len(part), *part.shape[1:]), np.float32)
            try:
                (found,) = self.session.run([self.output], {self.input.name: np.concatenate([part, blank])})
            except Exception as error:  # as above
                raise ValueError(
                    f"{self.path}: doesn't take images of shape {self.wanted} ({error}); say what it takes with --size and "
                    "--layout in the file of --face-config"
                ) from error
            if len(found) != count:
                raise ValueError(
                    f"{self.path}: gives {found.shape} for {count} images; choose --output in --face-config"
                )
            vectors.append(np.asarray(found, np.float32).reshape(count, -1)[: len(part)])
        return np.concatenate(vectors)


def pool(vectors: Sequence[np.ndarray], qualities: Sequence[float]) -> tuple[np.ndarray, float]:
    """Combines several images of a person into one vector and one quality. A single image keeps its own.

    The vector is the mean of the unit vectors, times the mean of their lengths, both weighted by quality. So images that
    disagree give a shorter vector. The quality is the plain mean.
    """
    stacked, weights = np.stack(vectors).astype(np.float64), np.asarray(qualities, np.float64)
    weights = weights / weights.sum() if weights.sum() > 0 else np.full(len(weights), 1 / len(weights))
    lengths = np.linalg.norm(stacked, axis=1)
    direction = weights @ (stacked / lengths[:, None])
    return (direction * (weights @ lengths)).astype(np.float32), float(np.mean(qualities))
