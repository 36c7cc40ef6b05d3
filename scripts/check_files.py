"""What is promised of pictures of any size and kind, measured.

    python scripts/check_files.py equal    [--style NAME …] [--size 2048]
    python scripts/check_files.py large    [--size 2048 4096 8192 16384] [--precision float32]
    python scripts/check_files.py strength [--style NAME …]
    python scripts/check_files.py folder   [--count 500]
    python scripts/check_files.py kills    [--kills 20]
    python scripts/check_files.py fuzz     [--count 10000]

``equal``: every bundled style and network preset, tiled against the whole picture. ``large``: seconds, memory and
scratch space of one process from file to file, and a plot of memory against size. ``strength``: the style term between
0 and 1. ``folder``: a folder of files of every kind, some of them damaged; its time against the network's alone.
``kills``: a run over a folder killed at random. ``fuzz``: mutated files through the reader.
Figures go to ``--json FILE``, pictures into ``-o FOLDER``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, features
from skimage import data as photographs

from fststyle.cli import main as fststyle
from fststyle.images import (
    ImageError,
    contact_sheet,
    large,
    open_picture,
    read_header,
    read_picture,
    save_image,
    to_image,
)
from fststyle.images.large import Scratch, as_picture
from fststyle.images.sizes import resize_pixels, resized_rows
from fststyle.inference import Stylizer
from fststyle.inference.options import blend
from fststyle.model_file import bundled_files, find_model_file, load_model_file
from fststyle.networks.transform import TransformNet
from fststyle.resources import resource as installed

#: Folders in which specimens lie.
ROUNDS = 5
#: Up to this side whole pictures are measured beside tiled ones: some 8 GiB.
WHOLE = 4096
#: Longer than this a reader hangs, in seconds.
HANG = 10


def photograph(height: int, width: int) -> np.ndarray:
    """Four photographs side by side and one below the other, at this size."""
    pictures = [photographs.astronaut(), photographs.coffee(), photographs.chelsea(), photographs.rocket()]
    squares = [resize_pixels(picture[:, : len(picture)], 512, 512) for picture in pictures]
    quad = np.vstack([np.hstack(squares[:2]), np.hstack(squares[2:])])
    return resize_pixels(np.ascontiguousarray(quad), height, width)


# --- equal --------------------------------------------------------------------------------------------


def presets() -> Iterator[tuple[str, TransformNet]]:
    """Networks of ``conf/network`` that stylise, untrained; batch norm has the moments of one picture."""
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    folder = Path(installed("conf/network"))
    with initialize_config_dir(str(folder.absolute()), version_base="1.3"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # these are no primary configs elsewhere, which Hydra wants to name _self_
        for file in sorted(folder.glob("*.yaml")):
            config = compose(file.stem)
            if str(config.get("_target_", "")).endswith("TransformNet"):
                torch.manual_seed(0)
                network = instantiate(config).train()
                with torch.no_grad():
                    for _ in range(50):  # the running moments settle
                        network(to_image(photograph(256, 256)))
                yield file.stem, network


def equal(chosen: argparse.Namespace) -> dict[str, Any]:
    """The largest difference between strips and whole picture, of 255, and the share of values that differ."""
    from fststyle.inference.tiled import evaluate_in_strips

    n = chosen.size[0]
    sizes = [(n, n), (n // 2 - 1, n + 1), (n * 3000 // 2048, n * 700 // 2048)]
    found: dict[str, Any] = {}
    networks = [(name, load_model_file(find_model_file(name, "style")).network) for name in chosen.style]
    networks += [] if chosen.only_styles else list(presets())
    for name, network in networks:
        double = network.double().eval()
        image = torch.from_numpy(photograph(600, 512) / 255.0).permute(2, 0, 1)[None]
        with torch.no_grad():
            whole = double(image)
        parts = evaluate_in_strips(double, lambda top, end, image=image: image[:, :, top:end], 600, 512, 128)  # type: ignore[misc]
        away = float((torch.cat(list(parts), 2) - whole).abs().max())
        row: dict[str, Any] = {"float64": away}
        stylizer = Stylizer(network.float(), device="cpu", precision="float32")
        for height, width in sizes:
            rgb = photograph(height, width)
            difference = np.abs(stylizer.pixels(rgb).astype(int) - stylizer.pixels(rgb, memory=0))
            row[f"{height}x{width}"] = {"largest": int(difference.max()), "share": float((difference > 0).mean())}
            if chosen.output and difference.any():
                save_image((difference * 255).clip(0, 255).astype(np.uint8), chosen.output / f"{name}_{height}.png")
        found[name] = row
        print(name, json.dumps(row), flush=True)
    return found


# --- large --------------------------------------------------------------------------------------------


def large_files(chosen: argparse.Namespace) -> dict[str, Any]:
    """Seconds, peak memory and scratch space by size, and of the whole picture up to ``WHOLE`` a side."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=chosen.scratch) as folder:
        for n in chosen.size:
            source = Path(folder) / f"{n}.png"
            scratch, quad = Scratch((n, n, 3), np.uint8, folder), photograph(2048, 2048)
            scratch.fill(resized_rows(lambda top, end, quad=quad: quad[top:end], 2048, 2048, n, n))  # type: ignore[misc]
            with source.open("wb") as file:
                large.encode(as_picture(scratch), file, "PNG")
            scratch.close()
            for tiles in ["off", "exact"] if n <= WHOLE else ["exact"]:
                words = ["stylize", str(source), "--style", chosen.style[0], "-o", str(source.with_suffix(".out.png"))]
                words += ["--backend", "torch", "--precision", chosen.precision, "--tiles", tiles]
                words += ["--memory", chosen.memory, "--max-pixels", "1000M"]
                row = watched([sys.executable, "-m", "fststyle", *words])
                row["seconds per MP"] = row["seconds"] / (n * n / 1e6)
                found[f"{n} {'whole picture' if tiles == 'off' else 'tiled'}"] = row
                print(n, tiles, json.dumps(row), flush=True)
            source.unlink()
    if chosen.output:
        from fststyle.report.page import curves

        lines: dict[str, tuple[list[float], list[float]]] = {"tiled": ([], []), "whole picture": ([], [])}
        for name, row in found.items():
            side, _, kind = name.partition(" ")
            lines[kind][0].append(int(side) ** 2 / 1e6)
            lines[kind][1].append(row["GiB"])
        plot = curves(lines, "megapixels", "peak memory, GiB")
        (chosen.output / "memory.svg").write_text(plot, encoding="utf-8")
    return found


