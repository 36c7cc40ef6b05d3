"""``-`` among the pictures: standard input and standard output, by way of files in a folder that goes with the run."""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from shutil import copyfileobj
from typing import IO

from fststyle.images import MAX_PIXELS, ImageError
from fststyle.inference.batch import terminable

#: What ``--format`` takes, and the ending of such files.
FORMATS = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "tiff": ".tif"}
PIPE = "-"
#: Bytes of a pixel of 16 bits with alpha, and of what a file may hold besides pixels.
_PIXEL, _MORE = 8, 2**26
#: How HEIC begins, from its fifth byte on; Pillow looks for it in files that are called so.
_HEIC = (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypmsf1", b"ftyphevc")


@contextlib.contextmanager
def piped(options: argparse.Namespace) -> Iterator[None]:
    """Let ``options.inputs`` and ``options.output`` name files where they were ``-``, and hand on what they stood for.

    Standard input alone, without an output, is answered on standard output, on which then nothing else is printed.

    Args:
        options: ``inputs``, ``output`` and ``format`` as the user typed them, maybe ``max_pixels``.

    Raises:
        ImageError: no picture comes in, or several would go out.
    """
    if options.inputs == [PIPE] and options.output is None:
        options.output = PIPE
    to_stdout = options.output == PIPE
    if options.format and not to_stdout:
        raise ImageError(f"--format {options.format} is that of standard output; give -o -, or name a file's ending")
    if options.inputs.count(PIPE) > 1:
        raise ImageError("found - several times; standard input is one picture")
    if PIPE in options.inputs and options.output is None:
        raise ImageError("found - among several inputs; give -o FOLDER for the results")
    if PIPE not in options.inputs and not to_stdout:
        yield
        return
    out = _binary(sys.stdout, "output") if to_stdout else None
    names = {}
    with terminable(), tempfile.TemporaryDirectory(prefix="fststyle-") as folder:
        if PIPE in options.inputs:
            read = str(_received(Path(folder), getattr(options, "max_pixels", None)))
            options.inputs = [read if text == PIPE else text for text in options.inputs]
            names[read] = "standard input"
        if to_stdout:
            options.output = str(Path(folder) / f"result{FORMATS[options.format or 'png']}")
            names[options.output] = "standard output"
        try:
            with contextlib.redirect_stdout(io.StringIO()) if to_stdout else contextlib.nullcontext():
                yield
        except ImageError as error:
            text = str(error)
            for name, meant in names.items():
                text = text.replace(name, meant)
            raise ImageError(text) from None
        if out is not None and Path(options.output).exists():
            try:
                with open(options.output, "rb") as result:
                    copyfileobj(result, out)
                out.flush()
            except BrokenPipeError:  # whoever read it has left
                raise
            except OSError as error:
                raise RuntimeError(f"standard output: cannot be written ({error.strerror})") from error


def _binary(stream: IO[str] | None, name: str) -> IO[bytes]:
    """The bytes of a standard stream that is no terminal."""
    if stream is None or stream.closed:
        raise ImageError(f"standard {name} is closed; expected a pipe or a file")
    if stream.isatty():
        raise ImageError(f"standard {name} is a terminal; expected a pipe or a file")
    return stream.buffer  # type: ignore[attr-defined,no-any-return]


def _received(folder: Path, max_pixels: int | None) -> Path:
    """Standard input as a file; of one that is larger than a picture may be, no more is read."""
    stream = _binary(sys.stdin, "input")
    most = (max_pixels or MAX_PIXELS) * _PIXEL + _MORE
    first = stream.read(2**20)
    path = folder / ("stdin.heic" if first[4:12] in _HEIC else "stdin")
    with open(path, "wb") as file:
        chunk, size = first, 0
        while chunk:
            size += len(chunk)
            if size > most:
                raise ImageError(f"standard input: is no picture that is read, of more than {most / 1e6:.4g} MB")
            file.write(chunk)
            chunk = stream.read(2**20)
    return path
