"""Where a run's figures and messages go: the loggers of a configuration, and a file of what is logged."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.errors import InstantiationException
from omegaconf import DictConfig
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger

from fststyle.config import ConfigError, instantiate
from fststyle.resources import printable

log = logging.getLogger(__name__)


def loggers(config: DictConfig) -> Iterator[Logger]:
    """Those of a configuration.

    Raises:
        ConfigError: one whose package or settings cannot be used.
    """
    for name, entry in (config.logger or {}).items():
        try:
            logger = instantiate(entry)
        except InstantiationException as error:
            raise ConfigError(f"logger.{name}: {error.__cause__ or error}") from None
        if isinstance(logger, TensorBoardLogger) and printable(logger.log_dir) != logger.log_dir:
            log.warning("%s: is no UTF-8, which TensorBoard needs; its logs are left out", printable(config.output))
        else:
            yield logger


def continue_table(table: CSVLogger, steps_done: int) -> None:
    """Let the CSV of a resumed run go on after the saved step; Lightning's logger would begin anew."""
    path = Path(table.log_dir) / "metrics.csv"
    if not path.is_file():
        return
    with open(path, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if int(row["step"]) < steps_done]
    if rows:
        table.experiment.metrics_keys = list(rows[0])
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


@contextmanager
def logged_to(path: Path | None) -> Iterator[None]:
    """Everything that is logged meanwhile goes to a file as well."""
    if path is None:
        yield
        return
    root, handler = logging.getLogger(), logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