def watched(words: list[str]) -> dict[str, Any]:
    """A process: seconds, peak resident memory, and the most that its scratch files took."""
    began, most = time.perf_counter(), 0
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=errors, env=environment)
        peak = 0
        while process.poll() is None:
            taken = 0
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
                peak = max(peak, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)
                for link in Path(f"/proc/{process.pid}/fd").iterdir():
                    if ".scratch" in os.readlink(link):
                        taken += link.stat().st_blocks * 512
            except (OSError, TypeError):  # it ended, or a file was closed, meanwhile
                pass
            most = max(most, taken)
            time.sleep(0.05)
        errors.seek(0)
        if process.returncode:
            raise RuntimeError(errors.read())
    return {"seconds": time.perf_counter() - began, "GiB": peak / 2**20, "scratch GB": most / 1e9}


# --- strength -----------------------------------------------------------------------------------------


def strength(chosen: argparse.Namespace) -> dict[str, Any]:
    """Style term, a mean over layers, at strengths between 0 and 1; a plain cross-fade beside it."""
    from fststyle.encoders.pretrained import encoder_of
    from fststyle.losses import PerceptualLoss

    shares, found, rows = [0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1], {}, []
    photo = np.ascontiguousarray(photographs.astronaut()[:300, 100:500])
    for name in chosen.style:
        checkpoint = load_model_file(find_model_file(name, "style"), "style")
        loss = PerceptualLoss.from_metadata(encoder_of(checkpoint.metadata, None, None), checkpoint.metadata)
        output = Stylizer.from_checkpoint(name, "cpu").pixels(photo)
        row: dict[str, Any] = {"strength": shares, "blend": [], "cross-fade": []}
        for share in shares:
            mixed = blend(photo, output, share)
            faded = np.rint((1 - share) * photo + share * output.astype(float)).astype(np.uint8)
            for kind, picture in (("blend", mixed), ("cross-fade", faded)):
                with torch.no_grad():
                    image = to_image(picture)
                    terms = loss(image, style=checkpoint.style_targets, content=loss.content_targets(image))
                row[kind].append(float(np.mean([float(term) for term in terms.style.values()])))
        rows.append([blend(photo, output, share) for share in (0, 0.25, 0.5, 0.75, 1)])
        row["falls"] = bool((np.diff(row["blend"]) < 0).all())
        found[name] = row
        print(name, json.dumps(row), flush=True)
    if chosen.output:
        save_image(contact_sheet(rows), chosen.output / "strength.jpg")
    return found


