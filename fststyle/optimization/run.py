"""One optimisation: pictures are read and the loss built first, then pixels are changed, then the result is written.

From Python::

    from fststyle.config import compose
    from fststyle.optimization.run import run

    print(run(compose("optimize", ["content=photo.jpg", "style.image=painting.jpg", "encoder=slim"])))
"""

from __future__ import annotations

import csv
import logging
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from tqdm import tqdm

from fststyle.checks import absent, check_name, check_path, check_seed, is_address
from fststyle.color import match_color, match_histogram, with_luminance
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
from fststyle.images import MIN_SIDE, load_image, load_visible, save_image
from fststyle.networks.styleswap import check_patch
from fststyle.optimization import NonFiniteError, Optimization, Progress, optimize, recipes
from fststyle.optimization.optimize import Objective
from fststyle.optimization.output import check_target, snapshot_file, state_file
from fststyle.optimization.recipes import resized, size_of, starting_image
from fststyle.resources import printable, user_path, working

log = logging.getLogger(__name__)

#: Mode to whether it looks at a photograph, and at a style picture.
MODES = {
    "transfer": (True, True),
    "texture": (False, True),
    "content": (True, False),
    "style": (False, True),
    "swap": (True, True),
}
#: Where an optimisation may start; anything else is a file.
STARTS = ("recolored", "content", "noise", "gray", "style")


@dataclass
class Sources:
    """The pictures of a run, (1, 3, H, W) each, the sizes (height, width) of the result, from coarse to fine, and which
    pixels of the style can be seen (H, W), where patches of it are taken."""

    content: Tensor | None
    style: Tensor | None
    sizes: list[tuple[int, int]]
    visible: Tensor | None = None


def run(config: DictConfig) -> Path:
    """Everything is read and checked first, then optimised, then written; returns the picture's file.

    Raises:
        ValueError, OSError: refused, before anything was written.
        RuntimeError: failed.
        NonFiniteError: the loss became NaN or infinite; the best picture before is written.
        KeyboardInterrupt: Ctrl-C; the best picture is written, and a state that ``resume=true`` goes on from.
    """
    _check(config)
    check_missing(config, ignored=("content", "style.image"))
    check_seed(config.seed)
    set_threads(config)
    device = choose_device(config.device)
    sources = _read(config)
    target = _target(config)
    first, saved = _saved(config, target, sources.sizes)
    data = instantiate(config.data)
    encoder = build_encoder(config, data)
    changes: dict[str, Any] = {}
    if config.layers is not None:
        which = "content" if config.mode in ("content", "swap") else "style"
        changes = {f"{which}_layers": dict.fromkeys(config.layers, 1.0)}
    loss = build_loss(config, encoder, **changes).to(device)
    balance(loss, config, data, None if sources.style is None else sources.style.to(device), device)

    result = _run(config, sources, loss, device, target, first, saved)
    with working("writing the picture"):
        _write(config, sources, result.image.cpu(), target)
    state = state_file(target)
    if result.stopped == "interrupted":
        result.save(state)
        raise KeyboardInterrupt(
            f"interrupted at iteration {result.iteration}; wrote the best picture to {target}; resume=true goes on"
        )
    state.unlink(missing_ok=True)
    return target


def _check(config: DictConfig) -> None:
    if config.mode not in MODES:
        raise ConfigError(f"mode is {config.mode!r}; expected one of {', '.join(MODES)}")
    wants_content, wants_style = MODES[config.mode]
    if wants_content and (OmegaConf.is_missing(config, "content") or not config.content):
        raise ConfigError(f"content is missing; mode={config.mode} takes a photograph: content=PHOTO")
    if wants_style and (OmegaConf.is_missing(config.style, "image") or not config.style.image):
        raise ConfigError(f"style.image is missing; mode={config.mode} takes a picture: style.image=PICTURE")
    choices = {
        "bounds": ("unit", "source"),
        "preserve_color": ("none", "luminance", "match"),
        "trace": (None, "csv", "tensorboard"),
        "precision": ("float32", "bfloat16"),
        "compile": (False, True),
    }
    for key, known in choices.items():
        if config[key] not in known:
            names = ", ".join("null" if name is None else str(name).lower() for name in known)
            raise ConfigError(f"{key} is {config[key]!r}; expected one of {names}")
    if isinstance(config.start, str) and is_address(config.start):
        raise ConfigError(absent(config.start))
    if not isinstance(config.start, str) or not (config.start in STARTS or os.path.isfile(user_path(config.start))):
        raise ConfigError(f"start is {config.start!r}; expected one of {', '.join(STARTS)}, or a picture file")
    for key in ("snapshots", "save_every"):
        if config[key] is not None and (not isinstance(config[key], int) or config[key] < 1):
            raise ConfigError(f"{key} is {config[key]!r}; expected a whole number of at least 1, or null")
    if config.preserve_color != "none" and config.mode not in ("transfer", "swap"):
        raise ConfigError(
            f"preserve_color={config.preserve_color} goes with mode=transfer or swap; found mode={config.mode}"
        )
    if config.start == "recolored" and not all(MODES[config.mode]):
        raise ConfigError(
            f"start=recolored takes a photograph and a painting; mode={config.mode} has one of them; use start=noise"
        )
    if config.mode == "texture" and config.start == "content":
        raise ConfigError("mode=texture has no content to start from; use start=noise, gray, style or a file")
    if config.mode == "swap":
        check_patch(config.patch, config.stride)
    stages = len(config.sizes) if config.sizes is not None else 1
    if OmegaConf.is_list(config.iterations) and len(config.iterations) != stages:
        raise ConfigError(f"iterations has {len(config.iterations)} entries for {stages} sizes; expected as many")


