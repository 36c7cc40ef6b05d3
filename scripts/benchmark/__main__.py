"""How fast training and inference are, against a plain implementation and against the machine's limit.

    python scripts/benchmark step inference memory cli slow loading train -o FOLDER

Everything in one run, in turn, as medians. ``reference`` is scripts/benchmark/reference.py, what the literature's
code does; the machine's limit is the speed at which torch multiplies two 4096×4096 matrices here and
now; operations are counted by torch (convolutions and matrix products), not guessed.

``step``: a training step, by encoder and precision. ``inference``: one pass, by size, backend and precision.
``growth``: with pixels, batch and width. ``difference``: of the bundled styles' pictures, by backend.
``memory``: peak memory of a process that does one pass. ``cli``: the command from its start to the written
file. ``slow``: an evaluation of the slow mode's objective and gradient. ``loading``: photographs alone.
``train``: ``fststyle train`` as a whole. ``ranks``: two processes of one core each
against one. ``saving``: what a state every 100 steps costs. Writes benchmark.json and benchmark.html.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import inference
import training
from fststyle.evaluation import page as html
from fststyle.evaluation.figures import machine, write_json
from measuring import Row, measure

TRAINING = (training.step, training.slow, training.train, training.loading, training.ranks, training.saving)
INFERENCE = (inference.inference, inference.growth, inference.difference, inference.memory, inference.cli)


def show(title: str, table: list[Row]) -> None:
    """Print a table with tabs between its columns."""
    lines = [table[0].keys(), *(row.values() for row in table)]
    print(f"\n{title}\n" + "\n".join("\t".join(map(str, line)) for line in lines), flush=True)


def write(folder: Path, tables: dict[str, list[Row]]) -> None:
    """The tables as JSON and as a page with a plot."""
    write_json(folder / "benchmark.json", {"machine": machine(), "tables": tables})
    parts = [html.paragraph(", ".join(f"{k}: {v}" for k, v in machine().items()), note=True)]
    for title, table in tables.items():
        parts += [html.heading(title), html.grid(list(table[0]), [list(map(str, row.values())) for row in table])]
    series: dict[str, tuple[list[float], list[float]]] = {}
    for title, table in tables.items():
        for row in table if title.startswith("one pass") else ():
            pixels, seconds = series.setdefault(row["what"], ([], []))
            pixels.append(int(title.split()[2]) ** 2 / 1e6)
            seconds.append(row["seconds"])
    if series:
        parts += [html.heading("Seconds against size"), html.curves(series, "megapixels", "seconds")]
    html.write_page(folder / "benchmark.html", "Benchmark", parts)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as cache:  # what is converted here is of no use to anyone else
        os.environ["FSTSTYLE_CACHE"] = cache
        found, output = measure(__doc__, {case.__name__: case for case in TRAINING + INFERENCE}, show)
    if output:
        write(output, {title: table for tables in found.values() for title, table in tables.items()})
