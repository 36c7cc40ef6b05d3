"""``fststyle optimize`` as a user meets it."""

from __future__ import annotations

import csv
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fststyle.cli import main
from fststyle.images import read_picture, save_image
from fststyle.networks.styleswap import swap as real_swap
from fststyle.optimization import optimize as real_optimize
from marks import rest_slow

SMALL = ["encoder=random", "encoder.widths=[4,4,4,4,4]", "size=48", "style.size=40", "iterations=3"]
SMALL += ["calibration_photographs=4", "data.size=32", "device=cpu"]


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, astronaut: np.ndarray) -> Path:
    monkeypatch.chdir(tmp_path)
    save_image(astronaut[:384:6, ::8].copy(), "photo.png")
    save_image(astronaut[200:320:2, :120:2].copy(), "painting.png")
    return tmp_path


def optimize(*words: str) -> int:
    return main(["optimize", *SMALL, *words])


TRANSFER = ("content=photo.png", "style.image=painting.png")


@pytest.mark.parametrize(
    ("words", "output", "shape"),
    [
        (TRANSFER, "photo_painting.png", (48, 48)),
        (("mode=texture", "style.image=painting.png", "shape=[32,56]"), "painting_texture.png", (32, 56)),
        (("mode=texture", "style.image=painting.png"), "painting_texture.png", (48, 48)),
        (("mode=content", "content=photo.png", "layers=[relu3_1]"), "photo_content.png", (48, 48)),
        (("mode=style", "style.image=painting.png", "layers=[relu1_1,relu2_1]"), "painting_style.png", (48, 48)),
        ((*TRANSFER, "mode=swap"), "photo_painting_swap.png", (48, 48)),
        ((*TRANSFER, "mode=swap", "layers=[relu2_1,relu3_1]", "patch=2"), "photo_painting_swap.png", (48, 48)),
        ((*TRANSFER, "mode=swap", "sizes=[32,48]", "stride=3"), "photo_painting_swap.png", (48, 48)),
        ((*TRANSFER, "mode=swap", "preserve_color=luminance"), "photo_painting_swap.png", (48, 48)),
        ((*TRANSFER, "loss=balanced", "data=folder", "data.source.path=."), "photo_painting.png", (48, 48)),
        ((*TRANSFER, "optimizer=adam"), "photo_painting.png", (48, 48)),
        ((*TRANSFER, "start=noise", "tolerance=0.1"), "photo_painting.png", (48, 48)),
        ((*TRANSFER, "start=painting.png"), "photo_painting.png", (48, 48)),
        ((*TRANSFER, "sizes=[36,48]", "iterations=[2,3]"), "photo_painting.png", (48, 48)),
        ((*TRANSFER, "style.size=null", "style.scale=0.8"), "photo_painting.png", (48, 48)),
        (("mode=texture", "style.image=painting.png", "style.region=[0,0,1,0.5]"), "painting_texture.png", (24, 48)),
        ((*TRANSFER, "preserve_color=luminance"), "photo_painting.png", (48, 48)),
        ((*TRANSFER, "preserve_color=match"), "photo_painting.png", (48, 48)),
        ((*TRANSFER, "match_histogram=true", "output=a.jpg"), "a.jpg", (48, 48)),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, tuple) and isinstance(value[0], str) else None,
)
def test_it_makes_a_picture(words: tuple[str, ...], output: str, shape: tuple[int, int]) -> None:
    save_image(np.zeros((40, 40, 3), np.uint8), "other.png")
    assert optimize(*words) == 0
    assert read_picture(output).rgb.shape == (*shape, 3)
    assert not list(Path().glob("*.state"))


@pytest.mark.parametrize(
    "preset", rest_slow(["gatys_3c", "gatys", "gatys_3d", "gatys_3e", "photorealistic", "gatys-code", "tutorial"])
)
def test_presets_run(preset: str) -> None:
    words = [word for word in SMALL if not word.startswith(("encoder", "style.size", "iterations"))]
    small = ["encoder.weights=random", "+encoder.widths=[4,4,4,4,4]", "sizes=[40]", "iterations=[2]"]
    assert main(["optimize", *words, *TRANSFER, f"preset={preset}", *small]) == 0
    assert read_picture("photo_painting.png").rgb.shape == (40, 40, 3)


