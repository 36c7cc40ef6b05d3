"""Where the files beside the code are: ``conf/`` and ``checkpoints/``, in a wheel or a source tree."""

from __future__ import annotations

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
