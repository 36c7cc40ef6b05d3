"""How fast training and inference are, against a plain implementation and against the machine's limit.

    python scripts/benchmark.py step inference memory cli slow loading train -o FOLDER

Everything in one run, in turn, as medians. ``reference`` is scripts/reference.py, what the literature's
code does; the machine's limit is the speed at which torch multiplies two 4096×4096 matrices here and
now; operations are counted by torch (convolutions and matrix products), not guessed.

``step``: a training step, by encoder and precision. ``inference``: one pass, by size, backend and precision.
``growth``: with pixels, batch and width. ``difference``: of the bundled styles' pictures, by backend.
``memory``: peak memory of a process that does one pass. ``cli``: the command from its start to the written
file. ``slow``: an evaluation of the slow mode's objective and gradient. ``loading``: photographs alone.
``train``: ``fststyle train`` as a whole. ``ranks``: two processes of one core each
against one. ``saving``: what a state every 100 steps costs. Writes benchmark.json and benchmark.html.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fststyle import TransformNet, save_image
from fststyle.cli import main as fststyle
from fststyle.config import preset_loss
from fststyle.encoders.pretrained import load_encoder
from fststyle.images import find_pictures, read_picture
from fststyle.inference import Stylizer
from fststyle.model_file import bundled_files, save_model_file
from fststyle.optimization.recipes import faster, transfer
from fststyle.report import page as html
from fststyle.report.compare import machine, write_json
from fststyle.training.tasks import StyleTask

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from reference import Reference, Slow, Step  # noqa: E402

Row = dict[str, Any]


def in_turn(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each, run one after the other, again and again, after one round that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if repeat:
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in times.items()}


def matmul_peak(dtype: torch.dtype, device: str, side: int = 4096) -> float:
    """Operations per second of a matrix product, the best of several; of smaller ones where it would take minutes."""

    def best(side: int) -> float:
        a = torch.randn(side, side, device=device).to(dtype)
        return 2 * side**3 / min(in_turn({str(n): lambda: a @ a for n in range(3)}, 3).values())

    small = best(side // 8)  # a processor without instructions for a type is a hundred times slower in it
    return small if 2 * side**3 / small > 5 else best(side)


def operations(run: Callable[[], object]) -> int:
    """Multiplications and additions of convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def rows(medians: Mapping[str, float], work: int, peaks: Mapping[str, float], images: int = 1) -> list[Row]:
    """What each took; ``reference`` first, ``work`` its operations, the peak that of the precision in its name."""
    found = []
    for name, seconds in medians.items():
        peak = peaks["bfloat16" if "bfloat16" in name else "float16" if "float16" in name else "float32"]
        row = {"what": name, "seconds": round(seconds, 4), "times": round(medians["reference"] / seconds, 2)}
        found.append({**row, "images/s": round(images / seconds, 2), "of peak": round(work / seconds / peak, 3)})
    return found


def peaks(chosen: argparse.Namespace) -> dict[str, float]:
    """The machine's limit by precision."""
    kinds = ("float32", "bfloat16", "float16") if chosen.device == "cuda" else ("float32", "bfloat16")
    return {kind: matmul_peak(getattr(torch, kind), chosen.device) for kind in kinds}


# --- training -------------------------------------------------------------------------------------


def step(chosen: argparse.Namespace) -> dict[str, list[Row]]:
    """A training step: batch 4 at 256 px, full width."""
    device, size = chosen.device, 256
    images = torch.rand(chosen.batch, 3, size, size, device=device)
    reference = Step(Reference().to(device).train(), images[:1].cpu())
    reference.taps.to(device)
    reference.style = [value.to(device) for value in reference.style]
    runs: dict[str, Callable[[], object]] = {"reference": lambda: reference(images)}
    work = {"reference": operations(runs["reference"])}
    for encoder in chosen.encoder:
        count = operations(training_step(encoder, "float32", images, compile=False))
        for precision in chosen.precision:
            name = f"{'VGG-16' if encoder == 'random' else encoder} {precision}"
            runs[name] = training_step(encoder, precision, images, compile=not chosen.eager)
            work[name] = count
    medians = in_turn(runs, chosen.repeats)
    limit = peaks(chosen)
    table = [
        rows({"reference": medians["reference"], k: v}, work[k], limit, chosen.batch)[-1] for k, v in medians.items()
    ]
    return {f"training step, batch {chosen.batch}, {size} px": table}


