"""The command stylize, as several tests call it."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from fststyle.cli import main

RECORD = {
    "kind": "style",
    "name": "wave",
    "style": {"image": "wave.jpg", "size": 256},
    "images": 12000,
    "held_out": {"content": 0.123456789},
    "versions": {"torch": "2.6"},
}


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below a folder, with what is in it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def stylize(*words: str, style: str = "wave.safetensors") -> int:
    return main(["stylize", *words, "--style", style])


def new_files(folder: Path, before: dict[str, bytes | None]) -> set[str]:
    after = contents(folder)
    assert {name: after.get(name) for name in before} == before
    return {name for name in set(after) - set(before) if after[name] is not None}


def broken(kind: str, path: Path) -> None:
    if kind == "truncated":
        whole = Path("b.jpg").read_bytes()
        path.write_bytes(whole[: len(whole) * 3 // 4])
    elif kind == "text":
        path.write_text("This is no picture.\n")
    elif kind == "empty":
        path.touch()
    elif kind == "dot":
        Image.new("RGB", (1, 1)).save(path)
    else:
        path.mkdir()
