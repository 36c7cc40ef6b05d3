"""Look before you train: what style weight and style size do, by the slow mode at small size."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from tqdm import tqdm

from fststyle.checks import check_free, check_name, check_seed
from fststyle.color import with_luminance
from fststyle.config import (
    ConfigError,
    balance,
    build_encoder,
    build_loss,
    check_missing,
    instantiate,
    load_style,
    set_threads,
)
from fststyle.devices import choose_device
from fststyle.evaluation import page as html
from fststyle.evaluation.figures import write_json
from fststyle.images import MIN_SIDE, check_folder, contact_sheet, load_image, read_picture, save_image, to_pixels
from fststyle.losses import PerceptualLoss, mean_term
from fststyle.optimization import Optimization, Progress, optimize
from fststyle.optimization.recipes import size_of, starting_image, transfer
from fststyle.resources import user_path, working

#: Keys that this command has and ``train`` has not, or that the cell decides.
_OWN = (
    *("content", "size", "factors", "style_sizes", "iterations", "output", "overwrite", "device"),
    *("style.size", "style.weight", "calibration_photographs"),
)


@dataclass
class Cell:
    """One transfer of a sheet.

    ``factor`` times the style's weight and ``style_size`` in pixels are what it was made with;
    ``terms`` as in ``LossTerms.scalars``; ``pixels`` uint8 (H, W, 3), and ``own_colors`` the same
    with the photograph's colours.
    """

    factor: float
    style_size: int
    terms: dict[str, float]
    pixels: np.ndarray
    own_colors: np.ndarray
    stopped: str


def cells(
    content: Tensor,
    paintings: Mapping[int, Tensor],
    factors: Sequence[float],
    loss: Callable[[float, Tensor], PerceptualLoss],
    iterations: int = 50,
    callback: Callable[[Progress], object] | None = None,
) -> Iterator[Cell]:
    """Transfer by every factor and style size: rows of one factor each.

    From the photograph in the painting's colours, which the colour term asks for and networks give as well; from
    noise, as many iterations leave less of the photograph than a network does.

    Args:
        content: the photograph, (1, 3, H, W).
        paintings: longer side in pixels to the painting of that size, (1, 3, H', W').
        factors: times the style's weight.
        loss: (factor, painting) to the loss, calibrated for the painting.
        iterations: of L-BFGS.
        callback: as that of ``optimize``.
    """
    for factor in factors:
        for style_size, painting in paintings.items():
            objective = transfer(loss(factor, painting), content, painting)
            start = starting_image("recolored", size_of(content), content, painting)
            run: Optimization = optimize(start, objective, iterations, callback=callback)
            with torch.no_grad():
                terms = {name: float(value) for name, value in objective(run.image).scalars().items()}
            image = run.image.cpu()
            kept = to_pixels(with_luminance(content.cpu(), image))
            yield Cell(factor, style_size, terms, to_pixels(image), kept, run.stopped)


# --- from a configuration ---------------------------------------------------------------------------


def preview(config: DictConfig, overrides: Sequence[str] = ()) -> Path:
    """One sheet: everything is read and checked first, then optimised cell by cell, then written.

    Args:
        config: of ``config.compose("preview", …)``.
        overrides: that it was composed with, for the commands on the sheet.

    Returns:
        The page.

    Raises:
        ValueError, OSError: refused, before anything was written.
        KeyboardInterrupt: Ctrl-C; nothing is written.
    """
    check_missing(config, ignored=("content",))
    _check(config)
    check_seed(config.seed)
    set_threads(config)
    device = choose_device(config.device)
    folder = _folder(config)
    content = load_image(user_path(config.content), config.size).to(device)
    paintings = {size: load_style(config.style, size).to(device) for size in config.style_sizes}
    data = instantiate(config.data)
    encoder = build_encoder(config, data).to(device)

    def loss(factor: float, painting: Any) -> Any:
        weight = config.loss.style_weight * config.style.weight * factor
        made = build_loss(config, encoder, style_weight=weight).to(device)
        balance(made, config, data, painting, device, quiet=True)
        return made

    found: list[Cell] = []
    total = len(config.factors) * len(paintings)
    with tqdm(total=total * config.iterations, unit="it", disable=not sys.stderr.isatty()) as bar:
        made = cells(content, paintings, config.factors, loss, config.iterations, lambda _: bar.update() and None)
        for cell in made:
            if cell.stopped == "interrupted":
                raise KeyboardInterrupt(f"interrupted after {len(found)} of {total} cells; nothing was written")
            found.append(cell)
    with working("writing the sheet"):
        return _write(config, overrides, folder, content, found)


def _check(config: DictConfig) -> None:
    if OmegaConf.is_missing(config, "content") or not config.content:
        raise ConfigError("the photograph is missing: fststyle preview PHOTO style.image=PAINTING")
    for key, least in (("factors", 0), ("style_sizes", MIN_SIDE)):
        values = list(config[key]) if OmegaConf.is_list(config[key]) else [config[key]]
        if not values or any(not isinstance(value, (int, float)) or value < least for value in values):
            raise ConfigError(
                f"{key} is {config[key]}; expected a list of numbers ≥ {least}, such as {key}=[{least or 1}]"
            )
        if len(set(values)) < len(values):
            raise ConfigError(f"{key} is {config[key]}; expected each number once")
    if not isinstance(config.size, int) or config.size < MIN_SIDE:
        raise ConfigError(f"size is {config.size}; expected a whole number of at least {MIN_SIDE} pixels")


def _folder(config: DictConfig) -> Path:
    """Where the sheet goes; refuses what cannot be written, before any work."""
    check_name(config.style.name, "style.name")
    folder = check_folder(config.output)
    if _is_preview(folder):
        if not config.overwrite:
            raise ConfigError(f"{folder} holds a preview already; replace it with overwrite=true, or use output=FOLDER")
        return folder
    names = ["index.html", "sheet.png", "preview.json"]
    names += [_cell_name(f, size, own) for f in config.factors for size in config.style_sizes for own in (False, True)]
    check_free([folder / name for name in names], "output=FOLDER")
    return folder


def _is_preview(folder: Path) -> bool:
    try:
        table = json.loads((folder / "preview.json").read_text(encoding="utf-8"))
        return isinstance(table, list) and all("command" in row for row in table)
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def _cell_name(factor: float, style_size: int, own_colors: bool) -> str:
    return f"weight_{factor:g}_size_{style_size}{'_own_colors' if own_colors else ''}.png"


def training_command(config: DictConfig, overrides: Sequence[str], factor: float, style_size: int) -> str:
    """The command that trains a network for a cell: the overrides, with the cell's weight and size."""
    words = [word for word in overrides if word.partition("=")[0] not in _OWN]
    if not any(word.startswith("encoder=") for word in words):
        words.append("encoder=slim")  # this command's default is not that of train
    words += [f"style.size={style_size}", f"style.weight={config.style.weight * factor:g}"]
    return "fststyle train " + shlex.join(words)