# --- every kind of file -------------------------------------------------------------------------------


def kinds() -> dict[str, Callable[[Image.Image, Path], Any]]:
    """A name with its ending, and what writes a picture so."""

    def exif(orientation: int) -> Image.Exif:
        block = Image.Exif()
        block[0x0112] = orientation
        block[0x010F] = "Maker"
        return block

    def deep(picture: Image.Image, path: Path) -> None:
        rgb = np.asarray(picture).astype(np.uint16) * 257
        save_image(rgb + np.arange(rgb.shape[1], dtype=np.uint16)[:, None] % 200, path)

    def grey(picture: Image.Image, path: Path) -> None:
        Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257).save(path)

    def alpha(picture: Image.Image, path: Path) -> None:
        seen = picture.copy()
        seen.putalpha(Image.linear_gradient("L").resize(picture.size))
        seen.save(path)

    def moving(picture: Image.Image, path: Path) -> None:
        picture.save(path, save_all=True, append_images=[picture.rotate(180)], duration=100)

    def tiled(picture: Image.Image, path: Path) -> None:
        with path.open("wb") as file:
            large.encode(large.from_array(np.asarray(picture)), file, "TIFF")

    made: dict[str, Callable[[Image.Image, Path], Any]] = {
        "baseline.jpg": lambda picture, path: picture.save(path, quality=90),
        "progressive.jpg": lambda picture, path: picture.save(path, quality=90, progressive=True),
        "grey.jpg": lambda picture, path: picture.convert("L").save(path),
        "cmyk.jpg": lambda picture, path: picture.convert("CMYK").save(path),
        **{
            f"exif{turn}.jpg": lambda picture, path, turn=turn: picture.save(path, exif=exif(turn))  # type: ignore[misc]
            for turn in range(1, 9)
        },
        "rgb.png": lambda picture, path: picture.save(path),
        "palette.png": lambda picture, path: picture.quantize(64).save(path),
        "grey.png": lambda picture, path: picture.convert("L").save(path),
        "grey16.png": grey,
        "alpha.png": alpha,
        "lossy.webp": lambda picture, path: picture.save(path),
        "moving.webp": moving,
        "plain.tif": lambda picture, path: picture.save(path),
        "lzw.tif": lambda picture, path: picture.save(path, compression="tiff_lzw"),
        "first.gif": moving,
        "old.bmp": lambda picture, path: picture.save(path),
    }
    if large.available():
        made |= {"deep.png": deep, "deep.tif": deep, "tiled.tif": tiled}
    if features.check("avif"):
        made["small.avif"] = lambda picture, path: picture.save(path, speed=10)
    try:
        import pillow_heif
    except ImportError:
        return made
    pillow_heif.register_heif_opener()
    made["phone.heic"] = lambda picture, path: picture.save(path)
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


def folder_run(chosen: argparse.Namespace) -> dict[str, Any]:
    """Folders with a share of damaged files: what was done and told, and the time against the network's alone, in turn.

    The files lie in ``ROUNDS`` folders. The network alone, its pictures in memory, does half of one before the command
    and half after, since a machine's speed drifts.
    """
    found: Counter[str] = Counter()
    shares: list[float] = []
    with tempfile.TemporaryDirectory(dir=chosen.scratch) as name:
        good, bad = specimens(Path(name) / "in", chosen.count, chosen.size[0], 0.05)
        stylizer = Stylizer.from_checkpoint(chosen.style[0], "cpu", chosen.backend, chosen.precision)
        stylizer.pixels(read_picture(good[0]).rgb)
        for number in range(ROUNDS):
            folder, out = Path(name) / "in" / str(number), Path(name) / "out" / str(number)
            shown = [read_picture(path).rgb for path in good if folder in path.parents]

            def alone(pictures: list[np.ndarray]) -> float:
                began = time.perf_counter()
                for rgb in pictures:
                    stylizer.pixels(rgb)
                return time.perf_counter() - began

            before = alone(shown[::2])
            words = ["stylize", str(folder), "-o", str(out), "--recursive", "--style", chosen.style[0]]
            words += ["--backend", chosen.backend, "--precision", chosen.precision]
            told = io.StringIO()
            began = time.perf_counter()
            with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
                found[f"code {fststyle(words)}"] += 1
            taken = time.perf_counter() - began
            shares.append((before + alone(shown[1::2])) / taken)
            lines = told.getvalue().splitlines() or [""]  # nothing to tell
            wrong = [path for path in bad if folder in path.parents]
            found["named"] += sum(any(line.startswith(f"fststyle: skipped: {p}: ") for line in lines) for p in wrong)
            found["in the summary"] += sum(str(path) in lines[-1] for path in wrong)
            print(f"round {number}: {shares[-1]:.3f}, {lines[-1][:60]} …", flush=True)
        results = [path for path in (Path(name) / "out").rglob("*") if path.is_file()]
        return {
            **{"files": len(good) + len(bad), "good": len(good), "done": len(results)},
            "whole": sum(is_whole(path) for path in results),
            **{"bad": len(bad), **found, "throughput": statistics.median(shares), "rounds": shares},
        }


