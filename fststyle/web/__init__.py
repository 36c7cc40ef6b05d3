"""Styles in a browser: a static page that applies them to the user's own photograph, on the user's own device."""

from fststyle.web.server import serve
from fststyle.web.site import build_site

__all__ = ["build_site", "serve"]
