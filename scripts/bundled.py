"""What the demo and the gallery show of bundled models: who painted what, and what enlarges a picture."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fststyle import Upscaler
from fststyle.report.superres import bicubic

ROOT = Path(__file__).resolve().parent.parent


def paintings() -> dict[str, Path]:
    """The style pictures that come with the project: style to file."""
    return {file.stem: file for file in sorted((ROOT / "checkpoints" / "paintings").glob("*.jpg"))}


def title(style: str) -> str:
    """Artist, title and year of a painting to provide, from the first line of ``conf/style/STYLE.yaml``; else ''."""
    config = ROOT / "conf" / "style" / f"{style}.yaml"
    first = config.read_text(encoding="utf-8").partition("\n")[0] if config.is_file() else ""
    named = re.fullmatch(r"# Provide a picture of (.+): style\.image=FILE", first)
    return named[1] if named else ""


def enlargers(models: Mapping[str, Path], *how: Any) -> dict[int, dict[str, Callable[[np.ndarray], np.ndarray]]]:
    """Scale to name to what enlarges so many times; ``how``: device, backend and precision, as ``Upscaler`` takes."""
    found: dict[int, dict[str, Callable[[np.ndarray], np.ndarray]]] = {}
    for name, path in models.items():
        upscaler = Upscaler.from_checkpoint(path, *how)
        found.setdefault(upscaler.scale, {"bicubic": bicubic(upscaler.scale)})[name] = upscaler.pixels
    return dict(sorted(found.items()))
