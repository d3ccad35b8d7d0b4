"""``{result-figure}`` and ``{result-table}``: products of the workflow, with where they come from underneath."""

from __future__ import annotations

import hashlib
import html
import json
import os
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from vacobook import results
from vacobook.numbers import pending
from vacobook.tables import table


class ResultFigure(nodes.figure):
    """A figure outside Sphinx's own numbering: the paper's numbers are kept."""


class _Product(SphinxDirective):
    """What the two directives share."""

    required_arguments = 1
    has_content = True
    folder = ""

    def product(self) -> results.Product:
        """Find the product, and have the page rebuilt when it changes."""
        root = self.root
        stem = root / "paper" / self.folder / self.arguments[0]
        for suffix in ("json", "png", "svg", "csv"):
            path = stem.with_name(f"{stem.name}.{suffix}")
            if path.is_file() or suffix == "json":
                self.env.note_dependency(str(path))
        found = results.find(root / "paper" / self.folder, self.arguments[0])
        for name in results.sources(found.sidecar):
            self.env.note_dependency(str(root / name))
        try:
            results.check_sources(root, found.sidecar)
        except results.StaleError as stale:
            raise self.warning(f"{self.arguments[0]}: {stale}") from None
        return found

    @property
    def root(self) -> Path:
        """The repository."""
        return Path(self.config.vacobook_root)

    def here(self, path: Path) -> str:
        """A path as Sphinx wants it: relative to the book, with a slash in front."""
        return "/" + os.path.relpath(path, self.env.srcdir)

    def caption(self, product: results.Product) -> list[nodes.Node]:
        """Title, the caption up to its scale, the rest of it folded away, and what the page adds."""
        paragraph = nodes.paragraph(classes=["result-caption"])
        if "title" in self.options:
            paragraph += nodes.strong("", self.options["title"] + ". ")
        shown, rest = results.folded(product.sidecar.get("caption", ""))
        paragraph += nodes.Text(shown)
        lost = results.incomplete(product.sidecar)
        if lost and lost.split(":")[0] not in shown:
            paragraph += nodes.Text(" " + lost)
        found: list[nodes.Node] = [paragraph] if len(paragraph) else []
        if rest:
            text = f"<details><summary>How to read it, and what to beware of</summary>{html.escape(rest)}</details>"
            found.append(nodes.raw("", text, format="html", classes=["result-caption-rest"]))
        return found + self.parse_content_to_nodes()

    def provenance(self, product: results.Product, command: str, facts: list[tuple[str, str]]) -> nodes.container:
        """The block underneath: the command, then one line a fact, then the files."""
        box = nodes.container(classes=["provenance"])
        box += nodes.literal_block(command, command, language="console", classes=["provenance-command"])
        listed = nodes.field_list()
        for label, text in facts:
            body = nodes.field_body("", nodes.paragraph("", text))
            listed += nodes.field("", nodes.field_name("", label), body)
        links = nodes.paragraph()
        for suffix in ("pdf", "svg", "csv", "tex", "json"):
            if suffix in product.files:
                if len(links):
                    links += nodes.Text(", ")
                target = self.here(product.files[suffix])
                links += addnodes.download_reference("", "", nodes.Text(suffix.upper()), reftarget=target, refdoc="")
        if len(links):
            listed += nodes.field("", nodes.field_name("", "files"), nodes.field_body("", links))
        box += listed
        return box


class ResultFigureDirective(_Product):
    """A figure of ``paper/figures``, its caption and its provenance.

    Options: ``alt`` (required: what is to be seen, for who cannot see it), ``title`` such as "Figure 3", ``name`` as
    target of references, ``width``. A figure without a sidecar needs ``made-by``, the command, and may name the
    generated files it was drawn from in ``source``.
    """

    folder = "figures"
    option_spec = {  # noqa: RUF012 - docutils' own interface
        "alt": directives.unchanged_required,
        "title": directives.unchanged,
        "name": directives.unchanged,
        "width": directives.unchanged,
        "made-by": directives.unchanged,
        "source": directives.unchanged,
    }

    def run(self) -> list[nodes.Node]:
        """Draw the figure, or the notice that it is not there."""
        if not self.options.get("alt", "").strip():
            raise self.error(f"the figure {self.arguments[0]} has no alt text: say what is to be seen")
        found = self.product()
        image = found.files.get("svg") or found.files.get("png")
        if image is None or not (found.sidecar or "made-by" in self.options):
            name = self.options.get("title", "This figure")
            notice = pending(f"{name} ({self.arguments[0]}) is made by the workflow, and is not there yet.")
            self.add_name(notice)
            return [notice]
        figure = ResultFigure(classes=["result-figure"])
        figure += nodes.image(uri=self.here(image), alt=self.options["alt"], width=self.options.get("width", "100%"))
        legend = nodes.legend()
        legend.extend(self.caption(found))
        if found.sidecar:
            facts = results.provenance(found)
            legend += self.provenance(found, results.command(found), facts)
        else:
            legend += self.provenance(found, self.options["made-by"], self._sources())
        figure += legend
        self.add_name(figure)
        self.set_source_info(figure)
        return [figure]

    def _sources(self) -> list[tuple[str, str]]:
        """Hash, instances and seed of the files that a figure without a sidecar was drawn from."""
        facts = []
        for name in self.options.get("source", "").split():
            path = self.root / name
            self.env.note_dependency(str(path))
            if not path.is_file():
                raise self.error(f"{self.arguments[0]}: there is no {name}, from which it is said to be drawn")
            data: Any = json.loads(path.read_text(encoding="utf-8")) if path.suffix == ".json" else {}
            text = f"{name} ({hashlib.sha256(path.read_bytes()).hexdigest()[:8]})"
            text += "".join(f", {key} {data[key]:,}" for key in ("instances", "problems", "seed") if key in data)
            facts.append(("drawn from", text))
        return facts


class ResultTableDirective(_Product):
    """A table of ``paper/tables``, read from its CSV, with its provenance."""

    folder = "tables"
    option_spec = {  # noqa: RUF012 - docutils' own interface
        "title": directives.unchanged,
        "name": directives.unchanged,
    }

    def run(self) -> list[nodes.Node]:
        """Show the table, or the notice that it is not there."""
        found = self.product()
        if "csv" not in found.files or not found.sidecar:
            name = self.options.get("title", "This table")
            notice = pending(f"{name} ({self.arguments[0]}) is made by the workflow, and is not there yet.")
            self.add_name(notice)
            return [notice]
        header, *body = results.rows(found.files["csv"])
        box = nodes.container(classes=["result-table"])
        box.extend(self.caption(found))
        box += table(header, body)
        box += self.provenance(found, results.command(found), results.provenance(found))
        self.add_name(box)
        return [box]


def _enter(translator: Any, node: ResultFigure) -> None:
    translator.visit_figure(node)


def _leave(translator: Any, node: ResultFigure) -> None:
    translator.depart_figure(node)


def setup(app: Sphinx) -> None:
    """Register the directives."""
    app.add_node(ResultFigure, html=(_enter, _leave), latex=(_enter, _leave), text=(_enter, _leave))
    app.add_directive("result-figure", ResultFigureDirective)
    app.add_directive("result-table", ResultTableDirective)
