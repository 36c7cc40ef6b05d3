"""Training with Lightning: tasks, data and callbacks; ``training.run`` builds a whole run from a configuration."""

from fststyle.training.callbacks import AverageWeights, Diagnostics, Export, Previews
from fststyle.training.data import Photographs
from fststyle.training.sources import Generated, folder, hub, parquet, webdataset
from fststyle.training.state import SaveState, StopOnSignal
from fststyle.training.tasks import InverseTask, StyleTask, SuperResTask

__all__ = [
    "AverageWeights",
    "Diagnostics",
    "Export",
    "Generated",
    "InverseTask",
    "Photographs",
    "Previews",
    "SaveState",
    "StopOnSignal",
    "StyleTask",
    "SuperResTask",
    "folder",
    "hub",
    "parquet",
    "webdataset",
]
