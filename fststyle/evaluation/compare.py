"""Fast against slow: a model's one pass compared with the optimisation of its own loss.

The objective is the model file's: encoder, layers, weights, normalisers and style targets. The slow side
starts from noise with pixels clamped to [0, 1], in the same precision, on the same machine (Johnson,
Alahi, Fei-Fei 2016, Figure 5 and Table 1).
"""

from __future__ import annotations

import hashlib
import json
import logging
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fststyle.checks import check_free, check_name, check_path, has_keys
from fststyle.encoders.pretrained import encoder_of
from fststyle.evaluation import page as html
from fststyle.evaluation.figures import machine, write_json
from fststyle.images import Failure, ImageError, check_folder, check_style_sides, load_image, read_picture, save_image
from fststyle.inference import Stylizer
from fststyle.inference.paths import expand, readable
from fststyle.losses import LossTerms, PerceptualLoss
from fststyle.model_file import ModelFile, find_model_file, load_model_file, one_style
from fststyle.octaves import NO_VARIATION
from fststyle.optimization import Optimization, Progress, optimize
from fststyle.optimization.recipes import size_of, starting_image, transfer
from fststyle.resources import user_path

log = logging.getLogger(__name__)

#: Iterations of the slow side that are shown as pictures and, from 100 on, timed in the table.
SHOWN = (50, 100, 300, 500)


@dataclass
class Style:
    """A model file with the loss that it was trained with."""

    checkpoint: ModelFile
    loss: PerceptualLoss
    painting: np.ndarray | None = None

    @property
    def name(self) -> str:
        return str(self.checkpoint.metadata["name"])

    @classmethod
    def load(
        cls, name: str, image: str | None = None, encoder: str | None = None, normalize: str | None = None
    ) -> Style:
        """Load a model file and its encoder.

        Args:
            name: a bundled name, or a model file.
            image: a picture file of the painting, to be shown.
            encoder, normalize: as ``weights`` and ``normalize`` of ``encoder_of``.

        Raises:
            ValueError, OSError: what cannot be loaded.
        """
        checkpoint = load_model_file(one_style(find_model_file(name, "style")), "style")
        loss = PerceptualLoss.from_metadata(encoder_of(checkpoint.metadata, encoder, normalize), checkpoint.metadata)
        if image is None:
            return cls(checkpoint, loss)
        check_style_sides(user_path(image))
        return cls(checkpoint, loss, read_picture(user_path(image), 512, trim=True).rgb)


def compare_files(
    photos: Sequence[str],
    styles: Sequence[str],
    images: Sequence[str] = (),
    output: str = "compare",
    sizes: Sequence[int] = (256,),
    encoder: str | None = None,
    normalize: str | None = None,
    **options: Any,
) -> tuple[list[dict[str, Any]], list[Failure]]:
    """Load photographs and styles, and compare.

    Args:
        photos: paths, globs and folders.
        styles: bundled names, or model files.
        images: the styles' paintings, to be shown; none, or one for each.
        output: the report's folder.
        sizes, options: as for ``compare``.
        encoder, normalize: as for ``Style.load``.

    Returns:
        What ``compare`` does, and the photographs that could not be read, which stderr names.

    Raises:
        ValueError, OSError: refused before work began.
    """
    given, failures = expand(photos)
    folder = check_folder(output)
    if not styles:
        raise ValueError("--style is missing; give a bundled style or a model file")
    stems = [photo.path.stem for photo in given]
    if len(set(stems)) < len(stems):
        raise ImageError("two photographs have one name; compare them separately")
    if images and len(images) != len(styles):
        raise ValueError(f"found {len(images)} --style-image for {len(styles)} --style; expected one for each")
    seen, failures = readable((each.path for each in given), lambda path: read_picture(path, min(sizes)), failures)
    shown: Sequence[str | None] = images or [None] * len(styles)
    loaded = [Style.load(*each, encoder, normalize) for each in zip(styles, shown, strict=True)]
    return compare(list(seen), loaded, sizes, folder, **options), failures


