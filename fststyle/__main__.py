"""``python -m fststyle``."""

from fststyle.cli import entry

entry()
