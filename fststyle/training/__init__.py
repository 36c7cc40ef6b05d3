"""Training with Lightning: tasks, data and callbacks; ``training.run`` builds a whole run from a configuration."""

from fststyle.training.callbacks import AverageWeights, Diagnostics, Export, Previews
from fststyle.training.checkpoints import SaveCheckpoints
from fststyle.training.data import Photographs
from fststyle.training.signals import StopOnSignal
from fststyle.training.sources import Generated, folder, hub, parquet, webdataset
from fststyle.training.tasks import InverseTask, StyleTask, SuperResTask

__all__ = [
    "AverageWeights",
    "Diagnostics",
    "Export",
    "Generated",
    "InverseTask",
    "Photographs",
    "Previews",
    "SaveCheckpoints",
    "StopOnSignal",
    "StyleTask",
    "SuperResTask",
    "folder",
    "hub",
    "parquet",
    "webdataset",
]
