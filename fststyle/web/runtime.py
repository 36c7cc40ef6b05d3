"""onnxruntime-web, which runs networks in a browser: fetched by npm when a page is built, no part of this package."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fststyle.resources import cache_folder

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"


@dataclass(frozen=True)
class Files:
    """What a way of computing takes, of the package's folder ``dist``."""

    module: str
    glue: str
    binary: str


#: WebAssembly with SIMD and threads; WebGPU, whose files are loaded by browsers that have it.
RUNTIMES = {
    "wasm": Files("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"),
    "webgpu": Files(
        "ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm"
    ),
}
NAMES = sorted({name for files in RUNTIMES.values() for name in (files.module, files.glue, files.binary)})


def runtime_folder(given: Path | None = None) -> Path:
    """The folder that holds the files of ``RUNTIMES``: the given one, or the cached one, which npm fills once.

    Raises:
        FileNotFoundError: files that are missing, or no npm; the message says what to do.
        RuntimeError: npm failed.
    """
    if given is not None:
        if missing := [name for name in NAMES if not (given / name).is_file()]:
            raise FileNotFoundError(f"{given}: lacks {', '.join(missing)}; expected the dist of {PACKAGE} {VERSION}")
        return given
    folder = cache_folder("web") / f"{PACKAGE}-{VERSION}"
    if all((folder / name).is_file() for name in NAMES):
        return folder
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError(
            f"npm is not installed, which fetches {PACKAGE}; install Node.js, or name a folder that holds its dist "
            "with --runtime"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=folder.parent) as part:
        words = [npm, "pack", f"{PACKAGE}@{VERSION}", "--json", "--pack-destination", part]
        done = subprocess.run(words, cwd=part, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            reason = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1]
            raise RuntimeError(f"npm could not fetch {PACKAGE} {VERSION}: {reason}")
        (packed,) = Path(part).glob("*.tgz")
        fresh = Path(part) / "dist"
        fresh.mkdir()
        with tarfile.open(packed) as archive:
            for name in NAMES:
                member = archive.extractfile(f"package/dist/{name}")
                assert member is not None, f"{name} is a file of {PACKAGE}"
                (fresh / name).write_bytes(member.read())
            about = archive.extractfile("package/package.json")
            assert about is not None
            (fresh / "LICENSE.txt").write_text(f"{PACKAGE} {VERSION}, {json.load(about)['license']}\n")
        if not folder.exists():
            fresh.rename(folder)
    return folder
