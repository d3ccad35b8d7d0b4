"""The matrix: every loss of the installed libraries beside every row."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vaco.conformance import loops  # noqa: F401 (enters its losses)
from vaco.conformance.comparison import closest, robustness
from vaco.conformance.libraries import ENTRIES, Entry
from vaco.errors import UserError
from vaco.objectives.rules import names


def examine(entry: Entry) -> dict[str, Any]:
    """What an installed loss is: the rows that it equals, or the nearest one and where it first differs."""
    found: dict[str, Any] = {"package": entry.package, "flag": entry.flag, "settings": dict(entry.settings)}
    try:
        found["version"] = version(entry.package)
    except PackageNotFoundError:
        return found | {"skipped": "not installed"}
    options: dict[str, Any] = {"denominator": entry.denominator, "padded": entry.padded, "learner": entry.learner}
    options |= {"one_advantage": entry.one_advantage}
    try:
        loss = entry.build()
        reports = closest(loss, entry.settings, **options)
    except Exception as error:  # another version of a library may have moved anything
        return found | {"skipped": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
    equal = [report.rule for report in reports if report.equal]
    nearest = None if equal else {"rule": reports[0].rule, "share": reports[0].share, "text": str(reports[0])}
    robust = robustness(loss, entry.settings)
    return found | options | {"equal": equal, "nearest": nearest, "robustness": robust}


def matrix(entries: Iterable[Entry] = ENTRIES) -> list[dict[str, Any]]:
    """Every entry examined."""
    return [examine(entry) for entry in entries]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the matrix as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


def markdown(rows: list[dict[str, Any]]) -> str:
    """The matrix as a table for people."""
    aliases: dict[str, str] = {}
    for alias, rule in names().items():
        aliases.setdefault(rule, alias)
    lines = ["| library | your flag | is row | a NaN sample | log-ratio 200 |", "|---|---|---|---|---|"]
    for row in sorted(rows, key=lambda row: (row["package"], row["flag"])):
        if "skipped" in row:
            continue
        if row["equal"]:
            verdict = ", ".join(
                f"`{aliases[name]}`" if aliases[name] == name else f"`{aliases[name]}` ({name})"
                for name in row["equal"]
            )
            numbers = ", ".join(f"{name} = {value:g}" for name, value in row["settings"].items())
            verdict += f" with {numbers}" if numbers else ""
            verdict += ", where β is π_T" if not row["learner"] else ""
        else:
            verdict = (
                f"none; nearest `{row['nearest']['rule']}`, other on {100 * row['nearest']['share']:.1f} % of samples"
            )
        robust = row["robustness"]
        lines.append(
            f"| {row['package']} {row['version']} | `{row['flag']}` | {verdict} | {robust['NaN sample']} "
            f"| {robust['log-ratio 200']} |"
        )
    return "\n".join(lines) + "\n"


BEGIN, END = "<!-- matrix: made by vaco conformance -->", "<!-- /matrix -->"


def into_page(path: Path, rows: list[dict[str, Any]]) -> None:
    """Replace the table between the two marks of a page.

    Raises:
        UserError: the page has no such marks.
    """
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if BEGIN not in text or END not in text:
        raise UserError(f"{path} lacks the lines '{BEGIN}' and '{END}' between which the table stands: add them")
    before, rest = text.split(BEGIN, 1)
    path.write_text(f"{before}{BEGIN}\n\n{markdown(rows)}\n{END}{rest.split(END, 1)[1]}", encoding="utf-8")