def compare(
    photos: Sequence[Path],
    styles: Sequence[Style],
    sizes: Sequence[int],
    folder: Path,
    iterations: int = 500,
    until_crossed: bool = False,
    device: str = "auto",
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Measure every photograph in every style at every size, and write the report.

    ``folder`` gets ``index.html``, ``report.json``, and the pictures as PNG. Each case that is done is
    kept there, and one that was broken off goes on where it was, when the same folder is given again.

    Args:
        photos: picture files.
        styles: checkpoints with their losses.
        sizes: longer side in pixels.
        folder: made if it is not there.
        iterations: of the slow side.
        until_crossed: stop it once it is as good as the one pass.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        seed: of the noise.

    Returns:
        One entry per case, as in ``report.json``.

    Raises:
        ValueError: refused before work began.
    """
    if iterations < 1:
        raise ValueError(f"iterations is {iterations}; expected at least 1")
    check_report(folder, photos, styles, sizes)
    folder.mkdir(parents=True, exist_ok=True)
    if not _is_report(folder):  # it marks the folder as a report's
        write_json(folder / "report.json", {"machine": machine(), "cases": []})
    cases = [(photo, style, size) for size in sizes for style in styles for photo in photos]
    measured: list[dict[str, Any]] = []
    prints = {style.name: fingerprint(style) for style in styles}
    try:
        for number, (photo, style, size) in enumerate(cases, 1):
            stem = _stem(photo.name, style.name, size)
            done = folder / f"{stem}.json"
            wanted: dict[str, Any] = {"iterations": iterations, "until_crossed": until_crossed, "seed": seed}
            wanted["checkpoint"] = prints[style.name]
            kept = json.loads(done.read_text()) if done.is_file() else {}
            if kept.get("settings") != wanted:
                log.info("%d of %d: %s", number, len(cases), stem)
                found = measure(photo, style, size, folder / stem, device, iterations, until_crossed, seed)
                kept = {"settings": wanted, **found}
                write_json(done, kept)
            else:
                log.info("%d of %d: %s is done already", number, len(cases), stem)
            measured.append(kept)
    finally:
        if measured:
            write_json(folder / "report.json", {"machine": machine(), "cases": measured})
            parts = report(measured, folder, {style.name: style.painting for style in styles})
            html.write_page(folder / "index.html", "Fast against slow", parts)
    return measured


def check_report(folder: Path, photos: Sequence[Path], styles: Sequence[Style], sizes: Sequence[int]) -> None:
    """Refuse to write a report over files that none wrote, or under names that no file can have.

    Args:
        folder, photos, styles, sizes: as in ``compare``.

    Raises:
        ValueError: what is there, or which name.
    """
    endings = (".json", ".state", "_photo.png", "_fast.png", "_slow.png", *(f"_slow_{count}.png" for count in SHOWN))
    for style in styles:
        check_name(style.name, "the name in a style's file")
    stems = [_stem(photo.name, style.name, size) for photo in photos for style in styles for size in sizes]
    files = [check_path(folder / f"{stem}{ending}", "output") for stem in stems for ending in endings]
    if not _is_report(folder):
        check_free([folder / "index.html", folder / "report.json", *files], "-o FOLDER")


def _is_report(folder: Path) -> bool:
    """Whether a folder holds a report, finished or not."""
    return has_keys(folder / "report.json", "machine", "cases")


def fingerprint(style: Style) -> str:
    """Short hash of a model file's network: a retrained style is measured anew."""
    digest = hashlib.sha256()
    for name, value in sorted(style.checkpoint.network.state_dict().items()):
        digest.update(name.encode() + value.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _stem(photo: str, style: str, size: int) -> str:
    """What a case's files begin with."""
    return f"{Path(photo).stem}_{style}_{size}"


def measure(
    photo: Path, style: Style, size: int, stem: Path, device: str, iterations: int, until_crossed: bool, seed: int
) -> dict[str, Any]:
    """One case: the one pass, then the slow side of the same objective."""
    stylizer = Stylizer(style.checkpoint.network, style.checkpoint.metadata, device)
    stylizer.variation = NO_VARIATION  # the objective is of the photograph itself, as in training
    content = load_image(photo, size).to(stylizer.device)
    loss = style.loss.to(stylizer.device)
    targets = {layer: target.to(stylizer.device) for layer, target in style.checkpoint.style_targets.items()}
    objective = transfer(loss, content, targets)
    output, seconds = _timed_pass(stylizer, content)

    def save(image: Tensor, part: str) -> None:
        save_image(image, stem.with_name(f"{stem.name}_{part}.png"))

    save(content, "photo")
    save(output, "fast")
    with torch.no_grad():
        fast, unstylised = summary(objective(output)), summary(objective(content))

    def watch(progress: Progress) -> bool:
        if progress.iteration in SHOWN:
            save(progress.image, f"slow_{progress.iteration}")
        return not (until_crossed and progress.terms["total"] <= fast["total"])

    state = stem.with_name(f"{stem.name}.state")
    start = starting_image("noise", size_of(content), seed=seed).to(stylizer.device)
    run = optimize(
        start,
        objective,
        iterations,
        callback=watch,
        save=(state, 50),
        resume=Optimization.load(state) if state.is_file() else None,
    )
    if run.stopped == "interrupted":
        run.save(state)
        raise KeyboardInterrupt(f"interrupted in {stem.name}; the same command goes on")
    state.unlink(missing_ok=True)
    save(run.image, "slow")
    return {
        "photo": photo.name,
        "style": style.name,
        "size": size,
        "pixels": [content.shape[-1], content.shape[-2]],
        "encoder": loss.encoder.name if loss.encoder else None,
        "network_parameters": sum(p.numel() for p in style.checkpoint.network.parameters()),
        "fast": {**fast, "seconds": seconds},
        "unstylised": unstylised,
        "slow": {
            "best": run.best,
            "total": [round(row["total"], 6) for row in run.trace],
            "elapsed": [round(row["seconds"], 3) for row in run.trace],
        },
        "equals_iterations": crossing([row["total"] for row in run.trace], fast["total"]),
        "iterations": len(run.trace),
    }


def _timed_pass(stylizer: Stylizer, content: Tensor, repeats: int = 5) -> tuple[Tensor, float]:
    output, times = stylizer(content), []
    for _ in range(repeats):
        began = time.perf_counter()
        output = stylizer(content)
        if output.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return output, statistics.median(times)


def summary(terms: LossTerms) -> dict[str, float]:
    """Total, and content and style as the mean over their layers."""
    kinds = {"content": terms.content, "style": terms.style}
    means = {name: float(torch.stack([*v.values()]).mean()) for name, v in kinds.items() if v}
    return {"total": float(terms.total), **means}


def crossing(totals: Sequence[float], fast: float) -> int | None:
    """The first iteration (from 1) whose total is as low as the one pass's; None if there is none."""
    return next((number for number, total in enumerate(totals, 1) if total <= fast), None)


# --- the page -------------------------------------------------------------------------------------


def report(cases: Sequence[Mapping[str, Any]], folder: Path, paintings: Mapping[str, np.ndarray | None]) -> list[str]:
    """The parts of the page, from what was measured and the pictures in the folder."""
    parts = [
        html.paragraph(
            "One pass of a trained network and the optimisation that it replaces, from noise, by L-BFGS, of the "
            "same objective: the loss that the network was trained with."
        ),
        html.paragraph(", ".join(f"{key}: {value}" for key, value in machine().items()), note=True),
        html.heading("How many iterations one pass equals"),
        html.grid(*equality_table(cases)),
        html.heading("Seconds"),
        html.grid(*speed_table(cases)),
    ]
    for case in cases:
        stem = _stem(case["photo"], case["style"], case["size"])
        parts.append(html.heading(f"{case['photo']} in the style of {case['style']}, {case['size']} px"))
        captions = {"photo": "photograph"}
        captions["fast"] = f"one pass: {case['fast']['seconds']:.3g} s, objective {case['fast']['total']:.3g}"
        for count in SHOWN:
            if count <= case["iterations"] and (folder / f"{stem}_slow_{count}.png").is_file():
                captions[f"slow_{count}"] = (
                    f"slow, {count} iterations: {case['slow']['elapsed'][count - 1]:.3g} s, "
                    f"objective {min(case['slow']['total'][:count]):.3g}"
                )
        pictures = {caption: read_picture(folder / f"{stem}_{part}.png").rgb for part, caption in captions.items()}
        if (painting := paintings.get(case["style"])) is not None:
            pictures["style"] = painting
        parts.append(html.row([html.picture(pixels, caption) for caption, pixels in pictures.items()]))
        best = np.minimum.accumulate(case["slow"]["total"]).tolist()
        steps, elapsed = list(range(1, len(best) + 1)), case["slow"]["elapsed"]
        level = [case["fast"]["total"]] * 2
        by_step = {"slow": (steps, best), "one pass": ([1, steps[-1]], level)}
        by_time = {"slow": (elapsed, best), "one pass": ([0, elapsed[-1]], level)}
        axes = ((by_step, "iterations"), (by_time, "seconds"))
        parts.append(html.row([html.curves(series, unit, "objective") for series, unit in axes]))
    return parts


def equality_table(cases: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Per style and size: the number of iterations that one pass equals, per photograph and as median (Figure 5)."""
    rows = []
    for (style, size), group in _grouped(cases).items():
        counts = [case["equals_iterations"] for case in group]
        shown = ", ".join(_count(c, case["iterations"]) for c, case in zip(counts, group, strict=True))
        known = [case["iterations"] + 1 if c is None else c for c, case in zip(counts, group, strict=True)]
        median = statistics.median(known)
        beyond = any(c is None and median >= known[i] for i, c in enumerate(counts))
        rows.append([style, f"{size} px", shown, f"{'> ' if beyond else ''}{median:g}"])
    return ["style", "size", "per photograph", "median"], rows


def speed_table(cases: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Per style and size: seconds for 100, 300 and 500 iterations and for one pass, and the ratio (Table 1)."""
    rows = []
    for (style, size), group in _grouped(cases).items():
        one = statistics.median(case["fast"]["seconds"] for case in group)
        slow = {}
        for count in SHOWN[1:]:
            times = [case["slow"]["elapsed"][count - 1] for case in group if case["iterations"] >= count]
            slow[count] = statistics.median(times) if times else None
        longest = max((count for count, value in slow.items() if value is not None), default=None)
        ratio = "" if longest is None else f"{slow[longest] / one:.0f}× ({longest})"  # type: ignore[operator]
        seconds = ["" if value is None else f"{value:.3g}" for value in slow.values()]
        rows.append([style, group[0]["encoder"], f"{size} px", *seconds, f"{one:.3g}", ratio])
    return ["style", "encoder", "size", *(f"{count} iterations" for count in SHOWN[1:]), "one pass", "ratio"], rows


def _grouped(cases: Iterable[Mapping[str, Any]]) -> dict[tuple[str, int], list[Mapping[str, Any]]]:
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for case in cases:
        groups.setdefault((case["style"], case["size"]), []).append(case)
    return groups


def _count(crossed: int | None, limit: int) -> str:
    return f"> {limit}" if crossed is None else str(crossed)
