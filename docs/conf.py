"""The documentation site, made by Sphinx: the documents at their places in the repository, and the docstrings.

The source folder is the repository, so that a link between documents is the same on the site and on GitHub. Docstrings
are read from the source files (AutoAPI); nothing of the package is imported.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer

project = "fststyle"
html_title = "fststyle"
html_theme = "furo"
html_copy_source = False
extensions = ["myst_parser", "sphinx.ext.napoleon", "autoapi.extension"]
root_doc = "README"
myst_heading_anchors = 3
include_patterns = ["*.md", "docs/*.md", "checkpoints/README.md", "reference/**"]
exclude_patterns = [".*", "out", "runs"]  # not looked into
suppress_warnings = [
    "autoapi.python_import_resolution",  # of constants that are assigned together, and of modules left out below
    "ref.python",  # an exception's name that two modules have
]

autoapi_dirs = ["fststyle"]
autoapi_root = "reference"
_LEFT_OUT = ("__main__", "cluster", "devices", "diagnostics", "padding", "resources", "version")
autoapi_ignore = ["*/fststyle/cli/*", *(f"*/fststyle/{name}.py" for name in _LEFT_OUT)]
autoapi_options = ["members", "undoc-members", "show-module-summary"]
autoapi_member_order = "bysource"
autoapi_add_toctree_entry = False

CONTENTS = """

```{toctree}
:hidden:
:caption: Guides
docs/pictures
docs/any_painting
docs/video
docs/swap
docs/superres
docs/slow
docs/evaluate
docs/cluster
docs/several_styles
docs/styles
docs/encoder
docs/sharing
docs/lite
docs/web
docs/performance
```

```{toctree}
:hidden:
:caption: Reference
Gallery <checkpoints/README>
Python <reference/fststyle/index>
Contributing <CONTRIBUTING>
Changes <CHANGELOG>
```
"""


def setup(app: Sphinx) -> None:
    """Called by Sphinx when it starts."""
    app.connect("autoapi-skip-member", add_comment)
    app.connect("source-read", add_contents)
    app.connect("build-finished", finish)


def add_comment(app: Sphinx, what: str, name: str, member: Any, skip: bool, options: list[str]) -> bool:
    """Describe a constant or a field by the comment that begins with ``#:``; leave loggers out."""
    if what in ("data", "attribute") and not member.docstring:
        module = name.removesuffix(f".{member.qual_name}")
        file = Path(app.srcdir, *module.split("."))
        file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
        scope, _, attribute = member.qual_name.rpartition(".")
        member.docstring = "\n".join(ModuleAnalyzer.for_file(file, module).find_attr_docs().get((scope, attribute), []))
    return skip or name.endswith(".log")


def add_contents(app: Sphinx, name: str, source: list[str]) -> None:
    """Give README.md the site's contents, which would be no use on GitHub."""
    if name == root_doc:
        source[0] += CONTENTS


def finish(app: Sphinx, error: Exception | None) -> None:
    """Make index.html lead to the README, and pictures open that are clicked, instead of being downloaded."""
    if error or app.builder.format != "html":
        return
    for page in Path(app.outdir).rglob("*.html"):
        page.write_text(page.read_text(encoding="utf-8").replace(' download=""', ""), encoding="utf-8")
    lead = f'<meta http-equiv="refresh" content="0; url={root_doc}.html"><a href="{root_doc}.html">{project}</a>'
    (Path(app.outdir) / "index.html").write_text(f"<!doctype html>{lead}\n", encoding="utf-8")