@pytest.mark.parametrize("words", [["encoder.weights=random", "+encoder.widths=[4,4,4,4,4]"], ["encoder=slim"]])
def test_the_preset_of_chen_swaps(words: list[str]) -> None:
    assert main(["optimize", *TRANSFER, "preset=chen", "size=40", "trace=csv", "device=cpu", *words]) == 0
    assert read_picture("photo_painting_swap.png").rgb.shape == (40, 40, 3)
    with open("photo_painting_swap.csv", newline="") as file:
        totals = [float(row["total"]) for row in csv.DictReader(file)]
    assert len(totals) == 100
    assert min(totals) < 0.6 * totals[0]


def test_kept_luminance_means_the_photographs_colours() -> None:
    assert optimize(*TRANSFER, "preserve_color=luminance", "start=noise", "output=a.png") == 0
    assert optimize(*TRANSFER, "start=noise", "output=b.png") == 0
    photo, kept, free = (read_picture(n, 48).rgb.astype(float) for n in ("photo.png", "a.png", "b.png"))

    def chroma(pixels: np.ndarray) -> np.ndarray:
        return pixels - (pixels @ [0.299, 0.587, 0.114])[..., None]

    near, far = (np.median(np.abs(chroma(x) - chroma(photo))) for x in (kept, free))
    assert near < 0.2 * far


def test_a_texture_stays_within_its_sources_range() -> None:
    # Of style.size already: resizing noise would widen its range.
    save_image(np.random.default_rng(0).integers(60, 180, (40, 40, 3)).astype(np.uint8), "narrow.png")
    assert optimize("mode=texture", "style.image=narrow.png", "iterations=8") == 0
    result = read_picture("narrow_texture.png").rgb
    assert result.min() >= 59
    assert result.max() <= 181


