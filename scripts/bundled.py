"""What the demo and the gallery show of a bundled style's painting: the picture itself, or who painted what."""

from __future__ import annotations

import re
from pathlib import Path

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
