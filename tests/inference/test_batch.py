"""Many pictures at once, from Python: what the commands do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fststyle.images import ImageError, read_picture, save_image
from fststyle.inference import StylizeOptions
from fststyle.inference.batch import Files, Summary, stylize_files, upscale_files
from fststyle.model_file import save_model_file
from fststyle.networks.superres import SuperResNet
from fststyle.networks.transform import TransformNet


@pytest.fixture
def styles(tmp_path: Path, network: TransformNet) -> list[str]:
    """Two model files."""
    paths = [tmp_path / f"{name}.safetensors" for name in ("rain", "hail")]
    for path in paths:
        save_model_file(path, network, {"kind": "style", "name": path.stem})
    return [str(path) for path in paths]


@pytest.fixture
def pictures(tmp_path: Path, astronaut: np.ndarray) -> Path:
    (tmp_path / "pictures/more").mkdir(parents=True)
    save_image(astronaut[:48, :64].copy(), tmp_path / "pictures/a.png")
    save_image(astronaut[64:96, :48].copy(), tmp_path / "pictures/more/b.jpg")
    return tmp_path / "pictures"


def test_a_folder_is_stylised_in_several_styles(pictures: Path, styles: list[str], tmp_path: Path) -> None:
    files = Files(output=str(tmp_path / "out"), recursive=True)
    summary = stylize_files([str(pictures)], styles, files, StylizeOptions(strength=0.5), "cpu", "torch")
    assert (summary.done, summary.failures, summary.there) == (4, (), 0)
    made = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")}
    assert made == {"a_rain.png", "a_hail.png", "more/b_rain.jpg", "more/b_hail.jpg"}
    assert read_picture(tmp_path / "out/a_rain.png").rgb.shape == (48, 64, 3)
    again = stylize_files([str(pictures)], styles, Files(**{**vars(files), "skip_existing": True}), backend="torch")
    assert (again.done, again.there) == (0, 4)


def test_a_file_that_cannot_be_read_is_in_the_summary(pictures: Path, styles: list[str], tmp_path: Path) -> None:
    (pictures / "c.png").write_bytes(b"no picture")
    summary = stylize_files([str(pictures)], styles[:1], Files(str(tmp_path / "out")), device="cpu", backend="torch")
    assert summary.done == 1
    ((source, reason),) = summary.failures
    assert source == pictures / "c.png"
    assert str(source) in reason
    assert str(summary) == f"1 done, 1 skipped ({source})"


def test_what_is_refused_raises_before_anything_is_written(pictures: Path, styles: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="styles of different names"):
        stylize_files([str(pictures)], [styles[0], styles[0]])
    with pytest.raises(ImageError, match="no such file"):
        stylize_files(["missing.jpg"], styles)
    assert not list(pictures.rglob("*_rain*"))


def test_pictures_are_enlarged(pictures: Path, tmp_path: Path) -> None:
    model = tmp_path / "x4.safetensors"
    save_model_file(model, SuperResNet(scale=4, width=4, residual_blocks=1), {"kind": "superres", "name": "x4"})
    files = Files(output=str(tmp_path / "large"))
    assert upscale_files([str(pictures / "a.png")], str(model), files, device="cpu", backend="torch") == Summary(1)
    assert read_picture(tmp_path / "large/a_x4.png").rgb.shape == (192, 256, 3)
    with pytest.raises(ValueError, match="enlarges by 4; found --scale 8"):
        upscale_files([str(pictures / "a.png")], str(model), files, scale=8, device="cpu", backend="torch")