def training_step(encoder: str, precision: str, images: Tensor, compile: bool) -> Callable[[], object]:
    """A training step of ``loss=balanced_relu4_3 task.optimizer=adam``, but for Lightning around it."""
    loss = preset_loss(load_encoder("vgg16", encoder), "balanced_relu4_3").to(images.device)
    style = loss.style_targets(images[:1])
    loss.normalizers = dict.fromkeys(loss.term_names, 1.0)
    task = StyleTask(TransformNet().to(images.device), loss, style, compile=compile)
    return stepping(lambda: task.objective(images).total, task.network, precision, images.device.type)


def stepping(
    judge: Callable[[], Tensor], network: torch.nn.Module, precision: str, device: str = "cpu"
) -> Callable[[], None]:
    """Judge in a precision, go back, and let Adam change the network."""
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    low = None if precision == "float32" else getattr(torch, precision)

    def run() -> None:
        with torch.autocast(device, low, enabled=low is not None):
            total = judge()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()

    return run


def slow(chosen: argparse.Namespace) -> dict[str, list[Row]]:
    """An evaluation of Gatys' objective and its gradient, VGG-19 at 512 px: an iteration of the slow mode."""
    content, painting = torch.rand(1, 3, 512, 512, device=chosen.device), torch.rand(1, 3, 512, 512)
    reference = Slow(content.cpu(), painting)
    reference.taps.to(chosen.device)
    reference.content = reference.content.to(chosen.device)
    reference.style = [value.to(chosen.device) for value in reference.style]
    loss = preset_loss(load_encoder("vgg19", "random", pooling="average"), "gatys").to(chosen.device)
    objective = transfer(loss, content, painting.to(chosen.device))
    image = content.clone().requires_grad_()

    def evaluation(precision: str) -> Callable[[], object]:
        evaluate = faster(objective, precision, compile=not chosen.eager)

        def run() -> None:
            image.grad = None
            evaluate(image).total.backward()

        return run

    runs: dict[str, Callable[[], object]] = {"reference": lambda: reference(image)}
    runs |= {precision: evaluation(precision) for precision in chosen.precision}
    work, medians = operations(runs["reference"]), in_turn(runs, chosen.repeats)
    return {"slow mode, VGG-19, 512 px, an iteration": rows(medians, work, peaks(chosen))}


def train(chosen: argparse.Namespace) -> dict[str, list[Row]]:
    """``fststyle train`` with its data, logging and state, against the step alone."""
    precision = {"float32": "32-true", "bfloat16": "bf16-mixed"}
    found = []
    images = torch.rand(chosen.batch, 3, 256, 256, device=chosen.device)
    for encoder in chosen.encoder:
        for kind in chosen.precision:
            alone = in_turn(
                {"reference": training_step(encoder, kind, images, compile=not chosen.eager)}, chosen.repeats
            )
            compiled = f"task.compile={'false' if chosen.eager else 'true'}"
            with tempfile.TemporaryDirectory() as folder:
                more = [f"encoder={encoder}", f"trainer.precision={precision[kind]}", compiled]
                speeds = _trained(chosen, folder, more, sorted(os.sched_getaffinity(0)))
            whole = chosen.batch / float(np.median(speeds[1:]))
            found.append(
                {
                    "what": f"{encoder} {kind}",
                    "step alone, seconds": round(alone["reference"], 4),
                    "whole, seconds per step": round(whole, 4),
                    "share": round(alone["reference"] / whole, 3),
                }
            )
    return {"fststyle train as a whole": found}


def _bare(chosen: argparse.Namespace) -> list[str]:
    """The settings of a run that does nothing beside its steps."""
    alone = [
        "task.compile=false",
        "trainer.log_every_n_steps=5",
        "callbacks.previews.count=0",
        "callbacks.diagnostics=null",
    ]
    return [*alone, f"encoder={chosen.encoder[-1]}", f"trainer.accelerator={chosen.device}"]