# --- pictures in ----------------------------------------------------------------------------------


def _read(config: DictConfig) -> Sources:
    wants_content, wants_style = MODES[config.mode]
    longest = [config.size] if config.sizes is None else list(config.sizes)
    if any(not isinstance(size, int) or size < MIN_SIDE for size in longest):
        raise ConfigError(f"the size is {longest}; expected whole numbers of at least {MIN_SIDE} pixels")
    content = load_image(user_path(config.content), longest[-1]) if wants_content else None
    style = visible = None
    if wants_style:
        size = config.style.size if config.style.size is not None else round(longest[-1] * config.style.scale)
        style = load_style(config.style, size)
        if config.mode == "swap":
            visible = load_visible(user_path(config.style.image), size, config.style.region, trim=True)
    if config.preserve_color == "match" and content is not None and style is not None:
        style = match_color(style, content)
    if config.shape is not None:
        if config.sizes is not None or len(config.shape) != 2 or min(config.shape) < MIN_SIDE:
            raise ConfigError(f"shape is {list(config.shape)}; expected [height, width] ≥ {MIN_SIDE}, without sizes")
        return Sources(content, style, [(config.shape[0], config.shape[1])], visible)
    reference = content if content is not None else style
    assert reference is not None
    height, width = reference.shape[-2:]
    factors = [size / max(height, width) for size in longest]
    sizes = [(round(height * factor), round(width * factor)) for factor in factors]
    if min(sizes[0]) < MIN_SIDE:
        raise ConfigError(
            f"the result would be {sizes[0][1]}×{sizes[0][0]} pixels; expected at least {MIN_SIDE}×{MIN_SIDE}"
        )
    return Sources(content, style, sizes, visible)


def _start(config: DictConfig, sources: Sources) -> Tensor:
    size = sources.sizes[0]
    if config.start in STARTS:
        around = sources.style if config.bounds == "source" else None
        return starting_image(config.start, size, sources.content, sources.style, config.noise, config.seed, around)
    return resized(load_image(user_path(config.start)), size)


# --- the run --------------------------------------------------------------------------------------


def _run(
    config: DictConfig, sources: Sources, loss: Any, device: Any, target: Path, first: int, saved: Optimization | None
) -> Optimization:
    """Optimise at every size from the ``first`` on, there from the ``saved`` state if there is one."""
    style = None if sources.style is None else sources.style.to(device)
    counts = (
        list(config.iterations) if OmegaConf.is_list(config.iterations) else [config.iterations] * len(sources.sizes)
    )
    watch = _Watch(config, target, counts)

    def stage(start: Tensor, number: int) -> Optimization:
        content = None if sources.content is None else resized(sources.content, sources.sizes[number])
        content = None if content is None else content.to(device)
        bounds: tuple[Any, Any] = (0.0, 1.0)
        if config.bounds == "source":
            source = style if style is not None else content
            assert source is not None
            bounds = recipes.pixel_range(source)
        resume = saved if number == first else None
        watch.begin(number, resume)
        return optimize(
            start.to(device),
            recipes.faster(_objective(config, loss, content, style, sources.visible), config.precision, config.compile),
            iterations=counts[number],
            optimizer=config.optimizer,
            learning_rate=config.learning_rate,
            bounds=bounds,
            history=config.history,
            tolerance=config.tolerance,
            callback=watch,
            save=None if config.save_every is None else (state_file(target), config.save_every),
            resume=resume,
        )

    start = saved.pixels if saved is not None else _start(config, sources)
    try:
        with watch:
            remaining = list(range(first, len(sources.sizes)))
            return recipes.coarse_to_fine(
                start, [sources.sizes[n] for n in remaining], lambda image, n: stage(image, remaining[n])
            )
    except NonFiniteError as error:
        if math.isfinite(error.optimization.best):
            _write(config, sources, error.optimization.image.cpu(), target)
            raise NonFiniteError(f"{error} in {target}", error.optimization) from None
        raise


