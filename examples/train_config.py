"""Train a style from the configuration of ``fststyle train``.

    python examples/train_config.py painting.jpg photographs steps=2000 data.size=128

Further words are overrides, as on the command line. What the run writes is in ``runs/painting``.
"""

import sys

from fststyle import Stylizer, load_image, save_image
from fststyle.config import compose
from fststyle.training.run import build


def main(painting: str, photographs: str, *overrides: str) -> None:
    """Train, then apply the exported style to its own painting, as a first look."""
    words = [f"style.image={painting}", "encoder=slim", "data=folder", f"data.source.path={photographs}"]
    config = compose("train", [*words, *overrides])
    run = build(config)  # everything is made and checked, and nothing written yet
    model_file = run.fit()
    if model_file is None:
        sys.exit(f"stopped by a signal; resume=last goes on from the training checkpoint in {run.folder}")
    stylize = Stylizer.from_checkpoint(model_file)
    save_image(stylize(load_image(painting, config.style.size)), run.folder / "first_look.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
