"""Pictures in, pictures out, named after them: what every command that makes pictures of pictures shares."""

from __future__ import annotations

import glob
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from fststyle.images import (
    ImageError,
    Picture,
    check_ending,
    check_writable,
    existing_part,
    find_pictures,
    read_picture,
    save_image,
)

#: Endings that results keep from their inputs; others become PNG.
_KEPT = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"}


#: One picture's work: what was read to what is written, of any size.
Work = Callable[[Picture], np.ndarray]


def process(
    inputs: Sequence[Path], targets: Sequence[Path], work: Work, read: Callable[[Path], Picture] = read_picture
) -> int:
    """Let ``work`` make a picture of every input; the exit code.

    A picture that cannot be read or written is named and skipped. Transparency is kept.

    Args:
        inputs, targets: files, from ``expand`` and ``plan``.
        work: called with one picture at a time.
        read: an input.

    Raises:
        ImageError: not one of them could be done.
    """
    for folder in {target.parent for target in targets}:
        if folder.exists():  # else it is made when the first picture is done, so that a refusal leaves nothing behind
            check_writable(folder)
    failures: list[str] = []
    with tqdm(total=len(inputs), unit="picture", disable=len(inputs) == 1 or not sys.stderr.isatty()) as bar:
        for source, target in zip(inputs, targets, strict=True):
            try:
                picture = read(source)
                output = work(picture)
                target.parent.mkdir(parents=True, exist_ok=True)
                save_image(output, target, _fitted(picture.alpha, output))
                tqdm.write(str(target))
            except (ImageError, OSError) as error:
                unwritten = f"{target}: cannot be written ({getattr(error, 'strerror', None) or error})"
                failures.append(str(error) if isinstance(error, ImageError) else unwritten)
                if len(inputs) > 1:
                    tqdm.write(f"fststyle: skipped: {failures[-1]}", file=sys.stderr)
            bar.update()
    if not failures:
        return 0
    if len(failures) == len(inputs):  # nothing was done at all: refused
        raise ImageError(failures[0] if len(inputs) == 1 else f"none of the {len(inputs)} pictures could be done")
    print(f"fststyle: {len(inputs) - len(failures)} done, {len(failures)} skipped", file=sys.stderr)
    return 1


def _fitted(alpha: np.ndarray | None, output: np.ndarray) -> np.ndarray | None:
    if alpha is None or alpha.shape == output.shape[:2]:
        return alpha
    height, width = output.shape[:2]
    return np.asarray(Image.fromarray(alpha).resize((width, height), Image.Resampling.BICUBIC))


def label_of(name_or_path: str) -> str:
    """What results are called after a checkpoint: its name, or its file's without folder and ending."""
    is_file = os.sep in name_or_path or name_or_path.endswith(".safetensors")
    return Path(name_or_path).stem if is_file else name_or_path


def expand(inputs: list[str], label: str | None = None) -> Iterator[Path]:
    """Paths, globs and folders (without their sub-folders) to picture files.

    In a folder, what an earlier run made of a picture that lies there too is left out, if the ``label``
    of results is given.

    Raises:
        ImageError: a path or pattern that matches nothing, a folder without pictures.
    """
    for text in inputs:
        path = Path(text).expanduser()
        if path.is_dir():
            found = find_pictures(path, recursive=False)
            made = {f"{picture.stem}_{label}" for picture in found}
            yield from (picture for picture in found if picture.stem not in made)
        elif path.exists():
            yield path
        elif glob.has_magic(text):
            matches = sorted(glob.glob(str(path), recursive=True))
            if not matches:
                raise ImageError(f"{text}: matches no file")
            yield from (Path(match) for match in matches if not os.path.isdir(match))
        else:
            raise ImageError(f"{text}: no such file")


def plan(inputs: list[Path], output: str | None, label: str) -> list[Path]:
    """Where each result goes: beside its input, into the folder ``output``, or to the file ``output``.

    Raises:
        ImageError: one file for several results, or two inputs with one result.
    """
    names = [f"{path.stem}_{label}{path.suffix if path.suffix.lower() in _KEPT else '.png'}" for path in inputs]
    if output is None:
        targets = [path.parent / name for path, name in zip(inputs, names, strict=True)]
    else:
        out = Path(output).expanduser()
        as_file = bool(out.suffix) and not out.is_dir() and not output.endswith(os.sep)
        if as_file and len(inputs) > 1:
            raise ImageError(f"{output}: is one file for {len(inputs)} pictures; give a folder")
        if as_file:
            check_ending(out)
        targets = [out] if as_file else [out / name for name in names]
        check_writable(existing_part(out.parent if as_file else out))
    for target, count in Counter(targets).items():
        if count > 1:
            raise ImageError(f"{target}: {count} inputs would be written there; do them separately")
    return targets