def _objective(
    config: DictConfig, loss: Any, content: Tensor | None, style: Tensor | None, visible: Tensor | None
) -> Objective:
    if config.mode in ("transfer", "swap"):
        assert content is not None
        assert style is not None
        if config.mode == "swap":
            return recipes.swap(loss, content, style, config.patch, config.stride, visible)
        return recipes.transfer(loss, content, style)
    if config.mode == "content":
        assert content is not None
        return recipes.content_reconstruction(loss, content)
    assert style is not None
    return recipes.texture(loss, style)


class _Watch:
    """Progress bar, snapshots and trace of a run."""

    def __init__(self, config: DictConfig, target: Path, counts: list[int]) -> None:
        self.config, self.target, self.counts = config, target, counts
        self.bar = tqdm(total=sum(counts), unit="it", disable=not sys.stderr.isatty())
        self.table: Any = None
        self.writer: Any = None
        self.stage, self.rows, self.offset = 0, 0, 0

    def __enter__(self) -> _Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()
        for open_one in (self.table, self.writer):
            if open_one is not None:
                open_one.close()

    def begin(self, stage: int, resume: Optimization | None) -> None:
        """A stage begins, maybe in its middle, after others that an earlier run did."""
        self.stage = stage
        if resume is None:
            self.offset = self.rows
            return
        earlier = self._earlier_rows() if self.config.trace == "csv" else []
        self.offset = len(earlier) or sum(self.counts[:stage])
        self.rows = self.offset + resume.iteration
        self.bar.update(self.rows)
        if self.config.trace == "csv":
            for row in earlier:
                self._write(row)
            for kept in resume.trace:
                self._tabulate(dict(kept))

    def _earlier_rows(self) -> list[dict[str, Any]]:
        """The table's rows of the stages before this one, as the run that was interrupted wrote them."""
        path = self.target.with_suffix(".csv")
        if not path.is_file():
            return []
        with path.open(newline="", encoding="utf-8") as file:
            return [row for row in csv.DictReader(file) if int(row.get("stage") or 0) < self.stage]

    def __call__(self, progress: Progress) -> None:
        self.rows += 1
        self.bar.set_postfix_str(f"loss {progress.terms['total']:.4g}", refresh=False)
        self.bar.update()
        if self.config.trace == "csv":
            self._tabulate({"iteration": progress.iteration, "seconds": progress.seconds, **progress.terms})
        elif self.config.trace == "tensorboard":
            self._plot(progress)
        if self.config.snapshots and progress.iteration % self.config.snapshots == 0:
            save_image(progress.image, snapshot_file(self.target, self.rows))

    def _tabulate(self, row: dict[str, float]) -> None:
        self._write({"stage": self.stage, **row, "iteration": row["iteration"] + self.offset})

    def _write(self, row: dict[str, Any]) -> None:
        if self.table is None:
            self.table = self.target.with_suffix(".csv").open("w", newline="", encoding="utf-8")
            csv.writer(self.table).writerow(row)
        csv.writer(self.table).writerow(row.values())

    def _plot(self, progress: Progress) -> None:
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.target.with_suffix(".tensorboard")))
        for name, value in progress.terms.items():
            self.writer.add_scalar(name, value, self.rows)


# --- pictures out ---------------------------------------------------------------------------------


def _target(config: DictConfig) -> Path:
    """Where the result goes; refuses what cannot be written, before any work."""
    if config.output is not None:
        target = check_path(config.output, "output")
    else:
        wants_content, wants_style = MODES[config.mode]
        parts = [Path(config.content).stem] if wants_content else []
        parts += [check_name(config.style.name, "style.name")] if wants_style else []
        parts += [config.mode] if config.mode != "transfer" else []
        target = Path("_".join(parts) + ".png")
    if config.trace == "tensorboard" and printable(str(target)) != str(target):
        raise ConfigError(f"{target}: is no UTF-8, which TensorBoard needs; use trace=csv, or another output")
    check_target(
        target,
        {"content": config.content, "style.image": config.style.image, "start": config.start},
        config.trace,
        bool(config.snapshots),
        config.overwrite,
        config.resume,
    )
    return target


def _saved(config: DictConfig, target: Path, sizes: list[tuple[int, int]]) -> tuple[int, Optimization | None]:
    """The state to go on from, if that is asked for, and which of the sizes it belongs to."""
    if not config.resume:
        return 0, None
    saved = Optimization.load(state_file(target))
    height, width = size_of(saved.pixels)
    if (height, width) not in sizes:
        found = ", ".join(f"{w}×{h}" for h, w in sizes)
        raise ConfigError(
            f"{state_file(target)} holds {width}×{height} pixels, this run makes {found}; resume takes the settings "
            "it had, or start anew without resume=true"
        )
    return sizes.index((height, width)), saved


def _write(config: DictConfig, sources: Sources, image: Tensor, target: Path) -> None:
    reference = sources.style if config.mode in ("texture", "style") else sources.content
    if config.match_histogram and reference is not None:
        image = match_histogram(image, reference)
    if config.preserve_color == "luminance" and sources.content is not None:
        image = with_luminance(resized(sources.content, size_of(image)), image)
    save_image(image, target)
