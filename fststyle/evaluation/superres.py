"""Super-resolution measured as it is published: PSNR and SSIM of luminance, and those of bicubic interpolation."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
from tqdm import tqdm

from fststyle.checks import check_free, check_path, has_keys
from fststyle.color import luminance, with_histogram_of
from fststyle.evaluation import page as html
from fststyle.evaluation.figures import write_json
from fststyle.images import (
    MIN_SIDE,
    Failure,
    ImageError,
    check_folder,
    no_pictures,
    open_visible,
    save_image,
    search,
    to_image,
    to_pixels,
    write_atomically,
)
from fststyle.inference import Upscaler
from fststyle.inference.paths import label_of, nothing_done, skip
from fststyle.model_file import bundled_files, check_kind, find_model_file
from fststyle.networks.superres import reduce
from fststyle.resources import printable

#: What enlarges: uint8 (H, W, 3) to uint8 (scale · H, scale · W, 3).
Enlarge = Callable[[np.ndarray], np.ndarray]
#: Columns of the table.
MEASURES = ("psnr", "ssim")
#: What is shown besides the models' results.
SHOWN = ("original", "input", "bicubic")


@dataclass
class Measured:
    """One picture: its file's name, ``figures[method][measure]``, and the pictures, uint8, by method."""

    name: str
    figures: dict[str, dict[str, float]]
    pictures: dict[str, np.ndarray] = field(default_factory=dict)


def measure_files(
    dataset: str,
    output: str = "evaluate",
    models: Sequence[str] = (),
    scale: int | None = None,
    blur: float = 0.0,
    match_histogram: bool = False,
    pictures: int = 8,
    device: str = "auto",
    backend: str = "auto",
    precision: str = "auto",
) -> tuple[list[Measured], list[Failure]]:
    """Measure models on a folder of pictures, and write a report.

    Args:
        dataset: the folder.
        output: the report's.
        models: bundled names, or model files; none: all that are bundled for the scale.
        scale: what they enlarge by; None: the models', or 4.
        blur: of the reduction, as in ``evaluate``.
        match_histogram: give results the reduced pictures' histograms.
        pictures: that the report shows.
        device, backend, precision: as for ``Upscaler.from_checkpoint``.

    Returns:
        What was measured, and the pictures that could not be read, which stderr names.

    Raises:
        ValueError, OSError: refused before work began, or not one picture could be measured.
    """
    files, failures = search(dataset)
    if not files:
        raise nothing_done(failures, report=True) if failures else no_pictures(dataset)
    folder = check_folder(output)
    models = models or [name for name in bundled_files("superres") if _scale(name) == (scale or 4)]
    scales = {model: _scale(model) for model in models}
    scale = scale or next(iter(scales.values()), 4)
    for model, own in scales.items():
        if own != scale:
            raise ValueError(f"{model} enlarges by {own}; the others, or --scale, by {scale}: measure them separately")
    twice = [label for label, count in Counter(map(label_of, models)).items() if count > 1]
    if twice:
        raise ValueError(f"two of the models are called {twice[0]}; give one of the files another name")
    if not blur >= 0:
        raise ValueError(f"--blur is {blur}; expected a number ≥ 0")
    check_report(folder, files[:pictures], list(map(label_of, models)))
    methods = {}
    for model in models:
        enlarge = Upscaler.from_checkpoint(model, device, backend, precision).pixels
        methods[label_of(model)] = to_matched(enlarge) if match_histogram else enlarge
    several = len(files) + len(failures) > 1
    for _, reason in failures:
        skip(reason)

    def failed(file: Path, reason: str) -> None:
        failures.append((file, reason))
        if several:
            skip(reason)

    found = evaluate(files, methods, scale, blur, pictures, failed)
    rows = list(tqdm(found, total=len(files), unit="picture", disable=not sys.stderr.isatty()))
    if not rows:
        raise nothing_done(failures)
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "data set": Path(dataset).name,
        "scale": scale,
        "blur of the reduction": blur,
        "histogram matched": match_histogram,
        "measured on": f"luminance (BT.601), a border of {scale} pixels left out",
    }
    write(rows, folder, f"Super-resolution ×{scale} on {about['data set']}", about)
    return rows, failures


def _scale(model: str) -> int:
    arguments = check_kind(find_model_file(model, "superres"), "superres")["network"]["arguments"]
    return int(arguments.get("scale", 1))


def bicubic(scale: int) -> Enlarge:
    """Bicubic interpolation, as Pillow's."""
    return lambda small: np.asarray(
        Image.fromarray(small).resize((small.shape[1] * scale, small.shape[0] * scale), Image.Resampling.BICUBIC)
    )


