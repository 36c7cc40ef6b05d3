"""``fststyle preview``: a contact sheet of slow transfers, each with the command that trains a network for it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from fststyle.cli.compose import split
from fststyle.cli.parts import balance, typed
from fststyle.config import ConfigError, build_encoder, build_loss, check_folder, check_missing, load_style, set_threads

if TYPE_CHECKING:
    from fststyle.report.preview import Cell

#: Keys that this command has and ``train`` has not, or that the cell decides.
_OWN = (
    "content",
    "size",
    "factors",
    "style_sizes",
    "iterations",
    "output",
    "overwrite",
    "device",
    "style.size",
    "style.weight",
    "calibration_photographs",
)


def photo_first(words: list[str]) -> list[str]:
    """The command's words with the photograph, which needs no key, as Hydra's override."""
    flags, said = split(words)
    return flags + [word if "=" in word else "content='{}'".format(word.replace("'", "\\'")) for word in said]


def preview(cfg: DictConfig) -> None:
    """One sheet: everything is read and checked first, then optimised cell by cell, then written."""
    from hydra.utils import instantiate

    from fststyle.images import load_image
    from fststyle.inference.backends import choose_device
    from fststyle.report.preview import cells

    check_missing(cfg, ignored=("content",))
    _check(cfg)
    set_threads(cfg)
    device = choose_device(cfg.device)
    folder = _folder(cfg)
    content = load_image(Path(cfg.content).expanduser(), cfg.size).to(device)
    paintings = {size: load_style(cfg.style, size).to(device) for size in cfg.style_sizes}
    data = instantiate(cfg.data)
    encoder = build_encoder(cfg, data).to(device)

    def loss(factor: float, painting: Any) -> Any:
        weight = cfg.loss.style_weight * cfg.style.weight * factor
        made = build_loss(cfg, encoder, style_weight=weight).to(device)
        balance(made, cfg, data, painting, device, quiet=True)
        return made

    found: list[Cell] = []
    total = len(cfg.factors) * len(paintings)
    with tqdm(total=total * cfg.iterations, unit="it", disable=not sys.stderr.isatty()) as bar:
        made = cells(content, paintings, cfg.factors, loss, cfg.iterations, lambda _: bar.update() and None)
        for cell in made:
            if cell.stopped == "interrupted":
                raise KeyboardInterrupt(f"interrupted after {len(found)} of {total} cells; nothing was written")
            found.append(cell)
    _write(cfg, folder, content, Path(cfg.style.image).expanduser(), found)
    print(folder / "index.html")


def _check(cfg: DictConfig) -> None:
    from fststyle.images import MIN_SIDE

    if OmegaConf.is_missing(cfg, "content") or not cfg.content:
        raise ConfigError("the photograph is missing: fststyle preview PHOTO style.image=PAINTING")
    for key, least in (("factors", 0), ("style_sizes", MIN_SIDE)):
        values = list(cfg[key]) if OmegaConf.is_list(cfg[key]) else [cfg[key]]
        if not values or any(not isinstance(value, (int, float)) or value < least for value in values):
            raise ConfigError(
                f"{key} is {cfg[key]}; expected a list of numbers ≥ {least}, such as {key}=[{least or 1}]"
            )
        if len(set(values)) < len(values):
            raise ConfigError(f"{key} is {cfg[key]}; expected each number once")
    if not isinstance(cfg.size, int) or cfg.size < MIN_SIDE:
        raise ConfigError(f"size is {cfg.size}; expected a whole number of at least {MIN_SIDE} pixels")


def _folder(cfg: DictConfig) -> Path:
    """Where the sheet goes; refuses what cannot be written, before any work."""
    folder = Path(cfg.output).expanduser()
    if (folder / "index.html").exists() and not cfg.overwrite:
        raise ConfigError(f"{folder} holds a preview already; replace it with overwrite=true, or use output=FOLDER")
    check_folder(folder)
    return folder


def training_command(cfg: DictConfig, factor: float, style_size: int) -> str:
    """The command that trains a network for a cell: what was typed here, with the cell's weight and size."""
    words = [word for word in typed() if word.partition("=")[0] not in _OWN]
    if not any(word.startswith("encoder=") for word in words):
        words.append("encoder=slim")  # this command's default is not that of train
    words += [f"style.size={style_size}", f"style.weight={cfg.style.weight * factor:g}"]
    return "fststyle train " + shlex.join(words)


def _write(cfg: DictConfig, folder: Path, content: Any, painting: Path, found: list[Cell]) -> None:
    from fststyle.images import contact_sheet, read_picture, save_image, to_pixels, write_atomically
    from fststyle.report import page as html
    from fststyle.report.compare import write_json
    from fststyle.report.preview import mean_term

    folder.mkdir(parents=True, exist_ok=True)
    rows = {factor: [cell for cell in found if cell.factor == factor] for factor in cfg.factors}
    kept = {
        False: "With the painting's colours",
        True: "With the photograph's colours: fststyle stylize --preserve-color",
    }
    sheet, table = [], []
    parts = [
        html.row(
            [
                html.picture(to_pixels(content), "the photograph"),
                html.picture(read_picture(painting, 512).rgb, painting.name),
            ]
        ),
        html.paragraph(
            f"Each picture took {cfg.iterations} iterations at {cfg.size} pixels. Style is 1 for a photograph that was "
            "not stylised, content 1 for another photograph. The command under a picture trains a network for it.",
            note=True,
        ),
    ]
    for own, caption in kept.items():
        parts.append(html.heading(caption))
        for factor, row in rows.items():
            pictures = []
            shown = [cell.own_colors if own else cell.pixels for cell in row]
            for cell, pixels in zip(row, shown, strict=True):
                name = f"weight_{factor:g}_size_{cell.style_size}{'_own_colors' if own else ''}.png"
                save_image(pixels, folder / name)
                style, kept_content = (mean_term(cell.terms, kind) for kind in ("style", "content"))
                command = training_command(cfg, factor, cell.style_size)
                pictures.append(html.picture(pixels, f"style {style:.2f}, content {kept_content:.2f}: {command}"))
                entry = {"factor": factor, "style_size": cell.style_size, "preserve_color": own, "picture": name}
                table.append(
                    {**entry, "command": command, "style": style, "content": kept_content, "terms": cell.terms}
                )
            parts.append(html.row(pictures))
            sheet.append(shown)
    save_image(contact_sheet(sheet), folder / "sheet.png")
    write_json(folder / "preview.json", table)
    page = html.page(f"Preview of {cfg.style.name}", parts)
    write_atomically(folder / "index.html", lambda file: file.write(page.encode()))
