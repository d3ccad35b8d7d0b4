"""The Sphinx extension of the book: everything on a page that was computed is read from a generated file.

* ``{num}`` — a number of ``paper/numbers.json``, an unknown key fails the build;
* ``{result-figure}``, ``{result-table}`` — a product of the workflow with the provenance of its sidecar;
* ``{computed}`` — a passage that needs results, replaced by a notice while they are missing;
* ``{widget}``, ``{generated}`` — files of others, included once they exist;
* ``{algorithm-table}``, ``{algorithm-matrix}``, ``{settings-table}``, ``{tier-table}``, ``{rule-graph}`` — drawn
  from the code itself;
* a check of every page: a number typed by hand into prose is a warning, and warnings fail the build.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the tests read `results`, `prose` and `formula` where no Sphinx is installed
    from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, Any]:
    """Register what the pages use. The repository is two folders above the book's sources."""
    from vacobook import docstrings, figures, includes, numbers, offline, prose, rulegraph, tables

    app.add_config_value("vacobook_root", None, "env")
    app.connect("config-inited", _find_root)
    for part in (numbers, figures, tables, rulegraph, includes, docstrings, offline):
        part.setup(app)
    app.connect("source-read", prose.warn)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _find_root(app: Sphinx, config: Any) -> None:
    if config.vacobook_root is None:
        config.vacobook_root = str(Path(app.srcdir).parents[1])
    # `theory` is a folder of the repository and in no installed package: for autodoc, and for the kernels of the pages.
    sys.path.insert(0, config.vacobook_root)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (config.vacobook_root, os.environ.get("PYTHONPATH"))))
