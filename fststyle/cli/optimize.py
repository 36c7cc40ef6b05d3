"""``fststyle optimize``: one picture, made by changing its pixels."""

from __future__ import annotations

from omegaconf import DictConfig


def optimize(cfg: DictConfig) -> None:
    from fststyle.optimization.run import run

    print(run(cfg))
