"""``fststyle fetch``: encoder weights ahead of a run without internet."""

from __future__ import annotations

import argparse
import os


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("architecture", choices=("vgg16", "vgg19"))
    command.add_argument(
        "--weights", choices=("features", "imagenet"), help="default: features for vgg16, else imagenet"
    )


def run(options: argparse.Namespace) -> int:
    from fststyle.encoders.published import DEFAULT_WEIGHTS, PUBLISHED, WeightsError, fetch

    weights = options.weights or DEFAULT_WEIGHTS[options.architecture]
    if (options.architecture, weights) not in PUBLISHED:
        known = [w for a, w in PUBLISHED if a == options.architecture]
        raise WeightsError(f"{options.architecture} has no weights {weights!r}; expected {', '.join(known)}")
    print(os.fspath(fetch(PUBLISHED[options.architecture, weights])))
    return 0
