"""Hydra's overrides with names of files in them: what Hydra makes of them is what the user typed."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from commands import in_folder
from fststyle.cli import main
from fststyle.cli.overrides import check_kinds, literal, parsed, understood
from fststyle.config import compose
from fststyle.images import save_image

#: What has a meaning to Hydra, OmegaConf, a shell or a terminal, and some that has none.
CHARACTERS = "a1 ~'\"=#[]{},${}$%\\\n\t.é漢😀-*?!()|&;:@\r\u2028" + os.fsdecode(b"\xff\xfe")


def value(word: str) -> Any:
    """What a key's value is in the end; a word that Hydra refuses or sweeps over is an error."""
    override = parsed(word)
    assert override is not None, word
    assert not override.is_sweep_override(), word
    config = OmegaConf.create({})
    OmegaConf.update(config, "key", override.value())
    return config.key


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("seed", range(3))
def test_a_name_that_is_there_is_meant_whatever_is_in_it(seed: int) -> None:
    generator = random.Random(seed)
    for _ in range(100):
        name = "".join(generator.choices(CHARACTERS, k=generator.randint(1, 8)))
        if name in (".", "..", "null"):
            continue
        assert value(f"style.image={literal(name)}") == name
        assert value(understood(f"output={name}")) is not None  # accepted, though nothing is there
        Path(name).touch()
        for several in (False, True):
            assert value(understood(f"style.image={name}", several)) == name
        os.unlink(name)


@pytest.mark.parametrize(
    ("word", "several", "expected"),
    [
        ("style.image=a,b", True, "style.image=a,b"),
        ("style.image=x=y.png,b.png", True, "style.image='x=y.png',b.png"),
        ("style.image=choice(a,b)", True, "style.image=choice(a,b)"),
        ("style.image=a,b", False, "style.image='a,b'"),
        ("style=a,b", True, "style=a,b"),
        ("style=a=b", False, "style=a=b"),
        ("loss.style_weight=[1", False, "loss.style_weight=[1"),
        ("style.image='x y.png'", False, "style.image='x y.png'"),
        (r"style.image=x\=y.png", False, r"style.image=x\=y.png"),
        ("output=runs/${name}", False, "output=runs/${name}"),
        ("output=null", False, "output=null"),
        ("output=", False, "output="),
        ("output=1_000", False, "output='1_000'"),
        ("output=1e3", False, "output='1e3'"),
        ("output=[x]", False, "output='[x]'"),
        ("output=x ", False, "output='x '"),
        ("name=7", False, "name='7'"),
        ("resume=true", False, "resume=true"),
        ("resume=last", False, "resume=last"),
        ("data.source.path=~/photos", False, "data.source.path='~/photos'"),
        ("data.source.files=[x=y.png,b.tar]", False, "data.source.files=['x=y.png',b.tar]"),
        ("data.source.files='a/*.tar'", False, "data.source.files='a/*.tar'"),
        ("+data.styles.path=a=b", False, "+data.styles.path='a=b'"),
        ("~callbacks.previews", False, "~callbacks.previews"),
        ("layers=[relu1_1]", False, "layers=[relu1_1]"),
    ],
)
def test_what_is_not_there_means_what_it_means_to_hydra_else_itself(word: str, several: bool, expected: str) -> None:
    Path("x=y.png").touch()
    Path("x y.png").touch()
    assert understood(word, several) == expected
    assert parsed(understood(word, several)) is not None or word in ("style=a=b", "loss.style_weight=[1")


# --- values of another kind ----------------------------------------------------------------------------

TRAIN = ["style.image=a.png", "data=generated", "encoder=random", "trainer.accelerator=cpu"]
OPTIMIZE = ["content=a.png", "style.image=a.png", "encoder=random", "output=b.png"]


@pytest.mark.parametrize(
    ("command", "word", "told"),
    [
        ("train", "overwrite=x", "overwrite is 'x'; expected true or false"),
        ("train", "overwrite=1", "overwrite is 1; expected true or false"),
        ("train", "steps=1.5", "steps is 1.5; expected a whole number"),
        ("train", "steps=many", "steps is 'many'; expected a whole number"),
        ("train", "steps=nan", "steps is nan; expected a whole number"),
        ("train", "steps=[1]", "steps is [1]; expected a whole number"),
        ("train", "data.batch_size=2.5", "data.batch_size is 2.5; expected a whole number"),
        ("train", "data.batch_size=true", "data.batch_size is True; expected a whole number"),
        ("train", "style.size=[1]", "style.size is [1]; expected a whole number"),
        ("train", "loss.style_weight=x", "loss.style_weight is 'x'; expected a number"),
        ("train", "calibration_photographs=x", "calibration_photographs is 'x'; expected a whole number"),
        ("train", "data.source=null", "data.source is null; expected its own settings"),
        ("optimize", "iterations=", "iterations is ''; expected a whole number"),
        ("optimize", "iterations=[1,x]", "iterations is [1, 'x']; expected a whole number"),
        ("optimize", "overwrite=yes please", "overwrite is 'yes please'; expected true or false"),
        ("optimize", "shape=0", "shape is 0; expected [height, width]"),
        ("optimize", "shape=[a,b]", "shape is ['a', 'b']; expected [height, width]"),
        ("optimize", "sizes=64", "sizes is 64; expected a list such as [256,512]"),
        ("optimize", "sizes=[]", "sizes is []; expected a list such as [256,512]"),
        ("optimize", "layers=relu3_1", "layers is 'relu3_1'; expected a list such as [relu3_1]"),
        ("optimize", "layers=[3]", "layers is [3]; expected a list such as [relu3_1]"),
        ("optimize", "learning_rate=fast", "learning_rate is 'fast'; expected a number"),
        ("optimize", "style.size=big", "style.size is 'big'; expected a whole number"),
        ("optimize", "tolerance=x", "tolerance is 'x'; expected a number"),
    ],
)
def test_a_value_of_another_kind_is_refused_by_its_key(
    command: str, word: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_image(np.full((40, 40, 3), 99, np.uint8), tmp_path / "a.png")
    with in_folder(tmp_path):
        assert main([command, *(TRAIN if command == "train" else OPTIMIZE), word]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"fststyle: error: {told}")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_values_of_their_kind_are_taken() -> None:
    words = ["overwrite=true", "steps=1e3", "style.weight=0.5", "style.size=null", "callbacks.average=null"]
    words += ["loss.style_weight=3", "data.scale=[0.5,1]", "threads=2", "logger=csv", "+task.more=x"]
    check_kinds(words, compose("train", words), compose("train"))
    words = ["iterations=[5,6]", "tolerance=0.1", "size=64", "learning_rate=0.1", "shape=[32,40]", "layers=[relu3_1]"]
    check_kinds(words, compose("optimize", words), compose("optimize"))
