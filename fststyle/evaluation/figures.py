"""What was measured, as JSON files, and on which machine."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import torch

from fststyle.checks import check_free, check_path, has_keys
from fststyle.images import ImageError, check_writable, existing_part, write_atomically


def figures_file(name: str | None, *keys: str) -> Path | None:
    """The file of ``--json``, if one is given; of files that are there only one with such keys is replaced."""
    if name is None:
        return None
    target = check_path(name, "--json")
    if target.is_dir():
        raise ImageError(f"{target}: is a folder; expected a file for the figures")
    if not has_keys(target, *keys):
        check_free([target], "--json FILE")
    check_writable(existing_part(target.parent))
    return target


def write_json(path: Path, content: Any) -> None:
    """Write JSON to a temporary file, then move it into place; its folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write((json.dumps(content, indent=1) + "\n").encode()))


def machine() -> dict[str, str]:
    """What it was measured on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _cpu()
    return {"device": device, "threads": str(torch.get_num_threads()), "torch": torch.__version__}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
