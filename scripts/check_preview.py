"""Whether ``fststyle preview`` shows what training gives: its cells' terms over those of trained networks.

    python scripts/check_preview.py CHECKPOINT=PAINTING … --photo P … [--iterations 30 50 80]

For each checkpoint the photographs are transferred slowly with its style weight and style size, as the
preview does, and their mean style and content terms divided by those that its training measured on
held-out photographs.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from fststyle.encoders.pretrained import load_encoder
from fststyle.images import load_image
from fststyle.losses import PerceptualLoss
from fststyle.model_file import read_metadata
from fststyle.report.preview import cells, mean_term


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("styles", nargs="+", metavar="CHECKPOINT=PAINTING")
    options.add_argument("--photo", action="append", required=True)
    options.add_argument("--size", type=int, default=256)
    options.add_argument("--iterations", type=int, nargs="+", default=[50])
    options.add_argument("--json", type=Path, help="write the figures there")
    chosen = options.parse_args()
    encoder = load_encoder("vgg19", "slim")
    photos = [load_image(photo, chosen.size) for photo in chosen.photo]
    figures = {}
    for style in chosen.styles:
        file, _, painting_file = style.partition("=")
        metadata = read_metadata(file)
        size = metadata["style"]["size"]
        painting = load_image(painting_file, size)
        loss = PerceptualLoss.from_metadata(encoder, metadata)
        trained = {kind: mean_term(metadata["held_out"], kind) for kind in ("style", "content")}
        for iterations in chosen.iterations:
            made = [
                next(cells(photo, {size: painting}, [1.0], lambda *_, judge=loss: judge, iterations))
                for photo in photos
            ]
            shown = {kind: statistics.mean(mean_term(cell.terms, kind) for cell in made) for kind in trained}
            ratios = {kind: round(shown[kind] / trained[kind], 3) for kind in trained}
            name = f"{Path(file).stem}, style weight {metadata['loss']['style_weight']:g}, {iterations} iterations"
            figures[name] = {"preview": shown, "trained": trained, "ratio": ratios}
            print(f"{name}: {ratios}  (trained: {trained})", flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
