"""After the build: what a browser would ask for in vain when the pages are opened from disk."""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx

# The theme draws its icons as SVG; the fonts that it asks to load beforehand are never shown, and from disk a browser
# refuses them, with an error on its console.
FONTS = re.compile(r"\s*<link rel=\"preload\" as=\"font\"[^>]*>")
# Jupyter Book prepares every page, twice, for running cells on a server elsewhere. Nothing here asks for that.
THEBE = re.compile(r"\s*<script[^>]*>const THEBE_JS_URL.*?</script>|\s*<script[^>]*sphinx-thebe\.js[^>]*></script>")
THEBE_SETTINGS = re.compile(r"\s*<script type=\"text/x-thebe-config\">.*?</script>", re.DOTALL)


def strip(app: Sphinx, problem: Exception | None) -> None:
    """Take the preloading of fonts and the preparations for a server out of every page."""
    if problem is None and app.builder.format == "html":
        for page in Path(app.outdir).rglob("*.html"):
            text = page.read_text(encoding="utf-8")
            plain = text
            for pattern in (FONTS, THEBE, THEBE_SETTINGS):
                plain = pattern.sub("", plain)
            if plain != text:
                page.write_text(plain, encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Listen for the end of the build."""
    app.connect("build-finished", strip)
