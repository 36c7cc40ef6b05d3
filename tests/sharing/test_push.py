"""``fststyle push``: what is uploaded, to a Hub of the tests' own, and that it comes back."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from commands import in_folder
from fake_hub import FakeHub
from fststyle.cli import main
from fststyle.images import save_image
from fststyle.model_file import StyleEntry, load_model_file, read_metadata, save_model_file
from fststyle.networks.superres import SuperResNet
from fststyle.networks.transform import TransformNet
from fststyle.sharing import prepare

ABOUT = {
    **{"licence": "Apache-2.0", "steps": 1200, "images": 4800, "seconds": 90, "created": "2026-01-31"},
    "command": "fststyle train style.image=painting.jpg 'data.source.path=my photos'",
    "encoder": {"name": "vgg19-slim"},
    "loss": {"content_layers": {"relu3_3": 1}, "style_layers": {"relu1_2": 1}, "content_weight": 1, "style_weight": 12},
    "data": {"source": {"_target_": "fststyle.training.sources.folder", "path": "my photos"}},
}
OF_A_STYLE = {
    "style": {"image": "painting.jpg", "sha256": "0123456789abcdef" * 4, "size": 512},
    "held_out": {"total": 1.25},
}


@pytest.fixture
def workplace(tmp_path: Path, astronaut: np.ndarray) -> Path:
    """Models of each form, and two pictures."""
    torch.manual_seed(0)
    one, two = (TransformNet(width=4, residual_blocks=1, styles=styles) for styles in (1, 2))
    save_model_file(tmp_path / "mine.safetensors", one, {"kind": "style", "name": "mine", **ABOUT, **OF_A_STYLE})
    styles = [StyleEntry(name, OF_A_STYLE) for name in ("wave", "udnie")]
    save_model_file(tmp_path / "zoo.safetensors", two, {"kind": "style", "name": "zoo", **ABOUT}, styles=styles)
    own = two.of_mixture(torch.tensor([0.0, 1.0]))
    save_model_file(tmp_path / "norms.safetensors", own, {"kind": "style", "name": "norms", **ABOUT}, norms_only=True)
    enlarging = {"kind": "superres", "name": "x4", "licence": "Apache-2.0"}
    save_model_file(tmp_path / "x4.safetensors", SuperResNet(4, width=4), enlarging)
    save_model_file(tmp_path / "plain.safetensors", one, {"kind": "style", "name": "plain"})
    for name in ("photo.jpg", "painting.jpg"):
        save_image(astronaut[:120, 100:280].copy(), tmp_path / name)
    return tmp_path


def push(folder: Path, words: str) -> int:
    with in_folder(folder):
        return main(["push", *words.split(), "--photo", "photo.jpg"])


def commands(card: str) -> list[str]:
    (block,) = re.findall(r"```sh\n(pip .*?)```", card, re.DOTALL)
    return block.splitlines()[1:]


@pytest.mark.parametrize(
    ("model", "reference", "made"),
    [
        ("mine.safetensors", "hf:user/repo", "photo_repo.jpg"),
        ("zoo.safetensors", "hf:user/repo", "mixed.jpg"),
        ("x4.safetensors", "hf:user/repo", "photo_x4.jpg"),
    ],
)
def test_what_is_pushed_comes_back_and_its_card_is_right(
    hub: FakeHub, workplace: Path, model: str, reference: str, made: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert push(workplace, f"{model} user/repo --message ours") == 0
    assert capsys.readouterr().out.splitlines() == [f"{hub.url}/user/repo", reference]
    repository = hub.repositories["user/repo"]
    assert not repository.private
    assert repository.messages == ["initial commit", "ours"]
    files = repository.files()
    assert files[model] == (workplace / model).read_bytes()
    card = files["README.md"].decode()
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", card):
        assert picture in files
    assert "painting.jpg" not in files
    with in_folder(workplace):
        for line in commands(card):
            assert main(shlex.split(line)[1:]) == 0
        assert Path(made).is_file()
        (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
        exec(compile(code, "README.md", "exec"), {})
        assert Path("result.png").is_file()


def test_a_card_has_licence_figures_and_the_command(workplace: Path) -> None:
    assert push(workplace, "mine.safetensors user/repo --dry-run out") == 0
    card = (workplace / "out/README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["license"] == "apache-2.0"
    assert (front["library_name"], front["pipeline_tag"]) == ("fststyle", "image-to-image")
    assert {"fststyle", "style-transfer"} <= {*front["tags"]}
    for said in (
        *(
            "`painting.jpg`, at 512 pixels",
            "`vgg19-slim`",
            "1,200 steps, 4,800 images, 1.5 minutes",
            "folder `my photos`",
        ),
        *("content of relu3_3; style of relu1_2; weights: content 1, style 12", "| `mine` | 1.25 |"),
        f"```sh\n{ABOUT['command']}\n```",
    ):
        assert said in card
    assert not re.search(r"https?://|None", card)
    pictures = {path.name: np.asarray(Image.open(path)) for path in (workplace / "out/pictures").iterdir()}
    assert {*pictures} == {"photograph.jpg", "photograph_mine.jpg"}
    assert pictures["photograph.jpg"].shape == pictures["photograph_mine.jpg"].shape


def test_a_card_shows_every_style_and_its_figures(workplace: Path) -> None:
    with in_folder(workplace):
        assert prepare("zoo.safetensors", "user/zoo", "out", photo="photo.jpg", revision="a/b") == "hf:user/zoo@a%2Fb"
    card = (workplace / "out/README.md").read_text()
    for name in ("wave", "udnie"):
        assert f"![{name}](pictures/photograph_{name}.jpg)" in card
        assert f"| `{name}` | 1.25 |" in card
    assert "--style hf:user/zoo@a%2Fb/wave" in card
    assert "--style hf:user/zoo@a%2Fb --mix wave=0.5 udnie=0.5" in card


def test_the_default_photograph_is_none_of_the_users(workplace: Path) -> None:
    with in_folder(workplace):
        prepare("mine.safetensors", "user/repo", "out")
    assert max(Image.open(workplace / "out/pictures/photograph.jpg").size) == 640
    assert "The photograph comes with scikit-image." in (workplace / "out/README.md").read_text()


def test_names_of_any_characters_stay_text(workplace: Path) -> None:
    name = "a|b *c* `d` 'e'"
    network = TransformNet(width=4, residual_blocks=1)
    save_model_file(workplace / "odd.safetensors", network, {"kind": "style", "name": name, "licence": "mit"})
    assert push(workplace, "odd.safetensors user/repo --dry-run out") == 0
    card = (workplace / "out/README.md").read_text()
    assert r"# a\|b \*c\* \`d\` 'e'" in card
    (workplace / f"out/{name}.safetensors").read_bytes()
    assert "(pictures/photograph_a%7Cb%20%2Ac%2A%20%60d%60%20%27e%27.jpg)" in card


@pytest.mark.parametrize(("model", "name"), [("zoo.safetensors/udnie", "udnie"), ("norms.safetensors", "norms")])
def test_a_style_of_a_file_and_norms_alone_get_their_convolutions(workplace: Path, model: str, name: str) -> None:
    assert push(workplace, f"{model} user/repo --dry-run out") == 0
    (workplace / "zoo.safetensors").unlink()
    found = load_model_file(workplace / f"out/{name}.safetensors")
    assert found.metadata["name"] == name
    assert "norms_only" not in found.metadata["network"]


def test_another_licence_is_that_of_the_file_too(workplace: Path) -> None:
    assert push(workplace, "mine.safetensors user/repo --license cc-by-4.0 --dry-run out") == 0
    assert read_metadata(workplace / "out/mine.safetensors")["licence"] == "cc-by-4.0"
    assert (workplace / "out/README.md").read_text().startswith("---\nlicense: cc-by-4.0\n")
    ours = load_model_file(workplace / "mine.safetensors").network.state_dict()
    theirs = load_model_file(workplace / "out/mine.safetensors").network.state_dict()
    assert all(torch.equal(theirs[key], value) for key, value in ours.items())


def test_branches_and_private_repositories_are_made(hub: FakeHub, workplace: Path) -> None:
    assert push(workplace, "mine.safetensors user/repo --private --revision v2") == 0
    repository = hub.repositories["user/repo"]
    assert repository.private
    assert "mine.safetensors" not in repository.files()
    assert "mine.safetensors" in repository.files("v2")
    assert commands(repository.files("v2")["README.md"].decode()) == [
        "fststyle stylize photo.jpg --style hf:user/repo@v2"
    ]
    assert push(workplace, "mine.safetensors user/repo --private --revision v2 --message again") == 0
    assert push(workplace, "mine.safetensors user/repo") == 0


def test_beside_other_model_files_commands_name_this_one(
    hub: FakeHub, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert push(workplace, "zoo.safetensors user/repo") == 0
    assert push(workplace, "mine.safetensors user/repo") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "hf:user/repo/mine"
    files = hub.repositories["user/repo"].files()
    assert {"zoo.safetensors", "mine.safetensors"} <= {*files}
    assert commands(files["README.md"].decode()) == ["fststyle stylize photo.jpg --style hf:user/repo/mine"]


REFUSED = [
    ("absent user/repo", "unknown style 'absent'"),
    ("mine.safetensors repo", "found 'repo' for the repository; expected USER/REPO"),
    ("mine.safetensors user/repo --license Apache_2.0", "expected an identifier of the Hub's"),
    ("plain.safetensors user/repo", "says no licence; give one with --license"),
    ("zoo.safetensors/wave=0.5,udnie=0.5 user/repo", "is a mixture"),
    ("vgg19_slim user/repo", "is of kind encoder; expected style, superres, swap"),
    ("mine.safetensors user/repo --dry-run .", "is there already; expected a new or an empty folder"),
    ("mine.safetensors other/repo", "refuses: the token does not allow it (You don't have the rights"),
    ("mine.safetensors user/public --private", "is public; make it private in its settings"),
    ("mine.safetensors user/public", "holds a model card that fststyle has not written"),
]


@pytest.mark.parametrize(("words", "said"), REFUSED)
def test_what_cannot_be_shared_is_refused_in_a_line(
    hub: FakeHub, workplace: Path, words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = hub.add("user/public", {"README.md": b"# Mine"}).files()
    assert push(workplace, words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error
    assert {*hub.repositories} == {"user/public"}
    assert hub.repositories["user/public"].files() == before


def test_a_card_of_others_is_replaced_when_asked(hub: FakeHub, workplace: Path) -> None:
    hub.add("user/public", {"README.md": b"# Mine"})
    assert push(workplace, "mine.safetensors user/public --overwrite") == 0
    assert b"fststyle" in hub.repositories["user/public"].files()["README.md"]


def test_a_missing_photo_is_refused_before_anything_is_sent(
    hub: FakeHub, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with in_folder(workplace):
        assert main(["push", "mine.safetensors", "user/repo", "--photo", "absent.jpg"]) == 2
    assert "absent.jpg: no such file" in capsys.readouterr().err
    assert not hub.requests


def test_without_a_token_or_a_connection_nothing_is_made(
    hub: FakeHub, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.broken = 502
    assert push(workplace, "mine.safetensors user/repo") == 2
    assert "answers 502" in capsys.readouterr().err
    monkeypatch.delenv("HF_TOKEN")
    assert push(workplace, "mine.safetensors user/repo") == 2
    assert "found no token for http://127.0.0.1" in capsys.readouterr().err


def test_an_upload_that_fails_is_a_failure(hub: FakeHub, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert push(workplace, "mine.safetensors user/repo --license no-such-licence") == 1
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("fststyle: failed: the upload to user/repo failed: ")
    assert '"license" must be one of' in error
