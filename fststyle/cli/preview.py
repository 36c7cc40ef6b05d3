"""``fststyle preview``: a contact sheet of slow transfers, each with the command that trains a network for it."""

from __future__ import annotations

from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from fststyle.cli import compose
from fststyle.cli.overrides import literal


def run(words: list[str]) -> int:
    return compose.run("preview", photo_first(words), preview)


def photo_first(words: list[str]) -> list[str]:
    """The command's words with the photograph, which needs no key, as Hydra's override."""
    flags, said = compose.split(words)
    return flags + [word if compose.known_key(word, "preview") else f"content={literal(word)}" for word in said]


def preview(cfg: DictConfig) -> None:
    from fststyle.evaluation import preview

    overrides: Any = OmegaConf.to_container(HydraConfig.get().overrides.task)  # unresolved: as they are typed
    print(preview.preview(cfg, overrides))
