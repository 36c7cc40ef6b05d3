"""What is promised of folders of files and of damaged files, measured.

    python scripts/checks/files.py folder [--style NAME] [--count 500] [--size 640]
    python scripts/checks/files.py kills  [--style NAME] [--kills 20] [--files 135]
    python scripts/checks/files.py fuzz   [--mutations 10000]

``folder``: a folder of files of every kind, some of them damaged; its time against the network's alone.
``kills``: a run over a folder killed at random. ``fuzz``: mutated files through the reader.
Figures go to ``--json FILE``, files on which the reader crashes or hangs into ``-o FOLDER``.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import multiprocessing
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from fststyle.cli import main as fststyle
from fststyle.images import ImageError, large, open_picture, read_header, read_picture, save_image
from fststyle.inference import Stylizer
from fststyle.model_file import all_styles
from measuring import ENVIRONMENT, Figures, Folder, measure, photograph, timed

STYLE = min(all_styles())
#: Folders in which specimens lie.
ROUNDS = 5
#: Longer than this a reader hangs, in seconds.
HANG = 10
#: Numbers that a header seldom has, as bytes.
EXTREMES = [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\0\0\x40\0", b"\xff\xff"]


# --- every kind of file -------------------------------------------------------------------------------


def kinds() -> dict[str, Callable[[Image.Image, Path], Any]]:
    """A name with its ending, and what writes a picture so."""

    def saved(mode: str = "RGB", **options: Any) -> Callable[[Image.Image, Path], None]:
        return lambda picture, path: picture.convert(mode).save(path, **options)

    def exif(orientation: int) -> Image.Exif:
        block = Image.Exif()
        block.update({0x0112: orientation, 0x010F: "Maker"})
        return block

    def deep(picture: Image.Image, path: Path) -> None:
        rgb = np.asarray(picture).astype(np.uint16) * 257
        save_image(rgb + np.arange(rgb.shape[1], dtype=np.uint16)[:, None] % 200, path)

    def grey(picture: Image.Image, path: Path) -> None:
        Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257).save(path)

    def alpha(picture: Image.Image, path: Path) -> None:
        save_image(np.asarray(picture), path, np.asarray(Image.linear_gradient("L").resize(picture.size)))

    def moving(picture: Image.Image, path: Path) -> None:
        picture.save(path, save_all=True, append_images=[picture.rotate(180)], duration=100)

    def tiled(picture: Image.Image, path: Path) -> None:
        with path.open("wb") as file:
            large.encode(large.from_array(np.asarray(picture)), file, "TIFF")

    made: dict[str, Callable[[Image.Image, Path], Any]] = {
        "baseline.jpg": saved(quality=90),
        "progressive.jpg": saved(quality=90, progressive=True),
        "grey.jpg": saved("L"),
        "cmyk.jpg": saved("CMYK"),
        **{f"exif{turn}.jpg": saved(exif=exif(turn)) for turn in range(1, 9)},
        "rgb.png": saved(),
        "palette.png": lambda picture, path: picture.quantize(64).save(path),
        **{"grey.png": saved("L"), "grey16.png": grey, "alpha.png": alpha},
        **{"lossy.webp": saved(), "moving.webp": moving},
        **{"plain.tif": saved(), "lzw.tif": saved(compression="tiff_lzw")},
        **{"first.gif": moving, "old.bmp": saved()},
    }
    if large.available():
        made |= {"deep.png": deep, "deep.tif": deep, "tiled.tif": tiled}
    if features.check("avif"):
        made["small.avif"] = saved(speed=10)
    if importlib.util.find_spec("pillow_heif"):
        made["phone.heic"] = lambda picture, path: save_image(np.asarray(picture), path)
    return made


def specimens(folder: Path, count: int, size: int, damaged: float, seed: int = 0) -> tuple[list[Path], list[Path]]:
    """So many files of every kind in turn, in sub-folders, a share of them damaged: the good and the bad ones."""
    chance, makers = random.Random(seed), list(kinds().items())
    good: list[Path] = []
    bad: list[Path] = []
    spoilt = set(chance.sample(range(count), round(damaged * count)))
    source = Image.fromarray(photograph(size * 2, size * 2))
    for number in range(count):
        name, write = makers[number % len(makers)]
        path = folder / f"{number * ROUNDS // count}" / f"{number:04d}_{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        left, top = (chance.randrange(source.width - size) for _ in range(2))
        write(source.crop((left, top, left + size, top + size * 3 // 4)), path)
        if number in spoilt:
            spoil(path, chance)
        (bad if number in spoilt else good).append(path)
    return good, bad


def spoil(path: Path, chance: random.Random) -> None:
    """Damage that no reader can overlook."""
    whole = path.read_bytes()
    spoilt = [b"", b"This is no picture.\n", whole[: len(whole) // 3], bytes(len(whole)), whole[len(whole) // 2 :]]
    path.write_bytes(chance.choice(spoilt))


# --- folders ------------------------------------------------------------------------------------------


def folder_run(style: str = STYLE, count: int = 500, size: int = 640, backend: str = "auto") -> Figures:
    """Folders with a share of damaged files: what was done and told, and the time against the network's alone, in turn.

    The files lie in ``ROUNDS`` folders. The network alone, its pictures in memory, does half of one before the command
    and half after, since a machine's speed drifts.
    """
    found: Counter[str] = Counter()
    shares: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        good, bad = specimens(Path(name) / "in", count, size, 0.05)
        stylizer = Stylizer.from_checkpoint(style, "cpu", backend, "float32")
        stylizer.pixels(read_picture(good[0]).rgb)
        for number in range(ROUNDS):
            folder, out = Path(name) / "in" / str(number), Path(name) / "out" / str(number)
            shown = [read_picture(path).rgb for path in good if folder in path.parents]
            alone = timed(lambda shown=shown: [stylizer.pixels(rgb) for rgb in shown[::2]])  # type: ignore[misc]
            words = ["stylize", str(folder), "-o", str(out), "--recursive", "--style", style, "--backend", backend]
            told, began = io.StringIO(), time.perf_counter()
            with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
                found[f"code {fststyle([*words, '--precision', 'float32'])}"] += 1
            taken = time.perf_counter() - began
            alone += timed(lambda shown=shown: [stylizer.pixels(rgb) for rgb in shown[1::2]])  # type: ignore[misc]
            shares.append(alone / taken)
            lines = told.getvalue().splitlines() or [""]  # nothing to tell
            wrong = [path for path in bad if folder in path.parents]
            found["named"] += sum(any(line.startswith(f"fststyle: skipped: {p}: ") for line in lines) for p in wrong)
            found["in the summary"] += sum(str(path) in lines[-1] for path in wrong)
            print(f"round {number}: {shares[-1]:.3f}, {lines[-1][:60]} …", flush=True)
        results = [path for path in (Path(name) / "out").rglob("*") if path.is_file()]
        there = {"good": len(good), "bad": len(bad), "done": len(results), "whole": sum(map(is_whole, results))}
        yield from {**there, **found, "throughput": statistics.median(shares), "rounds": shares}.items()


def is_whole(path: Path) -> bool:
    """Whether a picture can be read to its end."""
    try:
        open_picture(path)
    except ImageError:
        return False
    return True


# --- kills --------------------------------------------------------------------------------------------


def kills(style: str = STYLE, kills: int = 20, files: int = 135, size: int = 480, within: float = 8) -> Figures:
    """A run killed at random, again and again: results that are not whole, and whether the last run completes.

    ``within``: seconds in which it is killed.
    """
    chance, found = random.Random(0), Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name) / "in", Path(name) / "out"
        good, _ = specimens(folder, files, size, 0)
        words = ["stylize", str(folder), "-o", str(out), "--recursive", "--skip-existing", "--style", style]
        words += ["--backend", "torch"]

        def results() -> list[Path]:
            return [path for path in out.rglob("*") if path.is_file() and not path.name.startswith(".")]

        while found["killed"] < kills and found["runs"] < 3 * kills:
            command = [sys.executable, "-m", "fststyle", *words, "--tiles", ["auto", "exact"][found["runs"] % 2]]
            found["runs"] += 1
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
            process = subprocess.Popen(command, **pipes, env=ENVIRONMENT)
            process.stdout.readline()  # it has begun
            try:
                process.wait(chance.uniform(0, within))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                found["killed"] += 1
            process.wait()
            found["not whole"] += sum(not is_whole(path) for path in results())
            found["scratch left"] = len(list(out.rglob("*.scratch")))
            if len(results()) == len(good) and found["killed"] < kills:
                for path in results():
                    path.unlink()
        code = fststyle(words)
        there = results()
        ended = {"code": code, "wanted": len(good), "there": len(there), "whole": sum(map(is_whole, there))}
        yield from {**found, **ended}.items()


# --- fuzz ---------------------------------------------------------------------------------------------


def mutated(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """A file with something wrong in it."""
    raw = bytearray(data)

    def place() -> int:  # headers are worth more
        return chance.randrange(min(len(raw), chance.choice([64, 512, len(raw)])))

    for _ in range(chance.choice([1, 1, 2, 4, 16])):
        change = chance.randrange(8)
        at = 0 if change in (1, 3) else place()
        if change == 0:
            raw[at] ^= 1 << chance.randrange(8)
        elif change == 1:
            raw[place()] = chance.randrange(256)
        elif change == 2:
            extreme = chance.choice(EXTREMES)
            raw[at : at + len(extreme)] = extreme
        elif change == 3:
            del raw[chance.randrange(1, len(raw) + 1) :]
        elif change == 4:
            del raw[at : at + chance.randrange(1, 64)]
        elif change == 5:
            raw[at:at] = raw[at : at + chance.randrange(1, 256)]
        elif change == 6:
            raw[at : at + 64] = other[at : at + 64]
        else:
            raw[at:at] = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 32)))
        if not raw:
            return b"\0"
    return bytes(raw)


def no_core_dumps() -> None:
    """In a process that may crash: leave no file of its memory behind."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def read_both_ways(path: Path, scratch: Path) -> tuple[list[str], float, float]:
    """What came of a file by each reader, the longer time in seconds, and this process's peak memory in GiB."""
    outcomes, slowest = [], 0.0
    for by_strips in (False, True):
        began = time.perf_counter()
        try:
            if by_strips:
                large.decoded(path, read_header(path), scratch)
            else:
                read_picture(path, keep_16bit=True)
            outcomes.append("read")
        except ImageError as error:
            clear = "\n" not in str(error) and str(error).startswith(str(path))
            outcomes.append("refused" if clear else f"unclear: {error!s}")
        except BaseException as error:
            outcomes.append(f"{type(error).__name__}: {error!s}"[:200])
        slowest = max(slowest, time.perf_counter() - began)
    return outcomes, slowest, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def fuzz(mutations: int = 10000, output: Folder = None) -> Figures:
    """Mutated files of every kind through both readers: crashes, hangs, peak memory, errors that are not ours."""
    chance, odd, peak, slowest = random.Random(0), [], 0.0, 0.0
    found = Counter(dict.fromkeys(("read", "refused", "other", "crashes", "hangs"), 0))
    pool = None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        good, _ = specimens(folder / "whole", 2 * len(kinds()), 64, 0)
        whole = [(path.name, path.read_bytes()) for path in good]
        for number in range(mutations):
            label, data = chance.choice(whole)
            path = folder / f"{number:06d}_{label}"
            path.write_bytes(mutated(data, chance.choice(whole)[1], chance))
            pool = pool or ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), no_core_dumps)
            try:  # two ways to read, and the process may have to start
                outcomes, seconds, used = pool.submit(read_both_ways, path, folder).result(2 * HANG + 20)
            except (BrokenProcessPool, TimeoutError) as error:
                fault = "hangs" if isinstance(error, TimeoutError) else "crashes"
                found[fault] += 1
                odd.append(f"{fault}: {path}")
                for process in multiprocessing.active_children():
                    process.kill()
                pool.shutdown()
                pool = None
                if output:
                    (output / path.name).write_bytes(path.read_bytes())
            else:
                slowest, peak = max(slowest, seconds), max(peak, used)
                found["hangs"] += seconds > HANG
                found.update(one if one in ("read", "refused") else "other" for one in outcomes)
                odd += [f"{path.name}: {one}" for one in outcomes if one not in ("read", "refused")]
            path.unlink()
        if pool:
            pool.shutdown()
    yield from {**found, "slowest, seconds": slowest, "peak GiB": peak, "odd": odd[:50]}.items()


if __name__ == "__main__":
    measure(__doc__, {"folder": folder_run, "kills": kills, "fuzz": fuzz})
