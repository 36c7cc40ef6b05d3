"""Build the page: its files, the models as ONNX, and the runtime, in one folder that any web server can give out."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fststyle import palette
from fststyle.checks import check_name
from fststyle.images import ImageError, check_writable, existing_part
from fststyle.inference.graphs import graph_of
from fststyle.inference.prediction import predictor_graphs
from fststyle.inference.predictor import GROW_FROM
from fststyle.mixtures import mixture_metadata
from fststyle.model_file import check_kind, find_model_file, read_metadata, style_names
from fststyle.octaves import Variation, grow_from, trained_octaves
from fststyle.tensor_files import json_text, load_arrays, split_path
from fststyle.version import __version__
from fststyle.web.runtime import RUNTIMES, runtime_folder

#: What says that a folder holds a page of ours, and which files are its own.
MARK = "fststyle-files.json"
PAGE = Path(__file__).parent / "page"


def build_site(
    folder: Path, models: Sequence[str] = ("zoo",), runtime: Path | None = None, predictor: str | None = None
) -> Path:
    """Write the page into a folder; returns it.

    Args:
        folder: new or empty, or one that holds a page already, whose files are replaced.
        models: bundled names or model files; of several styles, or one.
        runtime: onnxruntime-web's folder ``dist``; None: as ``runtime_folder`` finds it.
        predictor: a bundled name or a model file of kind ``arbitrary``, which takes visitors' own paintings as styles;
            None: the page takes none.

    Raises:
        ModelFileError: unknown, or of another kind; ImageError: a folder that holds other files, or cannot be written.
        FileNotFoundError, RuntimeError: as ``runtime_folder``.
    """
    paths = {str(model): find_model_file(model, "style") for model in models}
    names = [check_name(_name(path), f"the name in {path}", ".onnx") for path in paths.values()]
    if len(set(names)) < len(names):
        raise ImageError(f"found models of one name, {', '.join(names)}; expected each once")
    predicting = None if predictor is None else find_model_file(predictor, "arbitrary")
    if predicting:
        check_kind(predicting, "arbitrary")
    before = _files_of(folder)
    check_writable(existing_part(folder.absolute().parent))
    source = runtime_folder(runtime)
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=folder.absolute().parent) as temporary:
        part = Path(temporary)
        for file in PAGE.iterdir():
            shutil.copyfile(file, part / file.name)
        described = [_model(path, name, part) for name, path in zip(names, paths.values(), strict=True)]
        own = _own(predicting, part) if predicting else None
        about = {"version": __version__, "models": described, "own": own, "runtime": _runtime(source, part)}
        (part / "site.json").write_text(json_text(about), encoding="utf-8")
        later = {f"ort/{name}" for name in vars(RUNTIMES["webgpu"]).values()}
        later |= {name for name in _names(part) if name.startswith("own/")}
        kept = [name for name in _names(part) if name not in later and name != "sw.js"]
        digest = hashlib.sha256(b"".join((part / name).read_bytes() for name in _names(part))).hexdigest()[:16]
        worker = (part / "sw.js").read_text(encoding="utf-8")
        worker = worker.replace('VERSION = "development"', f'VERSION = "{digest}"')
        (part / "sw.js").write_text(worker.replace("FILES = []", f"FILES = {json.dumps(['./', *kept])}"), "utf-8")
        names = [*_names(part), MARK]
        (part / MARK).write_text(json_text(names))
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (part / name).replace(folder / name)
    for name in {*before} - {*names}:
        (folder / name).unlink(missing_ok=True)
    return folder


def _files_of(folder: Path) -> list[str]:
    """The files of the page that a folder holds.

    Raises:
        ImageError: it is a file, or holds other files.
    """
    if folder.exists() and not folder.is_dir():
        raise ImageError(f"{folder}: is a file; expected a folder for the page")
    if not folder.exists() or not any(folder.iterdir()):
        return []
    try:
        names = json.loads((folder / MARK).read_text())
        assert all(isinstance(name, str) and ".." not in Path(name).parts for name in names)
        return list(names)
    except (OSError, ValueError, TypeError, AssertionError):
        raise ImageError(f"{folder}: holds files that are no page of ours; choose a new or an empty folder") from None


def _names(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def _name(path: Path) -> str:
    return str(check_kind(path, "style")["name"])


def _model(path: Path, name: str, folder: Path) -> dict[str, Any]:
    """Write a model and the thumbnails of its styles; returns what the page is told of it."""
    metadata, (file, mixture) = check_kind(path, "style"), split_path(path)
    content = graph_of(path, halved=True)
    (folder / "models").mkdir(exist_ok=True)
    (folder / "models" / f"{name}.onnx").write_bytes(content)
    tensors, styles = load_arrays(file), []
    for number, style in enumerate(style_names(metadata)):
        own = mixture_metadata(metadata, {style: 1.0}) if "styles" in metadata else metadata
        about: dict[str, Any] = {"name": style, "title": _title(style), "grow_from": grow_from(own)}
        about["variation"] = asdict(Variation.from_metadata(own))
        thumbnail = tensors.get(f"styles.{number}.thumbnail")
        if thumbnail is not None and not mixture:
            about["thumbnail"] = f"models/{name}_{number}.jpg"
            (folder / about["thumbnail"]).write_bytes(thumbnail.tobytes())
        styles.append(about)
    file_of = {"file": f"models/{name}.onnx", "bytes": len(content)}
    return {"name": name, **file_of, "octaves": trained_octaves(metadata), "styles": styles}


def _own(path: Path, folder: Path) -> dict[str, Any]:
    """Write what takes a visitor's painting as a style; returns what the page is told of it.

    One network paints and tells what the palette is fitted to; for this it gives images, not pixels.
    """
    predict, paint = predictor_graphs(path, halved=True)
    metadata = read_metadata(path)
    how = {"octaves": trained_octaves(metadata), "variation": asdict(Variation.from_metadata(metadata))}
    (folder / "own").mkdir()
    about: dict[str, Any] = {}
    for key, name, content in (
        ("paint", "paint.onnx", paint),
        ("predict", "predict.onnx", predict),
        ("noise", "noise.bin", palette.noise().tobytes()),
    ):
        (folder / "own" / name).write_bytes(content)
        about[key] = {"file": f"own/{name}", "bytes": len(content)}
    about["paint"] |= {**how, "grow_from": GROW_FROM}
    return about


def _title(name: str) -> str:
    """A style's name as people read it: ``composition_vii`` as Composition VII."""
    words = name.replace("_", " ").capitalize()
    return re.sub(r"\b[ivx]+$", lambda numeral: numeral[0].upper(), words)


def _runtime(source: Path, folder: Path) -> dict[str, Any]:
    """Copy the runtime; returns what the page is told of it."""
    (folder / "ort").mkdir()
    about: dict[str, dict[str, Any]] = {}
    for name, files in RUNTIMES.items():
        for file in vars(files).values():
            shutil.copyfile(source / file, folder / "ort" / file)
        about[name] = {key: f"ort/{file}" for key, file in vars(files).items()}
        about[name]["bytes"] = (source / files.binary).stat().st_size
    if (source / "LICENSE.txt").is_file():
        shutil.copyfile(source / "LICENSE.txt", folder / "ort" / "LICENSE.txt")
    return about
