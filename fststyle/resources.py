"""Where files lie: ``conf/`` and ``checkpoints/`` beside the code, in a wheel or a source tree, and what is cached."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
#: Bytes of memory where the system does not say how much there is, as on Windows.
_UNKNOWN_MEMORY = 8 * 2**30
#: Bytes that are left to decoding, and to what libraries load late.
_RESERVE = 256 * 2**20
#: Bytes that are tried to be had whatever is left.
_ALWAYS = 64 * 2**20
#: File systems that keep files in memory.
_IN_MEMORY = frozenset({"tmpfs", "ramfs"})
#: What is to be done where fststyle-lite is not enough.
NOT_LITE = "fststyle-lite leaves it out; pip install fststyle"
#: What libraries say, in whatever exception, where they get no memory or no thread.
_NO_MEMORY = ("annot allocate memory", "can't allocate memory", "failed to map", "start new thread", "bad_alloc")


def resource(name: str) -> Path:
    """The folder ``conf`` or ``checkpoints``: inside the package (wheel) or beside it (source tree).

    Raises:
        FileNotFoundError: a broken installation.
    """
    for folder in (_PACKAGE / name, _PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"the folder {name}/ is missing from the installation at {_PACKAGE}; reinstall fststyle")


def without_torch() -> bool:
    """Whether PyTorch is not installed, as with fststyle-lite."""
    return importlib.util.find_spec("torch") is None


def cache_folder(name: str) -> Path:
    """Where what can be made again is kept between runs: ``FSTSTYLE_CACHE``, else the user's cache folder."""
    own = os.environ.get("FSTSTYLE_CACHE")
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (Path(own).expanduser() if own else user / "fststyle") / name


def free_memory(root: Path = Path("/")) -> int:
    """Bytes that work may take: half of ``memory_limit`` and of what ``ulimit -v`` allows; less, where this process has
    taken too much of it already.

    Args:
        root: as for ``memory_limit``.
    """
    limit, space = memory_limit(root), address_space() or sys.maxsize
    mapped, resident = own_memory()
    free = min(limit // 2, space // 2, limit - resident - _RESERVE, space - mapped - _RESERVE)
    return max(free, _ALWAYS)


def address_space() -> int | None:
    """Bytes that this process may map (``ulimit -v``); None: no limit."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def own_memory() -> tuple[int, int]:
    """Bytes that this process has mapped, and those of them that are in memory."""
    try:
        lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    except OSError:
        return 0, 0
    found = {words[0]: 1024 * int(words[1]) for words in lines if words[0] in ("VmSize:", "VmRSS:")}
    return found.get("VmSize:", 0), found.get("VmRSS:", 0)


def memory_limit(root: Path = Path("/")) -> int:
    """Bytes of memory that the machine has, or of them its container (control group).

    Args:
        root: of the file system that ``/proc`` and ``/sys`` are looked up in.
    """
    names = getattr(os, "sysconf_names", {})
    known = {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= set(names)
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if known else _UNKNOWN_MEMORY]
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        groups = []
    for line in groups:
        number, controllers, path = line.split(":", 2)
        if number == "0":  # version 2: one hierarchy
            base, limiting = root / "sys/fs/cgroup", ["memory.max", "memory.high"]
        elif "memory" in controllers.split(","):
            base, limiting = root / "sys/fs/cgroup/memory", ["memory.limit_in_bytes"]
        else:
            continue
        group = base / path.strip("/")
        for folder in (group, *group.parents):  # a group's limit holds for all below it
            for name in limiting:
                with contextlib.suppress(OSError, ValueError):  # not there, or "max"
                    limits.append(int((folder / name).read_text()))
            if folder == base:
                break
    return min(limits)


def user_path(text: str | os.PathLike[str]) -> Path:
    """The path that a user means: a leading ``~`` or ``~NAME`` is a home folder, unless something here is called so."""
    expanded = os.path.expanduser(text)
    here = next(iter(Path(text).parts), "")
    literal = os.path.lexists(text) or (here != "~" and os.path.lexists(here) and not os.path.lexists(expanded))
    return Path(text if literal else expanded)


def printable(text: str) -> str:
    """A text that can be written as UTF-8: of a name that is not, the bytes as ``\\xff``."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def one_line(text: str) -> str:
    """A message in one line, whatever the names in it hold: control characters and line ends as ``\\n``, ``\\x1b``."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda found: found[0].encode("unicode_escape").decode(), text)


def on_disk(folder: Path, root: Path = Path("/")) -> bool:
    """Whether what is written to a folder takes no memory."""
    try:
        mounts = (root / "proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return True
    folder, kinds = folder.resolve(), {}
    for mount in mounts:
        place, _, kind = mount.partition(" - ")
        kinds[Path(place.split()[4])] = kind.split()[0]
    return next((kinds[part] for part in (folder, *folder.parents) if part in kinds), "") not in _IN_MEMORY


@contextlib.contextmanager
def working(name: str, begun: Callable[[], object] = lambda: True) -> Iterator[None]:
    """Around work for which all input was checked: an error of input is a failure then (exit code 1), no refusal (2).

    Args:
        name: what fails, for the message.
        begun: false as long as an error still is a refusal.

    Raises:
        RuntimeError: instead of ValueError and OSError.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except (ValueError, OSError) as error:
        if not begun():
            raise
        raise RuntimeError(f"{name} failed: {error}") from error


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had: Python's own, or torch's on a GPU or a CPU."""
    of_torch = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and of_torch)


def lacks_address_space(error: BaseException) -> bool:
    """Whether an error under a limit of ``address_space`` comes of it: no memory, no thread, an import that failed."""
    return isinstance(error, ImportError) or out_of_memory(error) or any(said in str(error) for said in _NO_MEMORY)


def while_importing(error: BaseException) -> bool:
    """Whether an error came out of an import."""
    files = (frame.filename for frame in traceback.extract_tb(error.__traceback__))
    return isinstance(error, ImportError) or any(file.startswith("<frozen importlib") for file in files)


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
