"""What the machine and the container around us give."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fststyle import resources
from fststyle.resources import free_memory, memory_limit, on_disk, one_line, printable, user_path

PLENTY = 2**60
V1 = "sys/fs/cgroup/memory"


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
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/memory.max": "2048\n",
                "sys/fs/cgroup/a/b/memory.max": "max\n",
                "sys/fs/cgroup/a/b/memory.high": "1500\n",
            },
            1500,
        ),
        (
            {
                "proc/self/cgroup": "9:cpu:/job\n8:memory:/job\n0::/\n",
                "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "1024\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            1024,
        ),
        (  # the group's path is the host's, its limit lies at the mount
            {
                "proc/self/cgroup": "4:memory:/docker/0123\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "1024\n",
            },
            1024,
        ),
        ({"proc/self/cgroup": "4:hugetlb,memory:/a\n", f"{V1}/a/memory.limit_in_bytes": "1024\n"}, 1024),
        ({"proc/self/cgroup": "4:memory:/a\n", f"{V1}/a/memory.limit_in_bytes": "9223372036854771712\n"}, PLENTY),
        (
            {
                "proc/self/cgroup": "4:memory:/a\n0::/b\n",
                f"{V1}/a/memory.limit_in_bytes": "4096\n",
                "sys/fs/cgroup/b/memory.max": "2048\n",
            },
            2048,
        ),
        ({"proc/self/cgroup": "0::/../other\n", "sys/fs/cgroup/memory.max": "2048\n"}, 2048),
        ({"proc/self/cgroup": "0::/a:b/c\n", "sys/fs/cgroup/a:b/memory.max": "2048\n"}, 2048),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "2 GiB\n"}, PLENTY),
        ({"proc/self/cgroup": "", "sys/fs/cgroup/memory.max": "2048\n"}, PLENTY),
        ({"proc/self/cgroup": "0::/a\n"}, PLENTY),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{2 * PLENTY}\n"}, PLENTY),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "0\n"}, 0),
    ],
    ids=[
        *("no groups", "version 2", "no limit", "of the group above", "slowed down above", "version 1"),
        *("version 1 in Docker", "version 1 with other controllers", "version 1 without a limit", "both, the less"),
        *(
            "outside the name space",
            "a colon in the name",
            "no number",
            "nothing",
            "no file system",
            "more than there is",
        ),
        "nothing left",
    ],
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


GIB = 2**30


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """A machine of 64 GiB, a process in it, and a container of version 2."""

    def limit(container: int | None = None, space: int | None = None, resident: int = GIB // 4) -> Path:
        monkeypatch.setattr(resources.os, "sysconf", lambda name: {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 64 * GIB}[name])
        monkeypatch.setattr(resources, "address_space", lambda: space)
        monkeypatch.setattr(resources, "own_memory", lambda: (4 * resident, resident))
        files = {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/memory.max": "max" if container is None else str(container),
        }
        return laid_out(tmp_path, files)

    return limit


@pytest.mark.parametrize(
    ("container", "space", "resident", "free"),
    [
        (None, None, GIB // 4, 32 * GIB),
        (2 * GIB, None, GIB // 4, GIB),  # half of it
        (GIB, None, GIB // 2, GIB // 4),  # what is left, less a reserve of a quarter
        (GIB, None, GIB, 2**26),  # there is none: small pictures are tried all the same
        (None, 4 * GIB, GIB // 4, 2 * GIB),
        (None, 4 * GIB, GIB // 2, 2 * GIB - GIB // 4),
        (2 * GIB, 6 * GIB, GIB // 4, GIB),
    ],
)
def test_what_work_may_take_leaves_room_for_what_is_there(
    container: int | None, space: int | None, resident: int, free: int, limited: Callable[..., Path]
) -> None:
    root = limited(container, space, resident)
    assert free_memory(root) == free
    assert memory_limit(root) == (container or 64 * GIB)


def test_ulimit_is_a_limit() -> None:
    code = "from fststyle.resources import free_memory; print(free_memory())"
    done = subprocess.run(
        ["bash", "-c", f"ulimit -v 1000000; {sys.executable} -c '{code}'"], capture_output=True, text=True
    )
    assert int(done.stdout) <= 1000000 * 1024 // 2


@pytest.mark.parametrize(
    ("folder", "disk"),
    [("/dev/shm/a", False), ("/dev", True), ("/home/user", True), ("/run", False), ("/runner", True)],
)
def test_what_is_written_to_memory_is_known(folder: str, disk: bool, tmp_path: Path) -> None:
    mounts = [("/", "ext4"), ("/dev", "devtmpfs"), ("/dev/shm", "tmpfs"), ("/run", "tmpfs")]
    text = "".join(f"1 2 0:3 / {place} rw shared:1 - {kind} none rw\n" for place, kind in mounts)
    assert on_disk(Path(folder), laid_out(tmp_path, {"proc/self/mountinfo": text})) == disk
    assert on_disk(Path(folder), tmp_path / "none")


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
