"""Hydra's overrides with names of files in them: what Hydra makes of them is what the user typed."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from fststyle.cli.overrides import literal, parsed, understood

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