def is_whole(path: Path) -> bool:
    """Whether a picture can be read to its end."""
    try:
        open_picture(path)
    except ImageError:
        return False
    return True


# --- kills --------------------------------------------------------------------------------------------


def kills(chosen: argparse.Namespace) -> dict[str, Any]:
    """A run killed at random, again and again: results that are not whole, and whether the last run completes."""
    chance, found = random.Random(0), Counter[str]()
    with tempfile.TemporaryDirectory(dir=chosen.scratch) as name:
        folder, out = Path(name) / "in", Path(name) / "out"
        good, _ = specimens(folder, chosen.files, chosen.size[0], 0)
        words = ["stylize", str(folder), "-o", str(out), "--recursive", "--skip-existing", "--style", chosen.style[0]]
        while found["killed"] < chosen.kills and found["runs"] < 3 * chosen.kills:
            tiles = ["auto", "exact"][found["runs"] % 2]
            found["runs"] += 1
            command = [sys.executable, "-m", "fststyle", *words, "--tiles", tiles, "--backend", "torch"]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
            )
            assert process.stdout is not None
            process.stdout.readline()  # it has begun
            try:
                process.wait(chance.uniform(0, chosen.within))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                found["killed"] += 1
            process.wait()
            results = [path for path in out.rglob("*") if path.is_file() and not path.name.startswith(".")]
            found["not whole"] += sum(not is_whole(path) for path in results)
            found["scratch left"] = len(list(out.rglob("*.scratch")))
            if len(results) == len(good) and found["killed"] < chosen.kills:
                for path in results:
                    path.unlink()
        code = fststyle([*words, "--backend", "torch"])
        results = [path for path in out.rglob("*") if path.is_file() and not path.name.startswith(".")]
        return {
            **found,
            "code": code,
            "wanted": len(good),
            "there": len(results),
            "whole": sum(is_whole(p) for p in results),
        }


# --- fuzz ---------------------------------------------------------------------------------------------


def mutated(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """A file with something wrong in it."""
    raw = bytearray(data)

    def place() -> int:  # headers are worth more
        return chance.randrange(min(len(raw), chance.choice([64, 512, len(raw)])))

    for _ in range(chance.choice([1, 1, 2, 4, 16])):
        match chance.randrange(8):
            case 0:
                raw[place()] ^= 1 << chance.randrange(8)
            case 1:
                raw[place()] = chance.randrange(256)
            case 2:
                at = place()
                extreme = chance.choice(
                    [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\0\0\x40\0", b"\xff\xff"]
                )
                raw[at : at + len(extreme)] = extreme
            case 3:
                del raw[chance.randrange(1, len(raw) + 1) :]
            case 4:
                at = place()
                del raw[at : at + chance.randrange(1, 64)]
            case 5:
                at = place()
                raw[at:at] = raw[at : at + chance.randrange(1, 256)]
            case 6:
                at = place()
                raw[at : at + 64] = other[at : at + 64]
            case 7:
                at = place()
                raw[at:at] = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 32)))
        if not raw:
            return b"\0"
    return bytes(raw)


