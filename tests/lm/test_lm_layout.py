"""The modules of the language-model room import each other in one direction only."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import vaco.lm

ROOM = Path(vaco.lm.__file__).parent


def test_no_module_imports_in_a_circle() -> None:
    """Late imports and those for types alone count: a circle is one for the reader, too."""
    names = {".".join(("vaco.lm", *path.relative_to(ROOM).with_suffix("").parts)) for path in ROOM.rglob("*.py")}
    arrows: dict[str, set[str]] = {name: set() for name in names}
    for name in names:
        tree = ast.parse((ROOM.parents[1] / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                wanted = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
                arrows[name] |= wanted & names
    assert "vaco.lm.run" in arrows["vaco.lm.rounds"] and "vaco.lm.rounds" in arrows["vaco.lm.train"]
    order = list(TopologicalSorter(arrows).static_order())  # raises CycleError
    assert order.index("vaco.lm.run") < order.index("vaco.lm.rounds") < order.index("vaco.lm.train")