def test_the_trace_and_the_snapshots() -> None:
    assert optimize(*TRANSFER, "trace=csv", "snapshots=2", "iterations=5", "sizes=[32,48]") == 0
    with open("photo_painting.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["iteration"]) for row in rows] == list(range(1, 11))
    assert {"total", "seconds", "content/relu4_2", "style/relu1_2", "tv"} <= set(rows[0])
    assert sorted(path.name for path in Path().glob("photo_painting_0*.png")) == [
        f"photo_painting_{n:05d}.png" for n in (2, 4, 7, 9)
    ]


def test_a_default_that_is_typed_changes_nothing() -> None:
    """The bundled encoder knows photographs; generated pictures are for those that know none."""
    for name, words in (("plain", ()), ("typed", ("data=generated",)), ("real", ("data=folder", "data.source.path=."))):
        same = [*SMALL[2:4], "encoder=slim", "iterations=1", "calibration_photographs=2", "data.size=32", "trace=csv"]
        assert main(["optimize", *TRANSFER, *same, f"output={name}.png", *words]) == 0
    plain, typed, real = (Path(f"{name}.csv").read_text().split(",")[-1] for name in ("plain", "typed", "real"))
    assert plain == typed
    assert plain != real


def test_the_trace_in_tensorboard() -> None:
    assert optimize(*TRANSFER, "trace=tensorboard") == 0
    assert list(Path("photo_painting.tensorboard").glob("events*"))


def interrupting(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    def optimize(*arguments: Any, **options: Any) -> Any:
        told = options["callback"]

        def callback(progress: Any) -> Any:
            if progress.iteration == at:
                os.kill(os.getpid(), signal.SIGINT)
            return told(progress)

        return real_optimize(*arguments, **{**options, "callback": callback})

    monkeypatch.setattr("fststyle.optimization.run.optimize", optimize)


def test_ctrl_c_keeps_the_best_picture_and_the_run_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    assert optimize(*TRANSFER, "iterations=8", "output=whole.png", "trace=csv") == 0
    with monkeypatch.context() as patch:
        interrupting(patch, 4)
        assert optimize(*TRANSFER, "iterations=8", "output=part.png", "trace=csv") == 1
    assert (
        "interrupted at iteration 4; wrote the best picture to part.png; resume=true goes on" in capsys.readouterr().err
    )
    assert Path("part.png").is_file()
    assert optimize(*TRANSFER, "iterations=8", "output=part.png", "trace=csv", "resume=true") == 0
    assert Path("part.png").read_bytes() == Path("whole.png").read_bytes()
    totals = [[row["total"] for row in csv.DictReader(open(f"{name}.csv"))] for name in ("part", "whole")]  # noqa: SIM115
    assert totals[0] == totals[1]
    assert not Path("part.png.state").exists()


def test_a_run_of_several_sizes_resumes_in_the_right_one_and_keeps_its_whole_trace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.set_num_threads(1)
    sizes = ("sizes=[32,48]", "iterations=[3,6]", "trace=csv")
    assert optimize(*TRANSFER, *sizes, "output=whole.png") == 0
    with monkeypatch.context() as patch:
        interrupting(patch, 5)
        assert optimize(*TRANSFER, *sizes, "output=part.png") == 1
    assert optimize(*TRANSFER, *sizes, "output=part.png", "resume=true") == 0
    assert Path("part.png").read_bytes() == Path("whole.png").read_bytes()
    kept, whole = (list(csv.DictReader(open(f"{name}.csv"))) for name in ("part", "whole"))  # noqa: SIM115
    columns = ("stage", "iteration", "total")
    assert [[row[k] for k in columns] for row in kept] == [[row[k] for k in columns] for row in whole]


def test_a_state_of_another_size_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        interrupting(patch, 2)
        assert optimize(*TRANSFER, "size=48", "output=part.png") == 1
    capsys.readouterr()
    assert optimize(*TRANSFER, "size=32", "output=part.png", "resume=true") == 2
    assert "part.png.state holds 48×" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_keeps_the_last_sound_picture(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fststyle.losses import perceptual as losses

    real, calls = losses.total_variation, []

    def broken(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        return real(*arguments, **options) * (float("nan") if len(calls) == 4 else 1)

    assert optimize(*TRANSFER, "loss=johnson", "output=sound.png") == 0
    monkeypatch.setattr(losses, "total_variation", broken)
    assert optimize(*TRANSFER, "loss=johnson", "iterations=9") == 1
    told = capsys.readouterr().err
    assert (
        "stopped at iteration 4: the term tv is nan; the best picture until then is kept in photo_painting.png" in told
    )
    assert read_picture("photo_painting.png").rgb.shape == (48, 48, 3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "content is missing; mode=transfer takes a photograph: content=PHOTO"),
        (("content=photo.png",), "style.image is missing; mode=transfer takes a picture: style.image=PICTURE"),
        (("mode=texture",), "style.image is missing"),
        (("content=none.png", "style.image=painting.png"), "none.png: no such file"),
        ((*TRANSFER, "size=8"), "the size is [8]; expected whole numbers of at least 16 pixels"),
        (
            (*TRANSFER, "start=zebra"),
            "start is 'zebra'; expected one of recolored, content, noise, gray, style, or a picture file",
        ),
        ((*TRANSFER, "start=[1]"), "start is [1]; expected one of recolored, content"),
        ((*TRANSFER, "bounds=tight"), "bounds is 'tight'; expected one of unit, source"),
        ((*TRANSFER, "preserve_color=yes"), "preserve_color is 'yes'; expected one of none, luminance, match"),
        ((*TRANSFER, "trace=excel"), "trace is 'excel'; expected one of null, csv, tensorboard"),
        ((*TRANSFER, "precision=int8"), "precision is 'int8'; expected one of float32, bfloat16"),
        ((*TRANSFER, "compile=perhaps"), "compile is 'perhaps'; expected one of false, true"),
        ((*TRANSFER, "snapshots=0"), "snapshots is 0; expected a whole number of at least 1, or null"),
        ((*TRANSFER, "iterations=0"), "iterations is 0; expected at least 1"),
        ((*TRANSFER, "iterations=[1,2]"), "iterations has 2 entries for 1 sizes; expected as many"),
        ((*TRANSFER, "optimizer=sgd"), "optimizer is 'sgd'; expected lbfgs or adam"),
        ((*TRANSFER, "shape=[4,99]"), "shape is [4, 99]; expected [height, width]"),
        ((*TRANSFER, "output=a.xyz"), "no picture format ends in '.xyz'"),
        ((*TRANSFER, "output=no/such/a.png"), "no such folder to write to"),
        ((*TRANSFER, "output=photo.png"), "photo.png exists already; replace it with overwrite=true"),
        ((*TRANSFER, "resume=true"), "photo_painting.png.state: no such file"),
        ((*TRANSFER, "loss.tv_weight=null"), "the weight of tv is None; expected a number ≥ 0"),
        ((*TRANSFER, "loss.style_layers.relu1_2=null"), "the weight of relu1_2 is None; expected a number ≥ 0"),
        ((*TRANSFER, "loss.content_weight=-1"), "the weight of content is -1; expected a number ≥ 0"),
        (
            (*TRANSFER, "loss.content_weight=0", "loss.style_weight=0", "loss.color_weight=0", "loss.tv_weight=0"),
            "every loss weight is 0; give at least one of content, style, color, tv, pixel a weight above 0",
        ),
        ((*TRANSFER, "loss=pixel"), "this loss judges pixels alone, for super-resolution"),
        (("mode=content", "content=photo.png", "layers=[relu9_9]"), "has no layer 'relu9_9'; expected one of conv1_1"),
        (
            ("mode=content", "content=photo.png", "layers=[pool5]", "size=20"),
            "has nothing left beyond pool5",
        ),
        (("mode=texture", "style.image=painting.png", "start=content"), "mode=texture has no content to start from"),
        (("mode=texture", "style.image=painting.png", "start=recolored"), "start=recolored takes a photograph and"),
        (("mode=content", "content=photo.png", "preserve_color=match"), "goes with mode=transfer"),
        ((*TRANSFER, "mode=swop"), "mode has no option 'swop'; did you mean 'swap'?"),
        (("mode=swap", "content=photo.png"), "style.image is missing; mode=swap takes a picture"),
        (("mode=swap", "style.image=painting.png"), "content is missing; mode=swap takes a photograph"),
        ((*TRANSFER, "mode=swap", "patch=0"), "patch is 0; expected a whole number of at least 1"),
        ((*TRANSFER, "mode=swap", "stride=1.5"), "stride is 1.5; expected a whole number of at least 1"),
        ((*TRANSFER, "mode=swap", "stride=4"), "stride is 4 and patch 3; expected a stride of at most the patch"),
        ((*TRANSFER, "mode=swap", "patch=11"), "the style's features are 10×10; expected at least 11×11 for patch=11"),
        ((*TRANSFER, "mode=swap", "layers=[relu9_9]"), "has no layer 'relu9_9'; expected one of conv1_1"),
        (
            (*TRANSFER, "iteration=5"),
            "unknown key 'iteration'; did you mean 'iterations'?; fststyle optimize --cfg job",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_done_is_refused_in_one_line(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(Path().iterdir())
    assert optimize(*words) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("fststyle: error: ")
    assert message in told
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize(
    ("file", "words", "told"),
    rest_slow(
        [
            ("a.csv", ["trace=csv"], "a.csv: is no trace of a run"),
            ("a.csv", ["trace=csv", "overwrite=true"], "a.csv: is no trace of a run"),
            ("a.png.state", [], "a.png.state: is not the state of an optimisation"),
            ("a.png.state", ["overwrite=true"], "a.png.state: is not the state of an optimisation"),
            ("a_00002.png", ["snapshots=2"], "a_00002.png exists already"),
            ("a.tensorboard", ["trace=tensorboard"], "a.tensorboard exists already"),
            ("photo_x.png", ["output=null", "style.name=x"], "photo_x.png exists already"),
        ],
        3,
    ),
)
def test_files_of_others_beside_the_result_are_left_alone(
    file: str, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(file).write_text("mine")
    assert optimize(*TRANSFER, "output=a.png", *words) == 2
    assert told in capsys.readouterr().err
    assert Path(file).read_text() == "mine"
    assert not Path("a.png").exists()


@pytest.mark.parametrize("target", rest_slow(["link.png", "photo.png", "painting.png", "start.png", "./photo.png"]))
def test_a_picture_that_the_run_reads_is_not_its_result(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    save_image(np.zeros((40, 40, 3), np.uint8), "start.png")
    Path("link.png").symlink_to("photo.png")
    before = Path(target).read_bytes()
    assert optimize(*TRANSFER, "start=start.png", f"output={target}", "overwrite=true") == 2
    assert "itself; give another name for the result" in capsys.readouterr().err
    assert Path(target).read_bytes() == before


@pytest.mark.parametrize(
    "words",
    rest_slow(
        [
            ["output=''"],
            ["style.name=a/b"],
            ["style.name=''"],
            [f"style.name={'x' * 300}"],
            [f"output={'x' * 300}.png"],
            [f"output={'x' * 248}.png"],  # its state would be too long
            ["style.name=../x"],
            ["output=folder.png", "overwrite=true"],
        ],
        3,
    ),
)
def test_a_name_that_cannot_be_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("folder.png").mkdir()
    before = sorted(Path().rglob("*"))
    assert optimize(*TRANSFER, *words) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert sorted(Path().rglob("*")) == before


def test_a_multirun_leaves_the_users_files_alone() -> None:
    Path("multirun.yaml").write_text("mine")
    assert optimize("-m", *TRANSFER, "output=a.png,b.png", "iterations=1") == 0
    assert Path("a.png").exists()
    assert Path("b.png").exists()
    assert Path("multirun.yaml").read_text() == "mine"
    assert not Path("0").exists()
    assert optimize("-m", *TRANSFER, "output=c.png,d.png", "hydra.sweep.dir=.") == 2
    assert Path("multirun.yaml").read_text() == "mine"


HOLE = "style.image=clear.png"


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("mode=swap", "content=photo.png", HOLE),
        ("mode=swap", "content=photo.png", HOLE, "style.region=[0.1,0,0.9,0.9]", "layers=[relu2_1,relu3_1]"),
        ("content=photo.png", HOLE, "style.blur=1"),
        ("mode=texture", HOLE, "start=style"),
        ("content=clear.png", "style.image=painting.png", "preserve_color=match"),
        ("content=photo.png", "style.image=painting.png", "start=clear.png"),
    ],
    ids=lambda words: " ".join(words),
)
def test_what_is_hidden_has_no_influence(words: tuple[str, ...], astronaut: np.ndarray) -> None:
    rgb, alpha, results = astronaut[200:320:2, :120:2].copy(), np.full((60, 60), 255, np.uint8), []
    alpha[:4], alpha[16:40, 20:44] = 0, 0
    for colour in (0, 255):
        save_image(np.where(alpha[..., None] > 0, rgb, colour).astype(np.uint8), "clear.png", alpha)
        assert optimize(*words, "output=out.png", "overwrite=true") == 0
        results.append(read_picture("out.png").rgb)
    assert np.array_equal(*results)


def test_a_swap_takes_no_patch_from_a_hole(monkeypatch: pytest.MonkeyPatch, astronaut: np.ndarray) -> None:
    alpha = np.full((40, 40), 255, np.uint8)
    alpha[12:28, 12:28] = 0
    save_image(astronaut[:40, :40].copy(), "clear.png", alpha)
    found = []

    def noted(*arguments: Any, **options: Any) -> Any:
        found.append(options["visible"])
        return real_swap(*arguments, **options)

    monkeypatch.setattr("fststyle.networks.styleswap.swap", noted)
    assert optimize("mode=swap", "content=photo.png", HOLE, "iterations=1") == 0
    assert np.array_equal(found[0].numpy(), alpha > 0)
