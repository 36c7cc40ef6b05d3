"""StylePredictor: a network for the style of any painting, without training."""

from __future__ import annotations

import functools
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fststyle.checks import check_name
from fststyle.images import SUFFIXES, check_style_sides, load_image
from fststyle.model_file import ModelFileError, find_model_file, load_model_file, save_model_file
from fststyle.resources import NOT_LITE, cache_folder, file_sha256, printable, user_path, without_torch

if TYPE_CHECKING:
    from torch import Tensor

    from fststyle.model_file import ModelFile
    from fststyle.networks.arbitrary import ArbitraryNet
    from fststyle.networks.transform import TransformNet

#: The network that is used when none is named.
DEFAULT = "any"
#: Longer side to which a painting is brought, pixels: strokes get the size that they have there.
SIZE = 512


class StylePredictor:
    """``predictor(painting) -> network``: what a painting's style has of its own is predicted (Ghiasi et al. 2017).

    Args:
        checkpoint: a model file of kind ``arbitrary``.

    Raises:
        ModelFileError: its encoder and its network do not fit each other.
    """

    def __init__(self, checkpoint: ModelFile) -> None:
        from fststyle.networks.arbitrary import encoder_of_paintings

        self.encoder = encoder_of_paintings(checkpoint)
        self.network: ArbitraryNet = checkpoint.network  # type: ignore[assignment]
        self.metadata = checkpoint.metadata

    @classmethod
    def from_checkpoint(cls, name_or_path: str | os.PathLike[str] = DEFAULT) -> StylePredictor:
        """Load a bundled network by name, or a model file of kind ``arbitrary``.

        Raises:
            ModelFileError: unknown name, no sound model file, or one of another kind.
        """
        return cls(load_model_file(find_model_file(name_or_path, "arbitrary"), "arbitrary"))

    def __call__(self, painting: Tensor) -> TransformNet:
        """A network for the style of a painting (1, 3, H, W), RGB in [0, 1], H and W ≥ 16."""
        from fststyle.networks.arbitrary import predicted_network

        return predicted_network(self.network, self.encoder, painting)

    def save(self, painting: str | os.PathLike[str], path: str | os.PathLike[str], size: int | None = SIZE) -> None:
        """Write a model file of a painting's style: its norms and colours; the convolutions are in the predictor's.

        Args:
            painting: a picture's file, whose stem names the style.
            path: the file to write.
            size: pixels of the painting's longer side; None: as it is.

        Raises:
            ImageError, OSError: a picture that cannot be used, a file that cannot be written.
        """
        painting = Path(painting)
        network = self(load_image(painting, size, trim=True))
        check_style_sides(painting)
        metadata: dict[str, Any] = {
            "kind": "style",
            "name": check_name(printable(painting.stem), "the picture's name"),
            "style": {"image": printable(painting.name), "sha256": file_sha256(painting), "size": size},
            "encoder": self.metadata.get("encoder"),
            "init_from": {key: self.metadata.get(key) for key in ("name", "command", "steps", "images", "init_from")},
            **{"predicted": True, "created": datetime.now(UTC).strftime("%Y-%m-%d"), "licence": "Apache-2.0"},
        }
        save_model_file(path, network, metadata, norms_only=True)


def predicted_style(painting: str | os.PathLike[str], model: str = DEFAULT, size: int = SIZE) -> Path:
    """The model file of a painting's style, in the user's cache folder; it is made where it is not there yet.

    Raises:
        as ``StylePredictor.save``.
    """
    if without_torch():
        raise ModelFileError(f"{painting}: a picture as a style takes torch; {NOT_LITE}")
    painting = user_path(painting)
    file = find_model_file(model, "arbitrary")
    sha256 = file_sha256(file)
    key = f"{sha256[:12]}-{file_sha256(painting)[:20]}-{size}"
    path = cache_folder("predicted") / key / f"{printable(painting.stem)}.safetensors"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        _predictor(file, sha256).save(painting, path, size)
    return path


@functools.lru_cache(maxsize=1)
def _predictor(file: Path, sha256: str) -> StylePredictor:
    """Of a file with this content, loaded once for the paintings of a call."""
    return StylePredictor.from_checkpoint(file)


def is_painting(name: str) -> bool:
    """Whether a style is named by a picture's file."""
    path = user_path(name)
    return path.suffix.lower() in SUFFIXES and path.is_file()
