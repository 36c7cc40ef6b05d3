"""Which files the two distributions own: fststyle-lite what applies a model, fststyle the rest.

Hatchling's hooks, for ``lite/pyproject.toml`` and ``full/pyproject.toml``. The repository's own pyproject.toml makes
one wheel of all files, for those who install it from a folder.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

ROOT = Path(__file__).resolve().parent.parent
#: What lite owns, as patterns; the other files are fststyle's.
LITE = (
    "fststyle/*.py",
    "fststyle/images/*",
    "fststyle/inference/*",
    "fststyle/web/*",
    "fststyle/web/page/*",
    *(f"fststyle/cli/{name}.py" for name in ("__init__", "options", "pipes")),
    *(f"fststyle/cli/{name}.py" for name in ("export", "info", "styles", "stylize", "upscale", "web")),
    "checkpoints/styles/zoo.safetensors",
    "checkpoints/superres/*",
    "checkpoints/arbitrary/*",
)
#: But for modules that compute with PyTorch themselves.
FULL = tuple(f"fststyle/{name}.py" for name in ("cluster", "color", "config", "diagnostics", "merging", "padding"))


def files(part: str) -> dict[Path, str]:
    """The files of a distribution, ``lite`` or ``full``, and their places in its wheel."""
    every = [path for folder in ("fststyle", "conf", "checkpoints") for path in (ROOT / folder).rglob("*")]
    every = [path for path in every if path.is_file() and "__pycache__" not in path.parts]
    lite = {path for pattern in LITE for path in ROOT.glob(pattern)} - {ROOT / name for name in FULL}
    chosen = [path for path in every if (path in lite) == (part == "lite")]
    return {path: _place(path.relative_to(ROOT)) for path in sorted(chosen)}


def _place(path: Path) -> str:
    return path.as_posix() if path.parts[0] == "fststyle" else f"fststyle/{path.as_posix()}"


class CustomBuildHook(BuildHookInterface):
    """Puts the files of the part that its configuration names into the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "editable":
            build_data["force_include"].update({str(path): place for path, place in files(self.config["part"]).items()})


class CustomMetadataHook(MetadataHookInterface):
    """What the repository's own pyproject.toml says, but for what lite installs."""

    def update(self, metadata: dict[str, Any]) -> None:
        whole = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        copied = ("description", "requires-python", "license", "authors", "keywords", "classifiers")
        metadata.update({key: whole[key] for key in copied})
        metadata["optional-dependencies"] = {
            name: needs for name, needs in whole["optional-dependencies"].items() if name not in ("dev", "docs")
        }
        lite = tomllib.loads((ROOT / "packaging/lite/pyproject.toml").read_text(encoding="utf-8"))["project"]
        there = {*lite["dependencies"]}
        needs = [each for each in whole["dependencies"] if each not in there]
        metadata["dependencies"] = [f"fststyle-lite=={metadata['version']}", *needs]
