"""The model card: README.md as the Hugging Face Hub shows it, made of a model file's metadata."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fststyle.model_file import read_metadata, style_names

#: What the model cards of a kind say first, their tags, and the commands and the Python that apply the model.
ABOUT = {
    "style": "fast neural style transfer (Johnson, Alahi, Fei-Fei 2016): it paints any picture in one forward pass",
    "superres": "super-resolution: it enlarges pictures {scale} times in one forward pass",
    "swap": "style swap (Chen, Schmidt 2016): it paints pictures with patches of any other picture in one pass",
}
TAGS = {
    "style": ("style-transfer", "neural-style-transfer"),
    "superres": ("super-resolution",),
    "swap": ("style-transfer",),
}
COMMANDS = {
    "style": "fststyle stylize photo.jpg --style {name}",
    "superres": "fststyle upscale photo.jpg --model {name}",
    "swap": "fststyle swap photo.jpg --style-image painting.jpg --model {name}",
}
SNIPPETS = {
    "style": ("Stylizer", 'load_image("photo.jpg")'),
    "superres": ("Upscaler", 'load_image("photo.jpg")'),
    "swap": ("Swapper", 'load_image("photo.jpg"), load_image("painting.jpg")'),
}
#: Pictures in a row.
COLUMNS = 4


def model_card(path: Path, reference: str, licence: str, pictures: Mapping[str, str], origin: str = "") -> str:
    """The text of README.md.

    Args:
        path: the model file, of kind style, superres or swap.
        reference: the name that it will have, as ``hf:user/repo``.
        licence: an identifier of the Hub's, such as ``apache-2.0``.
        pictures: places in the repository, by what they show.
        origin: a sentence on the photograph.
    """
    metadata = read_metadata(path)
    kind, names = metadata["kind"], style_names(metadata)
    arguments = metadata["network"]["arguments"]
    about = f"A network of fststyle for {ABOUT[kind].format(**{'scale': 4, **arguments})}."
    if "styles" in metadata:
        about += f" It holds {len(names)} styles, which can be mixed: {', '.join(map(_code, names))}."
    parts = [
        _front_matter(kind, licence),
        f"# {_plain(metadata['name'])}",
        about,
        _gallery(pictures),
        origin,
        f"## Use\n\n{_usage(kind, reference, names if 'styles' in metadata else [])}",
        f"## How it was made\n\n{_table(_making(path, metadata))}",
        _command(metadata),
        _figures(path, metadata),
        f"## Licence\n\n{licence}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(kind: str, licence: str) -> str:
    lines = [f"license: {licence}", "library_name: fststyle", "pipeline_tag: image-to-image", "tags:"]
    return "\n".join(["---", *lines, *(f"- {tag}" for tag in ("fststyle", *TAGS[kind])), "---"])


def _gallery(pictures: Mapping[str, str]) -> str:
    """Tables of at most ``COLUMNS`` pictures, with what they show above them."""
    rows = []
    shown = list(pictures.items())
    for first in range(0, len(shown), COLUMNS):
        part = shown[first : first + COLUMNS]
        heads = " | ".join(_plain(label) for label, _ in part)
        cells = " | ".join(f"![{_plain(label)}]({quote(file)})" for label, file in part)
        rows.append(f"| {heads} |\n|{'---|' * len(part)}\n| {cells} |")
    return "\n\n".join(rows)


def _usage(kind: str, reference: str, names: Sequence[str]) -> str:
    """Commands and Python that apply the model; of several styles, ``names``, the first ones."""
    one = f"{reference}/{names[0]}" if names else reference
    commands = ["pip install fststyle huggingface_hub", COMMANDS[kind].format(name=shlex.quote(one))]
    if names:
        mixture = " ".join(shlex.quote(f"{name}=0.5") for name in names[:2])
        commands.append(f"fststyle stylize photo.jpg --style {shlex.quote(reference)} --mix {mixture} -o mixed.jpg")
    taken, pictures = SNIPPETS[kind]
    code = [
        f"from fststyle import {taken}, load_image, save_image\n",
        f"apply = {taken}.from_checkpoint({json.dumps(one, ensure_ascii=False)})",
        f'save_image(apply({pictures}), "result.png")',
    ]
    blocks = "".join(
        f"```{language}\n" + "\n".join(lines) + "\n```\n\n" for language, lines in (("sh", commands), ("python", code))
    )
    return (
        f"{blocks}`fststyle info {shlex.quote(reference)}` prints all that the file says of itself. It is a "
        "safetensors file, of numbers and texts; nothing in it is executed."
    )


def _making(path: Path, metadata: Mapping[str, Any]) -> dict[str, str]:
    """What is known of how a model came to be; what is not is left out."""
    names = style_names(metadata) if "styles" in metadata else []
    each: list[Mapping[str, Any]] = [read_metadata(path / name) for name in names] or [metadata]
    paintings = [_painting(own, name) for name, own in zip(names or [""], each, strict=True)]
    encoder, network = metadata.get("encoder") or {}, metadata["network"]
    counts = [f"{int(metadata[key]):,} {key}" for key in ("steps", "images") if metadata.get(key)]
    if metadata.get("seconds"):
        counts.append(f"{metadata['seconds'] / 60:.1f} minutes")
    versions = [f"{name} {version}" for name, version in (metadata.get("versions") or {}).items()]
    arguments = ", ".join(f"{key} {value}" for key, value in network["arguments"].items())
    known = {
        "imitates, without holding it": "<br>".join(filter(None, paintings)),
        "encoder": _code(encoder["name"]) if encoder.get("name") else "",
        "loss": (f"of {_code(names[0])}: " if names else "") + _loss(each[0].get("loss") or {}),
        "training": ", ".join(counts),
        "begun from": _code(start["name"]) if (start := metadata.get("init_from")) and start.get("name") else "",
        "photographs": _photographs(metadata.get("data") or {}),
        "network": f"{_code(network['class'])} ({_plain(arguments)}), weights in {network.get('dtype', 'float16')}",
        "made": _plain(", ".join(filter(None, [str(metadata.get("created") or ""), *versions]))),
    }
    return {key: text for key, text in known.items() if text}


def _painting(metadata: Mapping[str, Any], name: str) -> str:
    style = metadata.get("style") or {}
    if not style.get("image"):
        return ""
    size = f", at {style['size']} pixels" if style.get("size") else ""
    digest = f", SHA-256 {_code(str(style['sha256'])[:16])}…" if style.get("sha256") else ""
    return (f"{_code(name)}: " if name else "") + f"{_code(style['image'])}{size}{digest}"


def _loss(loss: Mapping[str, Any]) -> str:
    """Layers and weights of a perceptual loss."""
    layers = {key: ", ".join(loss.get(f"{key}_layers") or ()) for key in ("content", "style")}
    said = [f"{key} of {text}" for key, text in layers.items() if text]
    weights = {key: loss.get(f"{key}_weight") for key in ("content", "style", "color", "tv", "pixel")}
    said += ["weights: " + ", ".join(f"{key} {value:g}" for key, value in weights.items() if value)]
    if loss.get("balanced"):
        said.append("each term in units of its value where nothing was done")
    return "; ".join(said) if any(weights.values()) else ""


def _photographs(data: Mapping[str, Any]) -> str:
    """Where photographs came from: in words, or the source of a training's configuration."""
    if "photographs" in data:
        return _plain(data["photographs"])
    source = data.get("source")
    if not isinstance(source, dict):
        return ""
    kind = str(source.get("_target_", "")).rpartition(".")[2].lower()
    place = next((source[key] for key in ("repository", "path", "files") if source.get(key)), "")
    return f"{kind} {_code(str(place))}" if place else kind


