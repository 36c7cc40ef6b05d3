"""What the machine and the container around us give."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fststyle import resources
from fststyle.resources import memory_limit, one_line, printable, user_path

PLENTY = 2**60


def laid_out(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, PLENTY),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "4096\n"}, 4096),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n"}, PLENTY),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/memory.max": "2048\n"}, 2048),
        (
            {
                "proc/self/cgroup": "9:cpu:/job\n8:memory:/job\n0::/\n",
                "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "1024\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            1024,
        ),
    ],
    ids=["no groups", "version 2", "no limit", "of the group above", "version 1"],
)
def test_a_container_has_the_memory_of_its_control_group(
    files: dict[str, str], limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources.os, "sysconf", lambda name: {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": PLENTY}[name])
    assert memory_limit(laid_out(tmp_path, files)) == limit


def test_a_system_that_does_not_say_is_given_a_guess(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(resources.os, "sysconf_names")
    assert memory_limit(tmp_path) == 8 * 2**30


def test_this_machine_has_some() -> None:
    assert 2**28 < memory_limit() < PLENTY


@pytest.mark.parametrize(
    ("text", "there", "expected"),
    [
        ("~/a", [], "HOME/a"),
        ("~", [], "HOME"),
        ("~x", [], "~x"),
        ("~root/a", ["~root/a"], "~root/a"),
        ("~root/*.png", ["~root/a"], "~root/*.png"),
        ("~/a", ["~/a"], "~/a"),
        ("~/b", ["~/a"], "HOME/b"),
        ("./~", [], "~"),
        ("a/~", [], "a/~"),
        ("", [], "."),
    ],
)
def test_a_tilde_is_the_home_folder_unless_something_is_called_so(
    text: str, there: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "HOME")
    for name in there:
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    assert user_path(text) == Path(expected)


def test_messages_stay_in_one_line_and_texts_can_be_written() -> None:
    assert one_line("a\nb\r\x1b[1m\u2028é 漢") == r"a\nb\r\x1b[1m\u2028é 漢"
    assert printable("é" + os.fsdecode(b"\xff")) == r"é\xff"