def _write(config: DictConfig, overrides: Sequence[str], folder: Path, content: Tensor, found: list[Cell]) -> Path:
    painting = user_path(config.style.image)
    shown_painting = read_picture(painting, 512, trim=True).rgb
    folder.mkdir(parents=True, exist_ok=True)
    rows = {factor: [cell for cell in found if cell.factor == factor] for factor in config.factors}
    kept = {
        False: "With the painting's colours",
        True: "With the photograph's colours: fststyle stylize --preserve-color",
    }
    sheet, table = [], []
    parts = [
        html.row([html.picture(to_pixels(content), "the photograph"), html.picture(shown_painting, painting.name)]),
        html.paragraph(
            f"Each picture took {config.iterations} iterations at {config.size} pixels. Style is 1 for a photograph "
            "that was not stylised, content 1 for another photograph. "
            "The command under a picture trains a network for it.",
            note=True,
        ),
    ]
    for own, caption in kept.items():
        parts.append(html.heading(caption))
        for factor, row in rows.items():
            pictures = []
            shown = [cell.own_colors if own else cell.pixels for cell in row]
            for cell, pixels in zip(row, shown, strict=True):
                name = _cell_name(factor, cell.style_size, own)
                save_image(pixels, folder / name)
                style, kept_content = (mean_term(cell.terms, kind) for kind in ("style", "content"))
                command = training_command(config, overrides, factor, cell.style_size)
                pictures.append(html.picture(pixels, f"style {style:.2f}, content {kept_content:.2f}: {command}"))
                made = {"factor": factor, "style_size": cell.style_size, "preserve_color": own, "picture": name}
                measured = {"style": style, "content": kept_content, "terms": cell.terms}
                table.append({**made, "command": command, **measured})
            parts.append(html.row(pictures))
            sheet.append(shown)
    save_image(contact_sheet(sheet), folder / "sheet.png")
    write_json(folder / "preview.json", table)
    html.write_page(folder / "index.html", f"Preview of {config.style.name}", parts)
    return folder / "index.html"
