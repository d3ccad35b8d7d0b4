"""The paper as PDF: `python -m vaco.report.prose.paper --tier desk --out paper/build/report.pdf`, compiled by Typst.

The Typst sources in `paper/report` show figures, tables and numbers that other commands made. What is there is listed
in `inputs.json` beside the PDF; what is not, the report calls "not yet computed". Nothing is fetched: only the fonts
that come with Typst are used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vaco.command import Parser, run_command
from vaco.errors import UserError
from vaco.paths import path_flag

SOURCE = "paper/report/main.typ"
BIBLIOGRAPHY = "paper/book/references.bib"
NUMBERS = "paper/numbers.json"
TIMESTAMP = 1_767_225_600  # 2026-01-01: the same inputs make the same bytes


def places(tier: str) -> dict[str, str]:
    """Folders below `paper/figures` and `paper/tables`, by the name that the sources know them by."""
    return {"demonstrations": "demonstrations", "theory": "theory", "tier": tier, "lm": f"lm_{tier}"}


def products(root: Path, tier: str) -> Iterator[tuple[str, str, Path]]:
    """Kind, name and file of every figure and table that exists."""
    for kind, suffix in (("figures", "pdf"), ("tables", "csv")):
        for name, folder in places(tier).items():
            for path in sorted((root / "paper" / kind / folder).glob(f"*.{suffix}")):
                yield kind, f"{name}/{path.stem}", path


def caption(path: Path) -> str | None:
    """The caption in a product's sidecar; None if it has none."""
    sidecar = path.with_suffix(".json")
    if not sidecar.is_file():
        return None
    text: str | None = json.loads(sidecar.read_text(encoding="utf-8")).get("caption")
    return text


def inputs(root: Path, tier: str) -> dict[str, Any]:
    """What the sources may show: paths from the root of the repository, as Typst writes them, and captions."""
    found: dict[str, Any] = {"tier": tier, "figures": {}, "tables": {}, "numbers": None}
    for kind, name, path in products(root, tier):
        found[kind][name] = {"path": f"/{path.relative_to(root).as_posix()}", "caption": caption(path)}
    if (root / NUMBERS).is_file():
        found["numbers"] = f"/{NUMBERS}"
    return found


def inputs_hash(root: Path, tier: str) -> str:
    """Sixteen hexadecimal digits over all files that the report is made of: a parameter of its rule."""
    digest = hashlib.sha256()
    files = [path for _, _, path in products(root, tier)]
    files += [path.with_suffix(".json") for path in files]
    files += [root / NUMBERS, root / BIBLIOGRAPHY, *sorted((root / SOURCE).parent.glob("*.typ"))]
    for path in files:
        if path.is_file():
            digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def tables_hash(folders: Sequence[str]) -> str:
    """The same over the tables in some folders, for the data of the explorer; a folder may be missing."""
    digest = hashlib.sha256()
    for path in (path for folder in folders for path in sorted(Path(folder).glob("*.*"))):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def build(root: Path, tier: str, out: Path) -> None:
    """Compile the report.

    Args:
        root: the repository.
        tier: whose figures, tables and numbers to show.
        out: the PDF, below `root`; or a PNG with `{p}` in its name, for a picture a page.

    Raises:
        UserError: Typst is not installed, `out` is outside the repository, or the sources do not compile.
    """
    try:
        import typst
    except ImportError as problem:
        raise UserError("the report needs Typst, which is not installed: pip install typst==0.15.0") from problem
    root, out = root.resolve(), out.resolve()
    if not out.is_relative_to(root):
        raise UserError(f"the report cannot be written to {out}: Typst reads only below {root}, choose a path there")
    out.parent.mkdir(parents=True, exist_ok=True)
    listed = out.parent / "inputs.json"
    listed.write_text(json.dumps(inputs(root, tier), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    try:
        typst.compile(
            str(root / SOURCE),
            output=str(out),
            root=str(root),
            format="png" if out.suffix == ".png" else "pdf",
            ppi=80.0,
            ignore_system_fonts=True,
            sys_inputs={"inputs": f"/{listed.relative_to(root).as_posix()}"},
            timestamp=TIMESTAMP,
        )
    except typst.TypstError as problem:
        raise UserError(f"{SOURCE} does not compile: {problem.message}") from problem


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the module's docstring."""
    parser = Parser(prog="python -m vaco.report.prose.paper", description="Compile the report.")
    parser.add_argument("--tier", default="desk", help="whose results to show")
    parser.add_argument("--out", type=path_flag, required=True, help="the PDF to write, or a PNG with {p} in its name")
    given = parser.parse_args(arguments)
    build(Path(), given.tier, given.out)
    return 0


if __name__ == "__main__":
    run_command(main)
