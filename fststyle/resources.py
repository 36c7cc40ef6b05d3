"""Where files lie: ``conf/`` and ``checkpoints/`` beside the code, in a wheel or a source tree, and what is cached."""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def resource(name: str) -> Path:
    """The folder ``conf`` or ``checkpoints``: inside the package (wheel) or beside it (source tree).

    Raises:
        FileNotFoundError: a broken installation.
    """
    for folder in (_PACKAGE / name, _PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"the folder {name}/ is missing from the installation at {_PACKAGE}; reinstall fststyle")


def cache_folder(name: str) -> Path:
    """Where what can be made again is kept between runs: ``FSTSTYLE_CACHE``, else the user's cache folder."""
    own = os.environ.get("FSTSTYLE_CACHE")
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (Path(own).expanduser() if own else user / "fststyle") / name
