"""``fststyle web``: a page that applies styles in the browser."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import webbrowser
from pathlib import Path

from fststyle.checks import check_path
from fststyle.inference.predictor import DEFAULT
from fststyle.resources import user_path


def add_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("models", nargs="*", metavar="NAME_OR_FILE", help="model files of one style or several; default: zoo")
    add("-o", "--output", metavar="FOLDER", help="where the page goes: new, empty, or a page already")
    add("--open", action="store_true", help="serve it on this machine and open the browser")
    add("--port", type=int, default=0, metavar="N", help="of --open; default: any that is free")
    add(
        "--predictor",
        metavar="NAME_OR_FILE",
        help=f"what takes visitors' own paintings as styles, or none; default: {DEFAULT}, where it is bundled",
    )
    add("--runtime", metavar="FOLDER", help="the dist of onnxruntime-web; default: fetched by npm, once")


def run(options: argparse.Namespace) -> int:
    """Build the page, say where it is, serve it."""
    if options.output is None and not options.open:
        raise ValueError("found neither -o nor --open; expected a folder for the page, or --open to look at it")
    if not 0 <= options.port < 2**16:
        raise ValueError(f"--port is {options.port}; expected a number from 0 to 65535")
    from fststyle.model_file import bundled_files
    from fststyle.web import build_site, serve

    runtime = None if options.runtime is None else user_path(options.runtime)
    predictor = DEFAULT if options.predictor is None and DEFAULT in bundled_files("arbitrary") else options.predictor
    with contextlib.ExitStack() as stack:
        if options.output is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fststyle-"))) / "page"
        else:
            folder = check_path(options.output, "output")
        build_site(folder, options.models or ["zoo"], runtime, None if predictor == "none" else predictor)
        if options.output is not None:
            print(folder)
        if options.open:
            server = stack.enter_context(serve(folder, options.port))
            address = f"http://127.0.0.1:{server.server_port}/"
            print(f"{address} (Ctrl-C ends)", file=sys.stderr, flush=True)
            webbrowser.open(address)
            with contextlib.suppress(KeyboardInterrupt):
                server.serve_forever()
    return 0