def _command(metadata: Mapping[str, Any]) -> str:
    command = str(metadata.get("command") or "")
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", command)), default=0))
    return f"Its training command:\n\n{fence}sh\n{command}\n{fence}" if command else ""


def _figures(path: Path, metadata: Mapping[str, Any]) -> str:
    """Terms of the loss on photographs that were kept from training, a row for each style."""
    names = style_names(metadata)
    each = [read_metadata(path / name) for name in names] if "styles" in metadata else [metadata]
    found = {name: own["held_out"] for name, own in zip(names, each, strict=True) if own.get("held_out")}
    terms = list(dict.fromkeys(term for figures in found.values() for term in figures))
    if not terms:
        return ""
    lines = [["", *terms], ["---", *["---:"] * len(terms)]]
    lines += [[_code(name), *(f"{own[t]:.4g}" if t in own else "" for t in terms)] for name, own in found.items()]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    about = "Terms of the loss, unweighted, and their weighted sum, on photographs that were kept from training:"
    return f"## Figures\n\n{about}\n\n{table}"


def _table(rows: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {text} |" for key, text in rows.items())])


def _plain(text: object) -> str:
    """A text that Markdown shows as it is, in one line and in a cell."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(str(text).split()))


def _code(text: object) -> str:
    return f"`{' '.join(str(text).replace('`', chr(39)).replace('|', '/').split())}`"