def evaluate(
    files: Sequence[Path],
    methods: Mapping[str, Enlarge],
    scale: int,
    blur: float = 0.0,
    keep: int = 0,
    failed: Callable[[Path, str], object] | None = None,
) -> Iterator[Measured]:
    """Reduce pictures, let every method enlarge them again, and measure what comes back.

    A picture is cut to multiples of ``scale``; the reduced one is rounded to 8 bits, as a file would hold it.

    Args:
        files: of pictures.
        methods: name to what enlarges; ``bicubic`` is there always.
        scale: how many times smaller, and larger again.
        blur: of the reduction, as in ``networks.superres.reduce``; published figures take none.
        keep: of the first so many, the pictures as well.
        failed: called with a picture that cannot be read, and why.

    Raises:
        ImageError: such a picture, where ``failed`` is None; one that is too small.
    """
    for number, file in enumerate(files):
        try:
            whole = np.asarray(open_visible(file))
        except ImageError as error:
            if failed is None:
                raise
            failed(file, str(error))
            continue
        height, width = (side // scale * scale for side in whole.shape[:2])
        if min(height, width) // scale < MIN_SIDE:
            raise ImageError(
                f"{file}: is {whole.shape[1]}×{whole.shape[0]} pixels; ×{scale} takes {MIN_SIDE * scale} and more"
            )
        original = whole[:height, :width]
        small = to_pixels(reduce(to_image(original), scale, blur))
        made = {"bicubic": bicubic(scale)(small)} | {name: method(small) for name, method in methods.items()}
        figures = {name: measure(result, original, scale) for name, result in made.items()}
        pictures = {"original": original, "input": small, **made} if number < keep else {}
        yield Measured(file.name, figures, pictures)


def measure(result: np.ndarray, original: np.ndarray, border: int) -> dict[str, float]:
    """PSNR (dB) and SSIM of luminance (BT.601, 16 to 235), a border of so many pixels left out.

    Args:
        result, original: uint8 (H, W, 3).
    """
    inside = (..., slice(border, -border or None), slice(border, -border or None))
    found, wanted = (luminance(to_image(pixels).double())[inside] for pixels in (result, original))
    return {"psnr": float(peak_signal_noise_ratio(found, wanted, data_range=1.0)), "ssim": float(ssim(found, wanted))}


def ssim(found: Tensor, wanted: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004): Gaussian window of 11 pixels, deviation 1.5, wholly inside."""
    _, everywhere = structural_similarity_index_measure(
        found, wanted, gaussian_kernel=True, sigma=1.5, data_range=1.0, return_full_image=True
    )
    return everywhere[..., 5:-5, 5:-5].mean()


def means(rows: Sequence[Measured]) -> dict[str, dict[str, float]]:
    """``figures`` over all pictures, each counting the same."""
    return {
        method: {name: float(np.mean([row.figures[method][name] for row in rows])) for name in MEASURES}
        for method in rows[0].figures
    }


def lines(rows: Sequence[Measured]) -> list[str]:
    """The means as a table to be printed."""
    width = max(len(method) for method in rows[0].figures)
    return [f"{'':<{width}}   PSNR    SSIM"] + [
        f"{method:<{width}}  {figures['psnr']:6.2f}  {figures['ssim']:.4f}" for method, figures in means(rows).items()
    ]


def check_report(folder: Path, pictures: Sequence[Path], models: Sequence[str]) -> None:
    """Refuse to write a report over files that none wrote, or under names that no file can have.

    Args:
        folder: for the report.
        pictures: of the data set.
        models: what they are called in the report.

    Raises:
        ValueError: what is there, or which name.
    """
    methods = [*SHOWN, *models]
    files = [
        check_path(folder / f"{picture.stem}_{method}.png", "output") for picture in pictures for method in methods
    ]
    if not has_keys(folder / "figures.json", "pictures", "mean"):
        check_free([*(folder / name for name in ("index.html", "figures.csv", "figures.json")), *files], "-o FOLDER")


def write(rows: Sequence[Measured], folder: Path, title: str, about: Mapping[str, object]) -> None:
    """Write ``index.html``, ``figures.csv``, ``figures.json`` and, of pictures that were kept, PNG files.

    Args:
        rows: from ``evaluate``.
        folder: exists.
        title, about: of the page; how it was measured.
    """
    text = StringIO()
    table = csv.writer(text)
    table.writerow(["picture", "method", *MEASURES])
    for row in rows:
        table.writerows(
            [row.name, method, *(found[name] for name in MEASURES)] for method, found in row.figures.items()
        )
    write_atomically(folder / "figures.csv", lambda file: file.write(printable(text.getvalue()).encode()))
    write_json(folder / "figures.json", {**about, "pictures": len(rows), "mean": means(rows)})
    html.write_page(folder / "index.html", title, [*_head(rows, about), *_shown(rows, folder)])


def _head(rows: Sequence[Measured], about: Mapping[str, object]) -> list[str]:
    cells = [
        [method, f"{found['psnr']:.2f} dB", f"{found['ssim']:.4f}", str(len(rows))]
        for method, found in means(rows).items()
    ]
    each = [
        [row.name, *(f"{found['psnr']:.2f} / {found['ssim']:.3f}" for found in row.figures.values())] for row in rows
    ]
    return [
        html.table(about),
        html.grid(["mean", "PSNR", "SSIM", "pictures"], cells),
        html.heading("Picture by picture, PSNR / SSIM"),
        html.grid(["", *rows[0].figures], each),
    ]


def _shown(rows: Sequence[Measured], folder: Path) -> list[str]:
    parts = []
    for row in (row for row in rows if row.pictures):
        stem = Path(row.name).stem
        figures = []
        for method, pixels in row.pictures.items():
            save_image(pixels, folder / f"{stem}_{method}.png")
            found = row.figures.get(method)
            told = f"{method}, {found['psnr']:.2f} dB, {found['ssim']:.3f}" if found else method
            figures.append(html.picture(pixels, told))
        parts += [html.heading(stem), html.row(figures)]
    return parts


def to_matched(enlarge: Enlarge) -> Enlarge:
    """``enlarge``, and then the input's histogram, channel by channel (Johnson, Alahi, Fei-Fei 2016, § 4.2)."""
    return lambda small: with_histogram_of(enlarge(small), small)
