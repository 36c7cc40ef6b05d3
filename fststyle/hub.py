"""Model files on the Hugging Face Hub: ``hf:user/repo``, and behind it ``@revision``, a file, a style.

    hf:user/wave                      the only model file of the repository
    hf:user/wave@v1                   of a branch, tag or commit (a slash in it as %2F)
    hf:user/styles/zoo                its file zoo.safetensors; also hf:user/styles/folder/zoo.safetensors
    hf:user/zoo/wave                  a style of the only model file, or a mixture, as wave=0.6,udnie=0.4
    hf:user/styles/zoo/wave           a style of a file

``.safetensors`` files alone are fetched, which hold numbers and texts: nothing of a repository is executed or
unpickled. huggingface_hub, which keeps them in its cache, is imported when such a name is used.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from fststyle.version import __version__

PREFIX = "hf:"
_REPOSITORY = r"\w[\w.-]*/\w[\w.-]*"
_NAME = re.compile(rf"hf:/{{0,2}}({_REPOSITORY})(?:@(refs/pr/\d+|[^/@]+))?(?:/(.+))?", re.ASCII)
#: Bytes of the largest file that is fetched; the recommended network takes 7 MB in float32.
LARGEST = 2**30
#: Libraries that huggingface_hub sends its requests by, whichever version it is.
_TRANSPORTS = ("httpx", "httpx2", "requests", "urllib3")
_LOG_IN = "log in with hf auth login, or set HF_TOKEN"


class HubError(ValueError):
    """What cannot be had from the Hub, or brought there; the message says why."""


def check_repository(name: str) -> str:
    """The name of a repository, as ``user/repo``.

    Raises:
        HubError: another form.
    """
    if not re.fullmatch(_REPOSITORY, name, re.ASCII):
        raise HubError(f"found {name!r} for the repository; expected USER/REPO")
    return name


def hub_api() -> Any:
    """huggingface_hub's ``HfApi``, with the endpoint (``HF_ENDPOINT``) and the token that the user has set up.

    Raises:
        HubError: the package is not installed.
    """
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise HubError("the Hugging Face Hub takes the package huggingface_hub; pip install huggingface_hub") from None
    for name in _TRANSPORTS:  # which report every request
        logging.getLogger(name).setLevel(logging.WARNING)
    return HfApi(library_name="fststyle", library_version=__version__)


def find_on_hub(name: str) -> tuple[Path, str]:
    """The file that a name says, on this machine, and the style or mixture that is named behind it, or "".

    The Hub is asked whether there is a newer one; where it cannot be reached, what is cached serves.

    Raises:
        HubError: not of that form, no such repository, revision or file, no access, several files, no network.
    """
    parts = _NAME.fullmatch(name)
    if parts is None:
        raise HubError(f"found {name!r}; expected hf:USER/REPO, and behind it @REVISION, /FILE and /STYLE where needed")
    repository, revision, inside = parts[1], parts[2] and unquote(parts[2]), parts[3] or ""
    api = hub_api()
    with explained(api, repository, revision):
        try:
            info = api.model_info(repository, revision=revision, files_metadata=True, timeout=10)
        except Exception as error:
            folder = _cached(repository, revision)
            if not (_is_unreachable(error) and folder.is_dir()):
                raise
            names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.safetensors"))]
            file, style = _choose(names, inside, f"{name} (cached; the Hub cannot be reached)")
            return folder / file, style
        sizes = {each.rfilename: each.size or 0 for each in info.siblings or []}
        file, style = _choose(list(sizes), inside, name)
        if sizes[file] > LARGEST:
            raise HubError(f"{name}: {file} takes {sizes[file] / 2**30:.1f} GiB, more than any model file of fststyle")
        return Path(api.hf_hub_download(repository, file, revision=revision)), style


def _choose(names: Sequence[str], inside: str, whole: str) -> tuple[str, str]:
    """The file of a repository that is meant, and the style of it: a file's name goes before a style's."""
    files = [name for name in sorted(names) if name.endswith(".safetensors")]
    before, _, last = inside.rpartition("/")
    for file, style in ((inside, ""), (before, last)):
        for each in (file, f"{file}.safetensors"):
            if each in files:
                return each, style
    if len(files) == 1 and not before and not last.endswith(".safetensors"):
        return files[0], last
    if not files:
        raise HubError(f"{whole}: the repository holds no model file (.safetensors)")
    held = f"the repository holds {', '.join(files[:10])}" + (f" and {len(files) - 10} more" if len(files) > 10 else "")
    if inside:
        raise HubError(f"{whole}: there is no file {inside}; {held}")
    raise HubError(f"{whole}: {held}; name one, as {whole.partition(' ')[0]}/{files[0].removesuffix('.safetensors')}")


def _cached(repository: str, revision: str | None) -> Path:
    """The folder of a revision in huggingface_hub's cache, there or not."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE, f"models--{repository.replace('/', '--')}")
    ref = folder / "refs" / (revision or "main")
    return folder / "snapshots" / (ref.read_text().strip() if ref.is_file() else revision or "none")


@contextmanager
def explained(api: Any, repository: str, revision: str | None = None) -> Iterator[None]:
    """Around what asks the Hub: what goes wrong is said in a line.

    Args:
        api: from ``hub_api``.
        repository: that is asked for.
        revision: of it.

    Raises:
        HubError: instead of what huggingface_hub raises for answers of the Hub, and for none.
    """
    try:
        yield
    except HubError:
        raise
    except Exception as error:
        reason = _reason(error, api.endpoint, repository, revision)
        if reason is None:
            raise
        raise HubError(f"{repository}: {reason}") from error


def _reason(error: Exception, endpoint: str, repository: str, revision: str | None) -> str | None:
    """What an error of huggingface_hub means, in a line; None for another one."""
    from huggingface_hub import errors

    if isinstance(error, errors.RevisionNotFoundError):
        return f"has no branch, tag or commit {revision!r} on {endpoint}"
    if isinstance(error, errors.GatedRepoError):
        return f"is given to those who ask for it; do so on {endpoint}/{quote(repository)}, and {_LOG_IN}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    said = str(getattr(error, "server_message", None) or error).strip()
    hidden = status == 401 and "Invalid credentials" not in said  # what is private and what is not there look alike
    if hidden or isinstance(error, errors.RepositoryNotFoundError):
        return f"no such repository on {endpoint}, or a private one; check the name, or {_LOG_IN}"
    if _is_unreachable(error):
        found = f"answers {status}" if status else "cannot be reached"
        return f"{endpoint} {found}; without it there is only what is cached"
    if isinstance(error, errors.HfHubHTTPError):
        known = {401: f"the token was not accepted; {_LOG_IN}", 403: "the token does not allow it"}
        return f"{endpoint} refuses: {known.get(status or 0, status)} ({said.splitlines()[0] if said else ''})"
    return " ".join(str(error).split()) if isinstance(error, ValueError) else None


def _is_unreachable(error: Exception) -> bool:
    """Whether an error says that the Hub did not answer, or is out of order."""
    from huggingface_hub import errors

    if isinstance(error, (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError)):
        return True
    if isinstance(error, errors.HfHubHTTPError):
        return error.response is not None and error.response.status_code >= 500
    return type(error).__module__.partition(".")[0] in _TRANSPORTS
