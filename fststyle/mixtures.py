"""Mixtures of a file's styles: ``wave``, or ``wave=0.6,udnie=0.4``; behind a model file's name they name a style of it.

``zoo/wave`` is the style ``wave`` of the file ``zoo``. No file is read here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fststyle.octaves import Variation, grow_from


class MixtureError(ValueError):
    """A mixture that cannot be made; the message says why."""


def parse_mixture(text: str, names: Sequence[str]) -> dict[str, float]:
    """Style to weight, in the order of ``names``; weights sum to 1.

    Args:
        text: a style's name, or ``NAME=WEIGHT`` for each, with commas between.
        names: the styles there are.

    Raises:
        MixtureError: an unknown style, one that is named twice, no weight, weights that are negative or all 0.
    """
    if text in names:
        return {text: 1.0}
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, equals, number = part.strip().rpartition("=") if "=" in part else (part.strip(), "", "")
        if name not in names:
            raise MixtureError(f"unknown style {name!r}; expected one of {', '.join(names)}")
        if name in weights:
            raise MixtureError(f"{name} is named twice in the mixture {text!r}; expected each style once")
        try:
            weights[name] = float(number)
        except ValueError:
            found = f"{name}={number}" if equals else name
            raise MixtureError(f"found {found} in a mixture; expected NAME=WEIGHT, such as {name}=0.5") from None
        if not (math.isfinite(weights[name]) and weights[name] >= 0):
            raise MixtureError(f"the weight of {name} is {number}; expected a number ≥ 0")
    total = sum(weights.values())
    if not total > 0:
        raise MixtureError(f"the weights of the mixture {text!r} sum to 0; expected one above 0")
    return {name: weights[name] / total for name in names if weights.get(name)}


def mixture_text(weights: Mapping[str, float]) -> str:
    """The text that ``parse_mixture`` reads."""
    return ",".join(f"{name}={weight:g}" for name, weight in weights.items())


def mixture_metadata(metadata: Mapping[str, Any], weights: Mapping[str, float]) -> dict[str, Any]:
    """The metadata that a file of one style would have, of a file of several."""
    own = {key: value for key, value in metadata.items() if key != "styles"}
    names = [each["name"] for each in metadata.get("styles", [])]
    arguments = of_one_style(own["network"]["arguments"], [weights.get(name, 0.0) for name in names])
    own["network"] = {**own["network"], "arguments": arguments}
    if len(weights) > 1:
        entries = {each["name"]: {**metadata, **each} for each in metadata.get("styles", []) if each["name"] in weights}
        if any("grow_from" in entry for entry in entries.values()):
            own["grow_from"] = sum(weights[name] * grow_from(entry) for name, entry in entries.items())
        if any("variation" in entry for entry in entries.values()):
            asked = {name: Variation.from_metadata(entry) for name, entry in entries.items()}
            parts = ("amount", "width")
            own["variation"] = {
                part: sum(weights[name] * getattr(asked[name], part) for name in asked) for part in parts
            }
        return {**own, "name": mixture_text(weights), "mixture": dict(weights)}
    entry = dict(next((each for each in metadata.get("styles", []) if each["name"] in weights), {}))
    if "normalizers" in entry:
        own["loss"] = {**own.get("loss", {}), "normalizers": entry.pop("normalizers")}
    return {**own, **entry}


def of_one_style(arguments: Mapping[str, Any], row: Sequence[float]) -> dict[str, Any]:
    """A ``TransformNet``'s arguments for one style, that of a mixture, of those for several.

    Args:
        arguments: with the filter's radius as ``kuwahara``, and as ``smoothed`` how much of it each style has.
        row: the weights of the styles in the mixture.
    """
    own = {key: value for key, value in arguments.items() if key not in ("styles", "smoothed")}
    if "smoothed" in arguments:
        share = sum(weight * each for weight, each in zip(row, arguments["smoothed"], strict=True))
        own |= {"smoothed": [share]} if share != 1 else {}
        own = own if share else {key: value for key, value in own.items() if key not in ("kuwahara", "smoothed")}
    return own


def mixture_row(weights: Mapping[str, float], names: Iterable[str]) -> np.ndarray:
    """The weights in the order of a file's styles, float32 (1, styles)."""
    return np.array([[weights.get(name, 0.0) for name in names]], np.float32)
