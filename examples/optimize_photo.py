"""The slow mode: change the pixels of one photograph until the loss of training is low.

    python examples/optimize_photo.py photo.jpg painting.jpg optimised.png

No network is trained (Gatys, Ecker, Bethge 2016).
"""

import sys

from fststyle import load_encoder, load_image, save_image
from fststyle.config import preset_loss
from fststyle.losses import measure_normalizers
from fststyle.optimization import Progress, optimize
from fststyle.optimization.recipes import size_of, starting_image, transfer


def show(progress: Progress) -> None:
    """Print the loss now and then."""
    if progress.iteration % 50 == 0:
        print(f"iteration {progress.iteration}, loss {progress.terms['total']:.4g}")


def main(photo: str, painting: str, output: str, *, size: int = 512, iterations: int = 300) -> None:
    """Optimise the photograph in the style of the painting and write the best picture met."""
    content, style = load_image(photo, size), load_image(painting, size)
    loss = preset_loss(load_encoder("vgg19", "slim"))
    # By the bundled encoder's calibration statistics.
    loss.normalizers = measure_normalizers(loss, None, loss.style_targets(style))
    start = starting_image("recolored", size_of(content), content, style)
    result = optimize(start, transfer(loss, content, style), iterations, callback=show)
    save_image(result.image, output)


if __name__ == "__main__":
    main(*sys.argv[1:])
