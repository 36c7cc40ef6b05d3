"""Apply a model file in one pass. What is here carries nothing that trains one."""

from fststyle.devices import DeviceError
from fststyle.inference.options import StylizeOptions
from fststyle.inference.predictor import StylePredictor, predicted_style
from fststyle.inference.regions import in_regions
from fststyle.inference.stylizer import Stylizer, Upscaler
from fststyle.inference.swapper import Swapper

__all__ = [
    "DeviceError",
    "StylePredictor",
    "StylizeOptions",
    "Stylizer",
    "Swapper",
    "Upscaler",
    "in_regions",
    "predicted_style",
]
