"""StylePredictor: a network for the style of any painting, without training."""

from __future__ import annotations

import functools
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fststyle import palette
from fststyle.checks import check_name
from fststyle.images import SUFFIXES, check_style_sides, read_picture, write_atomically
from fststyle.inference.openvino import compiled
from fststyle.inference.options import median_of
from fststyle.inference.prediction import colour_statistics, predictor_graphs
from fststyle.kuwahara import RADIUS
from fststyle.model_file import find_model_file, load_model_file, read_metadata, trunk_files, write_tensors
from fststyle.resources import cache_folder, file_sha256, printable, user_path
from fststyle.tensor_files import style_sizes

if TYPE_CHECKING:
    from torch import Tensor

    from fststyle.networks.transform import TransformNet

#: The network that is used when none is named.
DEFAULT = "any"
#: Longer side to which a painting is brought, pixels: strokes get the size that they have there.
SIZE = 512
#: Longer side of a picture from which a predicted style's strokes grow, pixels; so they are 1.5 times as large at 700.
GROW_FROM = 320


class StylePredictor:
    """``predictor(painting) -> network``: what a painting's style has of its own is predicted (Ghiasi et al. 2017).

    It runs on OpenVINO, and PyTorch is imported for the network alone.

    Args:
        path: a model file of kind ``arbitrary``.

    Raises:
        DeviceError: OpenVINO is not installed.
        ModelFileError: its encoder and its network do not fit each other.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._predict, self._paint = (compiled(graph, self.path) for graph in predictor_graphs(self.path))
        self.metadata = read_metadata(path)
        arguments = self.metadata["network"]["arguments"]
        self.arguments = {key: arguments[key] for key in ("width", "residual_blocks")} | {"colors": True}

    @classmethod
    def from_checkpoint(cls, name_or_path: str | os.PathLike[str] = DEFAULT) -> StylePredictor:
        """Load a bundled network by name, or a model file of kind ``arbitrary``.

        Raises:
            DeviceError, ModelFileError: unknown name, no sound model file, or one of another kind; as the constructor.
        """
        return cls(find_model_file(name_or_path, "arbitrary"))

    def parameters(self, painting: np.ndarray) -> dict[str, np.ndarray]:
        """What the style of a painting, float32 (1, 3, H, W) in [0, 1], has of its own in a ``TransformNet``, by name.

        Scales and shifts of its norms are predicted. Predictions are a little off for paintings unlike those of the
        training, and wrong colours are what shows first: so the 12 numbers of the colour transform are bent until the
        network's colours are distributed as the painting's; noise takes the place of photographs (``palette``).
        """
        painting = np.ascontiguousarray(painting, np.float32)
        colours = painting[0].reshape(3, -1)
        sizes = style_sizes(self.arguments["width"], self.arguments["residual_blocks"])
        flat = self._predict([painting, colour_statistics(colours)])[0][0]
        own = dict(zip(sizes, np.split(flat, np.cumsum(list(sizes.values()))[:-1]), strict=True))
        noise = palette.noise().transpose(0, 3, 1, 2).astype(np.float32) / 255
        made = self._paint([noise, np.append(flat, np.float32(0))[None]])[0].clip(1e-6, 1 - 1e-6)
        matrix, shift = palette.fitted(np.log(made / (1 - made)), colours)
        own["colors.bias"] = (matrix @ own["colors.bias"][:, None] + shift)[:, 0]
        own["colors.weight"] = (matrix @ own["colors.weight"].reshape(3, 3)).reshape(-1)
        return own

    def __call__(self, painting: Tensor) -> TransformNet:
        """A network for the style of a painting (1, 3, H, W), RGB in [0, 1], H and W ≥ 16; it ends with a filter."""
        import torch

        own = {name: torch.from_numpy(value) for name, value in self.parameters(painting.cpu().numpy()).items()}
        return self._network.of_style(own).with_kuwahara(RADIUS)  # type: ignore[no-any-return]

    @functools.cached_property
    def _network(self) -> Any:
        return load_model_file(self.path, "arbitrary").network

    def save(self, painting: str | os.PathLike[str], path: str | os.PathLike[str], size: int | None = SIZE) -> None:
        """Write a model file of a painting's style: its norms and colours; the convolutions are in the predictor's.

        A 3×3 median filter takes from the painting the grain of canvas and print, which areas would be woven with.

        Args:
            painting: a picture's file, whose stem names the style.
            path: the file to write.
            size: pixels of the painting's longer side; None: as it is.

        Raises:
            ImageError, OSError: a picture that cannot be used, a file that cannot be written.
        """
        painting = Path(painting)
        rgb = median_of(read_picture(painting, size, trim=True).rgb)
        check_style_sides(painting)
        own = self.parameters(rgb.transpose(2, 0, 1)[None].astype(np.float32) / 255)
        arguments = {**self.arguments, "kuwahara": RADIUS}
        network = {"class": "TransformNet", "arguments": arguments, "dtype": "float16", "norms_only": True}
        metadata: dict[str, Any] = {
            "kind": "style",
            "name": check_name(printable(painting.stem), "the picture's name"),
            "style": {"image": printable(painting.name), "sha256": file_sha256(painting), "size": size},
            "encoder": self.metadata.get("encoder"),
            "init_from": {key: self.metadata.get(key) for key in ("name", "command", "steps", "images", "init_from")},
            **{key: self.metadata[key] for key in ("octaves", "variation") if key in self.metadata},
            "grow_from": GROW_FROM,
            **{"predicted": True, "created": datetime.now(UTC).strftime("%Y-%m-%d"), "licence": "Apache-2.0"},
            **{"network": network, "trunk": self.metadata["trunk"]},
        }
        write_tensors(path, {f"network.{name}": value.astype(np.float16) for name, value in own.items()}, metadata)


def predicted_style(painting: str | os.PathLike[str], model: str = DEFAULT, size: int = SIZE) -> Path:
    """The model file of a painting's style, in the user's cache folder; it is made where it is not there yet.

    Raises:
        as ``StylePredictor.save``.
    """
    painting = user_path(painting)
    file = find_model_file(model, "arbitrary")
    sha256 = file_sha256(file)
    key = f"{sha256[:12]}-{file_sha256(painting)[:20]}-{size}-{RADIUS:g}"
    path = cache_folder("predicted") / key / f"{printable(painting.stem)}.safetensors"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        _predictor(file, sha256).save(painting, path, size)
    trunk = path.with_name(f"{sha256}.safetensors")
    if file not in trunk_files() and not trunk.is_file():  # no bundled file has the style's convolutions
        write_atomically(trunk, lambda written: written.write(file.read_bytes()))
    return path


@functools.lru_cache(maxsize=1)
def _predictor(file: Path, sha256: str) -> StylePredictor:
    """Of a file with this content, loaded once for the paintings of a call."""
    return StylePredictor(file)


def is_painting(name: str) -> bool:
    """Whether a style is named by a picture's file."""
    path = user_path(name)
    return path.suffix.lower() in SUFFIXES and path.is_file()
