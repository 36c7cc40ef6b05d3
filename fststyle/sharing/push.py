"""A model file to the Hugging Face Hub, with a model card and pictures, in one commit."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from fststyle.checks import check_name
from fststyle.hub import PREFIX, HubError, check_repository, explained, hub_api
from fststyle.images import check_file, check_folder
from fststyle.merging import merge_files
from fststyle.model_file import (
    KINDS,
    ModelFileError,
    find_model_file,
    kind_of,
    load_model_file,
    read_metadata,
    write_tensors,
)
from fststyle.resources import user_path, working
from fststyle.sharing.card import ABOUT, model_card
from fststyle.sharing.pictures import make_pictures
from fststyle.tensor_files import load_tensors, split_path

CARD, PICTURES = "README.md", "pictures"


def prepare(
    name_or_path: str | os.PathLike[str],
    repository: str,
    folder: str | os.PathLike[str],
    *,
    revision: str | None = None,
    licence: str | None = None,
    photo: str | os.PathLike[str] | None = None,
    named: bool = False,
) -> str:
    """Write what is to be shared into a folder: the model file, README.md and ``pictures/``.

    A style of a file of several, and norms alone, become a file of one style with its convolutions.

    Args:
        name_or_path: a bundled model's name or a model file, or a style of one that holds several.
        repository: where it will be, as ``user/repo``; nothing is sent.
        folder: new or empty.
        revision: the branch that it will be on; None: the main one.
        licence: of the model, an identifier of the Hub's; None: what the file says. The file then says the same.
        photo: a picture file to show the model on; None: a photograph of scikit-image, or a picture made by code.
        named: the repository holds other model files, so that commands name this one.

    Returns:
        The model's name there, as ``hf:user/repo``.

    Raises:
        ValueError: no such model, an encoder or a mixture, a folder that is not empty, a photo that cannot be read.
    """
    path = _checked(name_or_path, repository, licence, photo)
    target = check_folder(folder, "folder")
    if target.exists() and any(target.iterdir()):
        raise ModelFileError(f"{target}: is there already; expected a new or an empty folder")
    (target / PICTURES).mkdir(parents=True)
    metadata = read_metadata(path)
    model = target / _file_name(path)
    if split_path(path)[1] or metadata["network"].get("norms_only"):
        merge_files([path], model)
    else:
        load_model_file(path)  # which a damaged file does not survive
        shutil.copyfile(path, model)
    metadata = read_metadata(model)
    if licence is None:
        licence = _identifier(metadata["licence"])
    elif licence != _identifier(metadata.get("licence", "")):
        write_tensors(model, load_tensors(model), {**metadata, "licence": licence})
    pictures, origin = make_pictures(model, target / PICTURES, photo)
    reference = f"{PREFIX}{repository}{_at(revision)}" + (f"/{model.stem}" if named else "")
    places = {label: f"{PICTURES}/{file}" for label, file in pictures.items()}
    text = model_card(model, reference, licence, places, origin)
    (target / CARD).write_text(text, encoding="utf-8", errors="backslashreplace")
    return reference


def push(
    name_or_path: str | os.PathLike[str],
    repository: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    licence: str | None = None,
    photo: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> tuple[str, str]:
    """Upload a model to the Hugging Face Hub in one commit; the repository is made if there is none.

    Args:
        name_or_path, licence, photo: as for ``prepare``.
        repository: ``user/repo``, or that of an organisation.
        private: make a private repository; one that is there has to be private.
        revision: the branch, which is made if there is none; None: the main one.
        message: of the commit.
        overwrite: replace a model card that fststyle has not written.

    Returns:
        The repository's address, and the model's name, as ``hf:user/repo``.

    Raises:
        ValueError: as ``prepare``; HubError: no token or one that does not allow it, no connection, a public repository
            for a private model, another model's card. Nothing was sent.
        RuntimeError: the upload failed.
    """
    path = _checked(name_or_path, repository, licence, photo)
    api = hub_api()
    from huggingface_hub import CommitOperationAdd, get_token

    if get_token() is None:
        raise HubError(f"found no token for {api.endpoint}; log in with hf auth login, or set HF_TOKEN")
    others = _model_files(api, repository, revision, private, overwrite) - {_file_name(path)}
    with tempfile.TemporaryDirectory(prefix="fststyle-") as temporary:
        folder = Path(temporary)
        reference = prepare(
            path, repository, folder, revision=revision, licence=licence, photo=photo, named=bool(others)
        )
        with explained(api, repository, revision):
            api.create_repo(repository, private=private or None, exist_ok=True)
            if revision is not None:
                api.create_branch(repository, branch=revision, exist_ok=True)
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        added = [CommitOperationAdd(file.relative_to(folder).as_posix(), file) for file in files]
        with working(f"the upload to {repository}"), explained(api, repository, revision):
            said = message or f"Add {_file_name(path)}"
            api.create_commit(repository, added, commit_message=said, revision=revision)
    return f"{api.endpoint}/{repository}", reference


def _checked(
    name_or_path: str | os.PathLike[str], repository: str, licence: str | None, photo: str | os.PathLike[str] | None
) -> Path:
    """The model file of a name, once all that can be known before work is in order."""
    check_repository(repository)
    path = find_model_file(name_or_path, kind_of(str(name_or_path)))
    metadata = read_metadata(path)
    if metadata["kind"] not in ABOUT:
        raise ModelFileError(
            f"{path}: is of kind {metadata['kind']}; expected {', '.join(k for k in KINDS if k in ABOUT)}"
        )
    if "mixture" in metadata:
        raise ModelFileError(f"{path}: is a mixture, which anyone mixes of the file; expected a style, or the file")
    if licence is None and not metadata.get("licence"):
        raise ModelFileError(f"{path}: says no licence; give one with --license, as apache-2.0")
    if licence is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", licence):
        raise ModelFileError(
            f"found --license {licence}; expected an identifier of the Hub's, as apache-2.0 or cc-by-4.0"
        )
    _file_name(path)
    if photo is not None:
        check_file(user_path(photo))
    return path


def _file_name(path: Path) -> str:
    return check_name(read_metadata(path)["name"], f"the name in {path}", ".safetensors") + ".safetensors"


def _identifier(licence: object) -> str:
    """An identifier of the Hub's, of a licence as our files have it: ``Apache-2.0``."""
    return re.sub(r"[^a-z0-9.+-]+", "-", str(licence).lower())


def _at(revision: str | None) -> str:
    return "" if revision in (None, "main") else "@" + str(revision).replace("%", "%25").replace("/", "%2F")


def _model_files(api: Any, repository: str, revision: str | None, private: bool, overwrite: bool) -> set[str]:
    """The model files that a repository holds.

    Raises:
        HubError: it is not as it has to be.
    """
    from huggingface_hub import errors

    with explained(api, repository, revision):
        try:
            info = api.model_info(repository)
        except errors.RepositoryNotFoundError:
            return set()
        if private and not info.private:
            raise HubError(f"{repository}: is public; make it private in its settings, or leave --private out")
        with contextlib.suppress(errors.RevisionNotFoundError):  # a new branch begins with what the main one has
            info = api.model_info(repository, revision=revision) if revision else info
    names = {each.rfilename for each in info.siblings or []}
    if CARD in names and "fststyle" not in (info.tags or []) and not overwrite:
        raise HubError(
            f"{repository}: holds a model card that fststyle has not written; choose another repository, or replace "
            "it with --overwrite"
        )
    return {name for name in names if name.endswith(".safetensors")}
