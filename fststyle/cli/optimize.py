"""``fststyle optimize``: one picture, made by changing its pixels."""

from __future__ import annotations

from omegaconf import DictConfig

from fststyle.cli import compose


def run(words: list[str]) -> int:
    return compose.run("optimize", words, optimize)


def optimize(cfg: DictConfig) -> None:
    from fststyle.optimization.run import run

    print(run(cfg))
