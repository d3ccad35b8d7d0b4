"""Tables drawn from the code and the configuration themselves: the algorithms, the settings, the tiers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from vacobook.formula import latex

Cell = str | nodes.Node


def table(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> nodes.container:
    """A table that scrolls within its own box where the page is narrow."""
    group = nodes.tgroup(cols=len(header))
    group.extend(nodes.colspec(colwidth=1) for _ in header)
    group += nodes.thead("", _row(header))
    group += nodes.tbody("", *[_row(row) for row in rows])
    box = nodes.container(classes=["table-scroll"])
    box += nodes.table("", group)
    return box


def _row(cells: Sequence[Cell]) -> nodes.row:
    made = nodes.row()
    for cell in cells:
        content = nodes.paragraph("", cell) if isinstance(cell, str) else nodes.paragraph("", "", cell)
        made += nodes.entry("", content)
    return made


def _math(formula: str) -> nodes.math:
    text = latex(formula)
    return nodes.math(text, text)


class _FromSource(SphinxDirective):
    """A table made of Python modules or configuration files, on which the page then depends."""

    def follow(self, *modules: Any) -> None:
        """Have the page rebuilt when the source of a module changes."""
        for module in modules:
            self.env.note_dependency(str(Path(module.__file__)))


class AlgorithmTable(_FromSource):
    """Every alias: its alignment, its filter and the coefficient that its filter is registered with."""

    def run(self) -> list[nodes.Node]:
        """Read `vaco.objectives.table`."""
        from vaco.objectives import filters
        from vaco.objectives import table as algorithms

        self.follow(algorithms, filters)
        rows: list[list[Cell]] = []
        for alias in algorithms.ALIASES:
            row = algorithms.parse(alias)
            cells = [nodes.literal("", alias), nodes.literal("", row.align.name), nodes.literal("", row.filter.name)]
            rows.append([*cells, _math(row.filter.formula)])
        return [table(["algorithm", "align", "filter", "coefficient of each sample"], rows)]


class AlgorithmMatrix(_FromSource):
    """Filters down, alignments across; a cell shows the alias of the pair, or the pair."""

    def run(self) -> list[nodes.Node]:
        """Read `vaco.objectives.table`."""
        from vaco.objectives import align, filters
        from vaco.objectives import table as algorithms

        self.follow(algorithms, align, filters)
        alias_of = {pair: alias for alias, pair in algorithms.ALIASES.items()}
        rows: list[list[Cell]] = []
        for name, rule in filters.FILTERS.items():
            cells: list[Cell] = [nodes.literal("", name)]
            for alignment in align.ALIGNMENTS:
                alias = alias_of.get((alignment, name))
                known = nodes.strong("", alias or "")
                cells.append(known if alias else nodes.inline("", f"{alignment}+{name}", classes=["pair"]))
            rows.append([*cells, _math(rule.formula)])
        header = ["filter", *(f"align = {name}" for name in align.ALIGNMENTS), "coefficient"]
        return [table(header, rows)]


class SettingsTable(_FromSource):
    """Every setting of a run with its default, from `vaco.runs.config`."""

    def run(self) -> list[nodes.Node]:
        """Read the dataclass."""
        from vaco.runs import config

        self.follow(config)
        rows: list[list[Cell]] = [
            [nodes.literal("", name), _word(spec.default), config.meanings()[name]]
            for name, spec in config.SETTINGS.items()
        ]
        return [table(["setting", "default", "meaning"], rows)]


class TierTable(_FromSource):
    """The tiers named as arguments, one a row, from ``config/<tier>.yaml``."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Load each tier as the workflow does."""
        from vaco.campaign import tiers

        rows: list[list[Cell]] = []
        for name in self.arguments[0].split():
            path = Path(self.config.vacobook_root) / "config" / f"{name}.yaml"
            self.env.note_dependency(str(path))
            tier = tiers.load_tier(str(path))
            main = tier.grids["main"]
            sizes = (main.environments, main.algorithms, main.capacities, main.seeds)
            grid = " × ".join(str(len(part)) for part in sizes)
            rows.append([nodes.literal("", name), grid, f"{len(tier.runs()):,}", f"{tier.steps:,}"])
        return [table(["tier", "tasks × methods × K × seeds", "runs, studies included", "steps a run"], rows)]


class StudyTable(_FromSource):
    """The grids of one tier, its studies among them."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Load the tier as the workflow does."""
        from vaco.campaign import tiers

        path = Path(self.config.vacobook_root) / "config" / f"{self.arguments[0]}.yaml"
        self.env.note_dependency(str(path))
        rows: list[list[Cell]] = []
        for name, grid in tiers.load_tier(str(path)).grids.items():
            tasks = ", ".join(task.removesuffix("-v5") for task in grid.environments)
            lags = ", ".join(map(str, grid.capacities))
            rows.append([nodes.literal("", name), tasks, ", ".join(grid.algorithms), lags, str(len(grid.seeds))])
        return [table(["grid", "tasks", "methods", "K", "seeds"], rows)]


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " × ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)


def _scroll_tables(app: Sphinx, document: nodes.document) -> None:
    """Put the tables of Markdown pages into boxes that scroll, too."""
    for found in list(document.findall(nodes.table)):
        parent = found.parent
        if "table-scroll" not in parent.get("classes", []):
            box = nodes.container(classes=["table-scroll"])
            parent.replace(found, box)
            box += found


def setup(app: Sphinx) -> None:
    """Register the directives."""
    app.add_directive("algorithm-table", AlgorithmTable)
    app.add_directive("algorithm-matrix", AlgorithmMatrix)
    app.add_directive("settings-table", SettingsTable)
    app.add_directive("tier-table", TierTable)
    app.add_directive("study-table", StudyTable)
    app.connect("doctree-read", _scroll_tables)
