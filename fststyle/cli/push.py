"""``fststyle push``: a model for others, on the Hugging Face Hub."""

from __future__ import annotations

import argparse


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", metavar="NAME_OR_FILE", help="a bundled model, a model file, or FILE/STYLE")
    command.add_argument("repository", metavar="USER/REPO", help="on the Hub; it is made if there is none")
    command.add_argument("--private", action="store_true", help="make a repository that you alone see")
    command.add_argument("--revision", metavar="BRANCH", help="default: main; it is made if there is none")
    command.add_argument("--message", metavar="TEXT", help="of the commit")
    command.add_argument("--license", metavar="ID", help="such as cc-by-4.0; default: the model file's")
    command.add_argument("--photo", metavar="FILE", help="show the model on this picture; default: one of scikit-image")
    command.add_argument("--overwrite", action="store_true", help="replace a model card that fststyle has not written")
    command.add_argument("--dry-run", metavar="FOLDER", help="write what would be uploaded there, and send nothing")


def run(options: argparse.Namespace) -> int:
    """Share a model, and print where it is and what it is called."""
    from fststyle.sharing import prepare, push

    about = {"revision": options.revision, "licence": options.license, "photo": options.photo}
    if options.dry_run is not None:
        prepare(options.model, options.repository, options.dry_run, **about)
        print(options.dry_run)
        return 0
    sent = {"private": options.private, "message": options.message, "overwrite": options.overwrite}
    print(*push(options.model, options.repository, **about, **sent), sep="\n")
    return 0
