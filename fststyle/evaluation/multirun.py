"""What became of the runs of a multirun (``fststyle train -m``): a table of them all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from fststyle.config import COMMAND, FAILED
from fststyle.diagnostics import faults
from fststyle.losses import mean_term
from fststyle.model_file import read_metadata


@dataclass
class Row:
    """One run in the table."""

    name: str
    folder: Path
    #: Of the exported file; None where there is none.
    metadata: dict[str, Any] | None
    #: Why there is none.
    reason: str = ""

    @property
    def refused(self) -> bool:
        return self.reason.startswith("refused")


def rows(folder: Path) -> list[Row]:
    """The runs in a multirun's folder, in the order of their numbers."""
    found = []
    for command in sorted(folder.glob(f"*/{COMMAND}"), key=lambda path: int(path.parent.name.partition("_")[0])):
        run = command.parent
        config: Any = OmegaConf.load(run / "config.yaml") if (run / "config.yaml").is_file() else {}
        name = str(config.get("name", run.name.partition("_")[2]))
        exported = run / f"{name}.safetensors"
        if (run / FAILED).is_file():
            found.append(Row(name, run, None, (run / FAILED).read_text(encoding="utf-8").strip()))
        elif exported.is_file():
            found.append(Row(name, run, read_metadata(exported)))
        else:
            found.append(Row(name, run, None, "unfinished: killed, or still running"))
    return found


def table(runs: Sequence[Row]) -> list[str]:
    """Lines with steps, held-out terms, speed, diagnostics and file of each."""
    lines: list[tuple[str, ...]] = [("run", "steps", "content", "style", "total", "images/s", "diagnostics", "file")]
    for run in runs:
        if run.metadata is None:
            lines.append((run.name, *["—"] * 5, run.reason.partition(":")[0], str(run.folder)))
        else:
            lines.append((run.name, *_figures(run.metadata), str(run.folder / f"{run.name}.safetensors")))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _figures(metadata: dict[str, Any]) -> Sequence[str]:
    """Steps, held-out terms (a mean over layers), speed and diagnostics of an exported file's metadata."""
    held_out: dict[str, float] = metadata.get("held_out", {})
    terms = [*(mean_term(held_out, kind) for kind in ("content", "style")), held_out.get("total", math.nan)]
    seconds = metadata.get("seconds") or 0
    found = faults(metadata.get("diagnostics", {}))
    return (
        str(metadata["steps"]),
        *("—" if math.isnan(term) else f"{term:.3g}" for term in terms),
        f"{metadata['images'] / seconds:.1f}" if seconds else "—",
        (found[0].partition(" (")[0] if found else "sound") if metadata.get("diagnostics") else "—",
    )