def ranks(chosen: argparse.Namespace) -> dict[str, list[Row]]:
    """``trainer=ddp``: two processes on a core each, against one on one core; medians over each run, in turn."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    speeds: dict[str, list[float]] = {"reference": [], "2 ranks": []}
    for _ in range(chosen.repeats):
        for name, own, words in (
            ("reference", cores[:1], []),
            ("2 ranks", cores, ["trainer=ddp", "trainer.devices=2"]),
        ):
            with tempfile.TemporaryDirectory() as folder:
                small = ["network=resnet_half", "data.size=128", "threads=1", "data.workers=0"]
                table = _trained(chosen, folder, [*_bare(chosen), *words, *small], own)
            speeds[name].append(float(np.median(table[1:])))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    table = [
        {"what": name, "images/s": round(value, 2), "times": round(value / medians["reference"], 2)}
        for name, value in medians.items()
    ]
    return {f"training on 1 and 2 ranks of one core, half width, 128 px, batch {chosen.batch} each": table}


def saving(chosen: argparse.Namespace) -> dict[str, list[Row]]:
    """What a state every 100 steps costs: seconds of a save over those of 100 steps."""
    from fststyle.training.checkpoints import SaveCheckpoints

    save, took = SaveCheckpoints.save, []

    def timed(callback: SaveCheckpoints, trainer: Any) -> None:
        began = time.perf_counter()
        save(callback, trainer)
        took.append(time.perf_counter() - began)

    SaveCheckpoints.save = timed  # type: ignore[method-assign]
    try:
        with tempfile.TemporaryDirectory() as folder:
            more = ["callbacks.checkpoints.every=10", "callbacks.checkpoints.minutes=null", "data.workers=1"]
            speed = float(np.median(_trained(chosen, folder, [*_bare(chosen), *more])[1:]))
            size = max(file.stat().st_size for file in Path(folder).glob("run/checkpoints/*"))
    finally:
        SaveCheckpoints.save = save  # type: ignore[method-assign]
    seconds, hundred = statistics.median(took), 100 * chosen.batch / speed
    row = {
        "save, seconds": round(seconds, 3),
        "state, MB": round(size / 1e6, 1),
        "100 steps, seconds": round(hundred, 1),
    }
    return {"a state every 100 steps": [{**row, "share": round(seconds / hundred, 4)}]}


def _trained(
    chosen: argparse.Namespace, folder: str, more: Sequence[str], cores: Sequence[int] | None = None
) -> np.ndarray:
    """Images per second of a run of ``fststyle train``, every few steps; in this process, unless cores are given."""
    painting = Path(folder) / "painting.png"
    save_image(np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8), painting)
    source = ["data=folder", f"data.source.path={chosen.photographs}"] if chosen.photographs else ["data=generated"]
    words = [
        *("train", f"style.image={painting}", f"output={folder}/run", *source, f"steps={chosen.steps}"),
        *(f"data.batch_size={chosen.batch}", *more),
    ]
    if cores is None:
        if fststyle(words):
            raise SystemExit("the run failed")
    else:
        pinned = lambda: os.sched_setaffinity(0, cores)  # noqa: E731
        subprocess.run([sys.executable, "-m", "fststyle", *words], check=True, preexec_fn=pinned)
    table = np.genfromtxt(f"{folder}/run/csv/metrics.csv", delimiter=",", names=True)["trainimages_per_second"]
    return np.asarray(table[~np.isnan(table)])


def loading(chosen: argparse.Namespace) -> dict[str, list[Row]]:
    """Photographs per second, decoded, cropped and batched, against decoding them whole."""
    from PIL import Image

    from fststyle.training import sources
    from fststyle.training.data import Photographs

    files = find_pictures(chosen.photographs)[:256]

    def plain() -> None:
        for file in files:
            Image.open(file).convert("RGB").resize((256, 256), Image.Resampling.BILINEAR)

    def ours(workers: int) -> Callable[[], None]:
        batches = Photographs(sources.folder(chosen.photographs), 256, 4, workers=workers).batches_from(0)

        def run() -> None:
            for _ in range(len(files) // 4):
                next(batches)

        return run

    runs = {"reference": plain, **{f"ours, {count} workers": ours(count) for count in (0, 1, 2)}}
    medians = in_turn(runs, max(1, chosen.repeats // 3))
    speeds = [{"what": name, "photographs/s": round(len(files) / value)} for name, value in medians.items()]
    return {"loading photographs, 256 px": speeds}


# --- inference ------------------------------------------------------------------------------------


def variants(chosen: argparse.Namespace) -> list[tuple[str, str]]:
    """Backends and precisions of one pass."""
    known = [("torch", precision) for precision in chosen.precision]
    if chosen.device == "cuda":
        return [("torch", "float32"), ("torch", "float16")]
    return [*known, *(("openvino", precision) for precision in chosen.precision)]


def inference(chosen: argparse.Namespace) -> dict[str, list[Row]]:
    """One pass of the network of full width."""
    tables: dict[str, list[Row]] = {}
    limit = peaks(chosen)
    with tempfile.TemporaryDirectory() as folder:
        path, network = _checkpoint(Path(folder))
        reference = Reference().take(network.state_dict()).eval().to(chosen.device)
        stylizers = {f"{b} {p}": Stylizer.from_checkpoint(path, chosen.device, b, p) for b, p in variants(chosen)}
        for size in chosen.size:
            image = torch.rand(1, 3, size, size, device=chosen.device)

            @torch.inference_mode()
            def plain(image: Tensor = image) -> Tensor:
                return reference(image)  # type: ignore[no-any-return]

            runs: dict[str, Callable[[], object]] = {"reference": plain}
            runs |= {name: lambda s=s, image=image: s(image) for name, s in stylizers.items()}  # type: ignore[misc]
            for run in runs.values():
                for _ in range(4 if chosen.device == "cuda" else 1):
                    run()
            tables[f"one pass, {size} px"] = rows(in_turn(runs, chosen.repeats), operations(plain), limit)
    return tables


def difference(chosen: argparse.Namespace) -> dict[str, list[Row]]:
    """How far the bundled styles' pictures lie from PyTorch's in float32, in levels of 255, on photographs."""
    files = find_pictures(chosen.photographs)[:12]
    found = []
    for style in bundled_files("style"):
        exact = Stylizer.from_checkpoint(style, "cpu", "torch", "float32")
        wanted = [exact.pixels(read_picture(file, 512).rgb).astype(int) for file in files]
        for backend, precision in variants(chosen)[1:]:
            stylizer = Stylizer.from_checkpoint(style, chosen.device, backend, precision)
            pairs = zip(files, wanted, strict=True)
            off = [np.abs(stylizer.pixels(read_picture(file, 512).rgb) - pixels).ravel() for file, pixels in pairs]
            levels = np.concatenate(off)
            row = {"what": f"{style}, {backend} {precision}", "mean": round(float(levels.mean()), 3)}
            found.append({**row, "99.9 %": int(np.quantile(levels, 0.999)), "largest": int(levels.max())})
    return {"difference to torch float32, of 255": found}


def growth(chosen: argparse.Namespace) -> dict[str, list[Row]]:
    """How one pass grows with pixels, batch and width, on the backend that is chosen by itself."""
    cases = [(1, size, 32) for size in (256, 512, 1024, 2048)]
    cases += [(batch, 256, 32) for batch in (2, 4, 8)] + [(1, 512, width) for width in (8, 16, 64)]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        stylizers = {w: Stylizer.from_checkpoint(_checkpoint(Path(folder), w)[0]) for w in {w for *_, w in cases}}
        for batch, size, width in cases:
            image = torch.rand(batch, 3, size, size)
            seconds = in_turn({"": lambda image=image, s=stylizers[width]: s(image)}, chosen.repeats)[""]  # type: ignore[misc]
            row = {"batch": batch, "size": size, "width": width, "seconds": round(seconds, 4)}
            found.append({**row, "ns per pixel": round(seconds * 1e9 / batch / size**2)})
    return {f"growth of one pass, {stylizers[32].backend.name} {stylizers[32].backend.precision}": found}


def memory(chosen: argparse.Namespace) -> dict[str, list[Row]]:
    """Peak memory of one process per backend, at the largest size (on Linux)."""
    size, found = max(chosen.size), []
    with tempfile.TemporaryDirectory() as folder:
        path, _ = _checkpoint(Path(folder))
        for backend, precision in [("reference", "float32"), *variants(chosen)]:
            command = [sys.executable, __file__, "one", "--variant", backend, precision, str(path), "--size", str(size)]
            peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]) / 2**20
            found.append({"what": f"{backend} {precision}", "GiB": round(peak, 3)})
    for row in found:
        row["share of reference"] = round(row["GiB"] / found[0]["GiB"], 3)
    return {f"peak memory, {size} px": found}


def one(chosen: argparse.Namespace) -> dict[str, list[Row]]:
    """One pass in this process, and the most memory that it took, in KiB: for ``memory``."""
    backend, precision, path = chosen.variant
    rgb = np.random.default_rng(0).integers(0, 256, (chosen.size[0], chosen.size[0], 3), dtype=np.uint8)
    if backend == "reference":
        from fststyle.images import to_image, to_pixels
        from fststyle.model_file import load_model_file

        network = Reference().take(load_model_file(path).network.state_dict()).eval()
        with torch.inference_mode():
            to_pixels(network(to_image(rgb)))
    else:
        Stylizer.from_checkpoint(path, "cpu", backend, precision).pixels(rgb)
    # Not getrusage's: what starts a process hands its own peak on.
    print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line))
    return {}


def cli(chosen: argparse.Namespace) -> dict[str, list[Row]]:
    """The command line, cold: from the start of the process to the written file, at 512 px."""
    with tempfile.TemporaryDirectory() as folder:
        path, _ = _checkpoint(Path(folder))
        photo, out = Path(folder) / "photo.png", Path(folder) / "out.png"
        save_image(np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8), photo)

        def command(*words: str) -> Callable[[], object]:
            return lambda: subprocess.run([sys.executable, *words], check=True, capture_output=True)

        ours = ("-m", "fststyle", "stylize", str(photo), "--style", str(path), "-o", str(out), "--backend")
        runs = {"reference": command(str(HERE / "reference.py"), str(photo), str(out), "--style", str(path))}
        runs |= {f"fststyle, {backend}": command(*ours, backend) for backend in dict(variants(chosen))}
        first = {}
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            first[name] = time.perf_counter() - began
        medians = in_turn(runs, chosen.repeats)
    return {
        "command line, 512 px, cold": [
            {
                "what": k,
                "seconds": round(v, 3),
                "times": round(medians["reference"] / v, 2),
                "first": round(first[k], 2),
            }
            for k, v in medians.items()
        ]
    }


def _checkpoint(folder: Path, width: int = 32) -> tuple[Path, TransformNet]:
    torch.manual_seed(0)
    network, path = TransformNet(width), folder / f"{width}.safetensors"
    save_model_file(path, network, {"kind": "style", "name": "full", "style": {"image": "none"}}, dtype="float32")
    return path, network


CASES = {
    "step": step,
    "slow": slow,
    "train": train,
    "loading": loading,
    "ranks": ranks,
    "saving": saving,
    "inference": inference,
    "growth": growth,
    "difference": difference,
    "memory": memory,
    "cli": cli,
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("cases", nargs="+", choices=(*CASES, "one"))
    options.add_argument("--size", type=int, nargs="+", default=[512, 1024, 2048], help="of inference")
    options.add_argument("--batch", type=int, default=4)
    options.add_argument("--encoder", nargs="+", choices=("random", "slim"), default=["random", "slim"])
    options.add_argument("--precision", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    options.add_argument("--eager", action="store_true", help="training without torch.compile")
    options.add_argument("--photographs", metavar="FOLDER", help="of loading, train and difference")
    options.add_argument("--steps", type=int, default=100, help="of train")
    options.add_argument("--repeats", type=int, default=7)
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("--variant", nargs=3, help=argparse.SUPPRESS)
    options.add_argument("-o", "--output", type=Path, metavar="FOLDER")
    chosen = options.parse_args()
    tables: dict[str, list[Row]] = {}
    cache = tempfile.TemporaryDirectory()  # what is converted here is of no use to anyone else
    if chosen.variant is None:
        os.environ["FSTSTYLE_CACHE"] = cache.name
    for case in chosen.cases:
        for title, table in ({"one": one} | CASES)[case](chosen).items():
            tables[title] = table
            head = list(table[0])
            print(
                f"\n{title}\n" + "\n".join("\t".join(map(str, line)) for line in [head, *(r.values() for r in table)])
            )
    if chosen.output:
        write(chosen.output, tables)


def write(folder: Path, tables: dict[str, list[Row]]) -> None:
    """The tables as JSON and as a page with a plot."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "benchmark.json", {"machine": machine(), "tables": tables})
    parts = [html.paragraph(", ".join(f"{k}: {v}" for k, v in machine().items()), note=True)]
    for title, table in tables.items():
        head = list(table[0])
        parts += [html.heading(title), html.grid(head, [[str(row[key]) for key in head] for row in table])]
    passes = {int(title.split()[2]): table for title, table in tables.items() if title.startswith("one pass")}
    if passes:
        names = [row["what"] for row in next(iter(passes.values()))]
        pixels = [size**2 / 1e6 for size in passes]
        series = {
            n: (pixels, [next(r["seconds"] for r in t if r["what"] == n) for t in passes.values()]) for n in names
        }
        parts += [html.heading("Seconds against size"), html.curves(series, "megapixels", "seconds")]
    (folder / "benchmark.html").write_text(html.page("Benchmark", parts), encoding="utf-8")


if __name__ == "__main__":
    main()
