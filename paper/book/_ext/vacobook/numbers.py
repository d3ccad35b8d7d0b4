"""``{num}`` and ``{computed}``: numbers in prose, and prose that must wait for them."""

from __future__ import annotations

import difflib
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole

from vacobook import results

WITHIN = "numbers"


class Number(nodes.inline):
    """A number with the file it was read from."""


class NumberRole(SphinxRole):
    """``{num}`desk.vaco.lag16.iqm` ``: the text of that key in ``paper/numbers.json``."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Look the key up; an unknown one is an error on this line, and errors fail the build."""
        root = Path(self.config.vacobook_root)
        self.env.note_dependency(str(root / "paper" / "numbers.json"))
        known = results.load_numbers(root)
        entry = (known or {}).get(self.text)
        if entry is None:
            near = difflib.get_close_matches(self.text, list(known or {}), n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            why = f"there is no number '{self.text}'" if known is not None else "paper/numbers.json is not computed"
            message = self.inliner.reporter.error(f"{why}, but this text needs it{hint}", line=self.lineno)
            return [nodes.inline(self.rawtext, self.text, classes=["number-missing"])], [message]
        source = f"{self.text}: {entry.get('source', '')}"
        return [Number(self.rawtext, str(entry["text"]), source=source, measured=entry["value"] is not None)], []


class Computed(SphinxDirective):
    """A passage that is shown once all that it names exists.

    The argument ``numbers`` stands for all numbers within the passage: it waits until there is an entry for each. The
    others are files (with a slash), keys in ``numbers.json`` or beginnings of keys. An unknown key is an error, here as
    within the passage.
    """

    has_content = True
    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Parse the passage, or say what it waits for."""
        root = Path(self.config.vacobook_root)
        self.env.note_dependency(str(root / "paper" / "numbers.json"))
        needed = self.arguments[0].split()
        if WITHIN in needed:
            needed.remove(WITHIN)
            known = results.load_numbers(root) or {}
            if any(key not in known for key in results.keys("\n".join(self.content))):
                return [pending("This passage will state numbers that not all have been measured yet.")]
        for name in needed:
            if "/" in name:
                self.env.note_dependency(str(root / name))
        try:
            lacking = results.lacking(root, needed)
        except results.UnknownError as unknown:
            raise self.error(f"this passage would wait for ever: {unknown}") from None
        if lacking:
            return [pending(f"This passage will state results that do not exist yet ({', '.join(lacking)}).")]
        return self.parse_content_to_nodes(allow_section_headings=False)


def pending(text: str) -> nodes.admonition:
    """The notice in place of something that has not been computed."""
    notice = nodes.admonition(classes=["note", "not-yet-computed"])
    notice += nodes.title("", "Not yet computed")
    notice += nodes.paragraph("", text)
    return notice


def _enter(translator: Any, node: Number) -> None:
    kind = "number" if node["measured"] else "number not-measured"
    translator.body.append(f'<span class="{kind}" title="{escape(node["source"], quote=True)}">')


def _leave(translator: Any, node: Number) -> None:
    translator.body.append("</span>")


def _nothing(translator: Any, node: Number) -> None:
    """Other builders show the text alone."""


def setup(app: Sphinx) -> None:
    """Register the role and the directive."""
    plain = (_nothing, _nothing)
    app.add_node(Number, html=(_enter, _leave), latex=plain, text=plain)
    app.add_role("num", NumberRole())
    app.add_directive("computed", Computed)
