"""Fast neural style transfer::

    from fststyle import Stylizer, load_image, save_image

    stylize = Stylizer.from_checkpoint("starry_night")
    save_image(stylize(load_image("photo.jpg")), "stylised.png")

The public names are loaded when they are first used; importing the package loads nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fststyle.version import __version__

_PUBLIC = {
    "StylePredictor": "fststyle.inference",
    "StylizeOptions": "fststyle.inference",
    "PerceptualLoss": "fststyle.losses",
    "Stylizer": "fststyle.inference",
    "SuperResNet": "fststyle.networks.superres",
    "Swapper": "fststyle.inference",
    "TransformNet": "fststyle.networks.transform",
    "Upscaler": "fststyle.inference",
    "VGGEncoder": "fststyle.encoders.vgg",
    "in_regions": "fststyle.inference",
    "load_encoder": "fststyle.encoders.pretrained",
    "load_image": "fststyle.images",
    "read_mask": "fststyle.images",
    "save_image": "fststyle.images",
}
__all__ = [
    "PerceptualLoss",
    "StylePredictor",
    "StylizeOptions",
    "Stylizer",
    "SuperResNet",
    "Swapper",
    "TransformNet",
    "Upscaler",
    "VGGEncoder",
    "__version__",
    "in_regions",
    "load_encoder",
    "load_image",
    "read_mask",
    "save_image",
]

if TYPE_CHECKING:
    from fststyle.encoders.pretrained import load_encoder
    from fststyle.encoders.vgg import VGGEncoder
    from fststyle.images import load_image, read_mask, save_image
    from fststyle.inference import StylePredictor, StylizeOptions, Stylizer, Swapper, Upscaler, in_regions
    from fststyle.losses import PerceptualLoss
    from fststyle.networks.superres import SuperResNet
    from fststyle.networks.transform import TransformNet


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'fststyle' has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
    except ModuleNotFoundError as error:
        from fststyle.resources import NOT_LITE, without_torch

        if without_torch():
            raise ModuleNotFoundError(f"{name} takes {error.name}; {NOT_LITE}", name=error.name) from None
        raise
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