def read_all(files: list[str], connection: Any, scratch: str) -> None:
    """In a process of its own: read every file both ways, and tell of each what came of it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number, file in enumerate(files):
        outcome, slowest = [], 0.0
        for by_strips in (False, True):
            began = time.perf_counter()
            try:
                if by_strips:
                    large.decoded(file, read_header(file), scratch)
                else:
                    read_picture(file, keep_16bit=True)
                outcome.append("read")
            except ImageError as error:
                clear = "\n" not in str(error) and str(error).startswith(file)
                outcome.append("refused" if clear else f"unclear: {error!s}")
            except BaseException as error:
                outcome.append(f"{type(error).__name__}: {error!s}"[:200])
            slowest = max(slowest, time.perf_counter() - began)
        connection.send((number, outcome, slowest, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))


def fuzz(chosen: argparse.Namespace) -> dict[str, Any]:
    """Mutated files of every kind through both readers: crashes, hangs, peak memory, errors that are not ours."""
    chance, found, odd, peak, slowest = random.Random(chosen.seed), Counter[str](), [], 0, 0.0
    with tempfile.TemporaryDirectory(dir=chosen.scratch) as name:
        folder = Path(name)
        good, _ = specimens(folder / "whole", 2 * len(kinds()), 64, 0)
        whole = [(path.name, path.read_bytes()) for path in good]
        done = 0
        while done < chosen.count:
            batch = []
            for number in range(min(1000, chosen.count - done)):
                label, data = chance.choice(whole)
                path = folder / f"{done + number:06d}_{label}"
                path.write_bytes(mutated(data, chance.choice(whole)[1], chance))
                batch.append(str(path))
            left = batch
            while left:
                ours, theirs = multiprocessing.Pipe(duplex=False)
                process = multiprocessing.get_context("spawn").Process(
                    target=read_all, args=(left, theirs, str(folder)), daemon=True
                )
                process.start()
                theirs.close()
                at = 0
                try:
                    while at < len(left):
                        if not ours.poll(
                            2 * HANG + 20 * (at == 0)
                        ):  # two ways to read; the process starts with the first
                            found["hangs"] += 1
                            odd.append(f"hang: {left[at]}")
                            break
                        _, outcomes, seconds, used = ours.recv()
                        slowest = max(slowest, seconds)
                        found["hangs"] += seconds > HANG
                        found.update(one if one in ("read", "refused") else "other" for one in outcomes)
                        odd += [f"{Path(left[at]).name}: {one}" for one in outcomes if one not in ("read", "refused")]
                        peak = max(peak, used)
                        at += 1
                except EOFError:
                    process.join()
                    found["crashes"] += 1
                    odd.append(f"crash ({process.exitcode}): {left[at]}")
                process.kill()
                process.join()
                if at < len(left) and chosen.output:
                    Path(left[at]).rename(chosen.output / Path(left[at]).name)
                left = left[at + 1 :]
            for path in batch:
                Path(path).unlink(missing_ok=True)
            done += len(batch)
    return {
        "files": done,
        **{key: found[key] for key in ("read", "refused", "other", "crashes", "hangs")},
        "slowest, seconds": slowest,
        "peak GiB": peak / 2**20,
        "odd": odd[:50],
    }


def main() -> None:
    """Measure what is asked for."""
    whats = {
        "equal": equal,
        "large": large_files,
        "strength": strength,
        "folder": folder_run,
        "kills": kills,
        "fuzz": fuzz,
    }
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", nargs="+", choices=whats)
    parser.add_argument("--style", nargs="*", default=sorted(bundled_files("style")), metavar="NAME_OR_FILE")
    parser.add_argument("--size", nargs="+", type=int, help="of equal, large, folder and kills")
    parser.add_argument("--count", type=int, help="of files, 500, or mutations, 10000")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--files", type=int, default=135, help="of kills")
    parser.add_argument("--within", type=float, default=8, help="seconds in which kills strikes")
    parser.add_argument("--only-styles", action="store_true", help="equal: no network presets")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--memory", default="2GiB")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", help="folder for what is made on the way")
    parser.add_argument("--json", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    chosen = parser.parse_args()
    sizes = {"equal": [2048], "large": [2048, 4096, 8192, 16384], "folder": [640], "kills": [480]}
    if chosen.output:
        chosen.output.mkdir(parents=True, exist_ok=True)
    given, counted, found = chosen.size, chosen.count, {}
    for what in chosen.what:
        chosen.size = given or sizes.get(what, [0])
        chosen.count = counted or {"folder": 500, "fuzz": 10000}.get(what, 0)
        found[what] = whats[what](chosen)
    print(json.dumps(found, indent=1))
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
