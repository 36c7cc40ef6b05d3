"""Apply styles to all pictures of a folder and its sub-folders.

    python examples/stylize_folder.py holiday stylised starry_night wave

Run again, it does only what is new.
"""

import sys

from fststyle import StylizeOptions
from fststyle.inference.batch import Files, stylize_files


def main(pictures: str, output: str, *styles: str) -> None:
    """Stylise a folder; ``styles`` are bundled names or model files."""
    files = Files(output=output, recursive=True, skip_existing=True)
    options = StylizeOptions(strength=0.8, style_scale=None)  # strokes grow with large pictures
    summary = stylize_files([pictures], styles, files, options)
    print(summary)
    if summary.failures:
        sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
