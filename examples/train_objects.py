"""Train a style from plain objects: the bundled encoder, the recommended network, Lightning's own trainer.

    python examples/train_objects.py painting.jpg photographs style.safetensors

The result is a model file: ``fststyle stylize photo.jpg --style style.safetensors`` applies it.
"""

import sys

import pytorch_lightning as pl

from fststyle import TransformNet, load_encoder, load_image
from fststyle.config import preset_loss
from fststyle.losses import measure_normalizers
from fststyle.training import Diagnostics, Export, Photographs, StyleTask, folder


def main(painting: str, photographs: str, output: str, *, steps: int = 2000, size: int = 256, width: int = 32) -> None:
    """Train a network on a folder of photographs and write it as a model file."""
    loss = preset_loss(load_encoder("vgg19", "slim"))
    targets = loss.style_targets(load_image(painting, 640))
    loss.normalizers = measure_normalizers(loss, None, targets)  # by the bundled encoder's calibration statistics
    task = StyleTask(TransformNet(width=width), loss, targets, steps=steps)
    data = Photographs(folder(photographs), size=size)
    callbacks = [Diagnostics(every=500), Export(output)]
    trainer = pl.Trainer(max_steps=steps, callbacks=callbacks, logger=False, enable_checkpointing=False)
    trainer.fit(task, data)


if __name__ == "__main__":
    main(*sys.argv[1:])
