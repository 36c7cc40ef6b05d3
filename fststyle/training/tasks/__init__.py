"""What is learned: one training loop (``base``), and a task each for styles, any painting,
super-resolution and style swap."""

from fststyle.training.tasks.arbitrary import ArbitraryTask
from fststyle.training.tasks.base import COMPILE_FROM, MAX_SKIPPED, NonFiniteError, Task
from fststyle.training.tasks.inverse import InverseTask
from fststyle.training.tasks.style import StyleTask
from fststyle.training.tasks.superres import SuperResTask, random_rotation_map, rotated

__all__ = [
    "COMPILE_FROM",
    "MAX_SKIPPED",
    "ArbitraryTask",
    "InverseTask",
    "NonFiniteError",
    "StyleTask",
    "SuperResTask",
    "Task",
    "random_rotation_map",
    "rotated",
]
