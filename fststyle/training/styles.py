"""Which paintings a run learns: one, or several in one network, from a list of presets or from a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fststyle.checks import check_name
from fststyle.config import CONF, ConfigError, escaped, preset_style
from fststyle.images import no_pictures, search
from fststyle.resources import file_sha256, printable, user_path

#: What the names of a network's styles are told apart by, where a mixture of them is named.
_MARKS = "/,="


def resolve_styles(config: DictConfig) -> dict[str, DictConfig]:
    """The paintings of a run by name, each as in ``conf/style``; none for a task without.

    The configuration then says what they are: ``style`` is the one, or ``styles`` all of several and ``style`` null.

    Args:
        config: of a run. ``styles`` has several, from ``style=[NAME,…]``, and ``style.image`` may be the folder in
            which those without a picture have theirs; or ``style.image`` is a folder of paintings, a style of each,
            whose size, region, blur, weight and smoothed are those of ``conf/style/NAME.yaml`` or else of ``style``.

    Raises:
        ValueError, OSError: a painting that is missing, two of one name, an empty folder, a name that cannot be one.
    """
    given = config.get("style")
    place = None if not given or OmegaConf.is_missing(given, "image") or not given.image else user_path(given.image)
    if config.get("styles"):
        found = {str(name): _of_preset(str(name), style, place) for name, style in config.styles.items()}
    elif place is not None and place.is_dir():
        found = _of_folder(place, given)
    else:
        return {str(given.get("name")): given} if given and place is not None else {}
    config.name, config.output = config.name, escaped(str(config.output))  # which may be the style's
    if len(found) == 1:
        (config.style,) = found.values()
        config.styles = {}
    else:
        config.style, config.styles = None, found
    return found


def _of_preset(name: str, style: DictConfig, folder: Path | None) -> DictConfig:
    """A style of a list, with its picture."""
    if folder is not None and not folder.is_dir():
        raise ConfigError(
            f"style.image is {folder}, which is no folder; for several styles it is the folder of their paintings, "
            f"and one alone is given as styles.{name}.image=FILE"
        )
    if OmegaConf.is_missing(style, "image") or not style.image:
        files = [file for file in search(folder, recursive=False)[0] if file.stem == name] if folder else []
        if not files:
            where = f"{folder} has none called {name}.jpg or alike" if folder else "give the folder of it"
            raise ConfigError(
                f"style {name} comes without its painting; {where}: style.image=FOLDER, or styles.{name}.image=FILE"
            )
        _check_once(name, files)
        style.image = escaped(str(files[0]))
    return _plain(name, style)


def _of_folder(folder: Path, given: DictConfig) -> dict[str, DictConfig]:
    """A style of each picture in a folder."""
    files, failures = search(folder, recursive=False)
    if failures:
        raise ConfigError(failures[0][1])
    if not files:
        raise no_pictures(folder)
    found = {}
    for file in files:
        name = printable(file.stem)
        _check_once(name, [other for other in files if other.stem == file.stem])
        known = (CONF / "style" / f"{name}.yaml").is_file()
        style = preset_style(name, str(file)) if known else OmegaConf.merge(given, {"image": escaped(str(file))})
        found[name] = _plain(name, style)
    return found


def _check_once(name: str, files: list[Path]) -> None:
    if len(files) > 1:
        raise ConfigError(f"{files[0]} and {files[1].name}: both are called {name}; a style's picture is one")


def _plain(name: str, style: Any) -> DictConfig:
    """A style's settings without references to others, under its name in the network."""
    if any(mark in name for mark in _MARKS) or name != name.strip():
        raise ConfigError(
            f"{style.image}: a style of the name {name!r} cannot be named in a mixture; rename the file, without "
            f"{' '.join(_MARKS)} and spaces at its ends"
        )
    style.name = escaped(check_name(name, "a style's name"))
    plain: Any = OmegaConf.to_container(style, resolve=True)
    texts = {key: escaped(value) if isinstance(value, str) else value for key, value in plain.items()}
    return OmegaConf.create(texts)


def about_style(style: DictConfig) -> dict[str, Any]:
    """What a model file says of a painting."""
    image = user_path(style.image)
    about = {"image": image.name, "sha256": file_sha256(image), "size": style.size, "region": list(style.region)}
    return {**about, "blur": style.blur, "weight": style.weight}
