"""``{widget}`` and ``{generated}``: files that others make, included whole once they exist."""

from __future__ import annotations

from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from vacobook.numbers import pending


class Widget(SphinxDirective):
    """A piece of HTML beside the page's source, which needs nothing from outside the book."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Include it raw, or say that it is not there."""
        path = Path(self.env.srcdir) / self.arguments[0]
        self.env.note_dependency(str(path))
        if not path.is_file():
            return [pending(f"The interactive part of this page ({self.arguments[0]}) is not there yet.")]
        return [nodes.raw("", path.read_text(encoding="utf-8"), format="html")]


class Generated(SphinxDirective):
    """Text that a rule of the workflow wrote, such as the output of a command, shown as it is."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Show it, or say that it is not there."""
        path = Path(self.config.vacobook_root) / self.arguments[0]
        self.env.note_dependency(str(path))
        if not path.is_file():
            return [pending(f"The text of {self.arguments[0]} is written by the workflow, and is not there yet.")]
        text = path.read_text(encoding="utf-8").rstrip()
        return [nodes.literal_block(text, text, language="text")]


def setup(app: Sphinx) -> None:
    """Register the directives."""
    app.add_directive("widget", Widget)
    app.add_directive("generated", Generated)
