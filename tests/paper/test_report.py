"""The compiled report: it builds with everything and with nothing, shows what exists and says what does not."""

from __future__ import annotations

import json
import re
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vaco.errors import UserError
from vaco.report.prose import paper

ROOT = Path(__file__).parents[2]
typst = pytest.importorskip("typst", reason="the report is compiled with Typst")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The report's sources and nothing that it could show."""
    shutil.copytree(ROOT / "paper" / "report", tmp_path / "paper" / "report")
    (tmp_path / "paper" / "book").mkdir()
    shutil.copy(ROOT / paper.BIBLIOGRAPHY, tmp_path / paper.BIBLIOGRAPHY)
    return tmp_path


def pages(pdf: Path) -> int:
    """Pages of a PDF whose page objects may lie in compressed streams."""
    data = pdf.read_bytes()
    streams = [data]
    for match in re.finditer(rb"stream\r?\n", data):
        try:
            streams.append(zlib.decompressobj().decompress(data[match.end() :]))
        except zlib.error:
            continue
    return sum(len(re.findall(rb"/Type\s*/Page\b(?!s)", stream)) for stream in streams)


def text(root: Path) -> str:
    """All words of the report: of its prose as an HTML export has them, of its figures and tables as a query does."""
    given: dict[str, Any] = {
        "root": str(root),
        "ignore_system_fonts": True,
        "sys_inputs": {"inputs": "/paper/build/inputs.json"},
    }
    html = typst.compile(str(root / paper.SOURCE), format="html", **given).decode()
    prose = re.sub(r"<[^>]+>", " ", re.sub(r"<style.*?</style>", "", html, flags=re.DOTALL))
    figures = json.loads(typst.query(str(root / paper.SOURCE), "figure", **given))
    return re.sub(r"\s+", " ", " ".join([prose, *(" ".join(words(figure)) for figure in figures)]))


def words(element: Any) -> Iterator[str]:
    """The text in an element of a query, however deep."""
    if isinstance(element, dict):
        if element.get("func") in ("text", "raw"):
            yield str(element["text"])
        elif element.get("func") == "space":
            yield " "
        for value in element.values():
            yield from words(value)
    elif isinstance(element, list):
        for part in element:
            yield from words(part)


def number(value: Any, shown: str) -> dict[str, Any]:
    return {"value": value, "text": shown, "source": "test"}


def test_with_nothing_computed_it_says_so(repository: Path) -> None:
    out = repository / "paper" / "build" / "report.pdf"
    paper.build(repository, "desk", out)
    assert out.read_bytes().startswith(b"%PDF") and pages(out) > 4
    shown = text(repository)
    assert "not found" not in shown and shown.count("not yet computed") > 40
    assert "snakemake aggregate_scores --config tier=desk" in shown


def test_with_everything_it_shows_it(repository: Path) -> None:
    for name in ("policy_ages", "filter_and_alignment"):
        for suffix in ("pdf", "json"):
            source = ROOT / "paper" / "figures" / "demonstrations" / f"{name}.{suffix}"
            target = repository / "paper" / "figures" / "demonstrations" / source.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    figures = repository / "paper" / "figures" / "tiny"
    figures.mkdir()
    shutil.copy(ROOT / "paper" / "figures" / "demonstrations" / "policy_ages.pdf", figures / "aggregate_scores.pdf")
    (figures / "aggregate_scores.json").write_text(json.dumps({"caption": "Three seeds, by a test."}))
    tables = repository / "paper" / "tables" / "tiny"
    tables.mkdir(parents=True)
    (tables / "score_table.csv").write_text("task,method,K,score\nHopper-v5,A # method $x$ _y_,4,0.125\n")
    (repository / paper.NUMBERS).write_text(
        json.dumps(
            {
                "tiny.vaco.lag4.iqm": number(0.5, "0.50"),
                "tiny.vaco.lag4.iqm.interval": number("x", "0.77 [0.11, 0.99]"),
                "tiny.runs.finished": number(12, "12"),
                "tiny.runs.planned": number(None, "not yet measured"),
            }
        )
    )
    out = repository / "paper" / "build" / "report.pdf"
    paper.build(repository, "tiny", out)
    shown = text(repository)
    assert "Three seeds, by a test." in shown and "0.77 [0.11, 0.99]" in shown
    assert re.search(r"Finished are 12 of not yet computed planned runs", shown)
    # Text of a table is text: nothing in it is read as markup.
    assert "A # method $x$ _y_" in shown and "0.125" in shown
    assert "snakemake demonstrations" not in shown, "the figure is there"
    assert out.stat().st_size > 100_000 and pages(out) > 4


def test_the_same_inputs_make_the_same_bytes(repository: Path) -> None:
    made = []
    for name in ("a.pdf", "b.pdf"):
        paper.build(repository, "desk", repository / "paper" / "build" / name)
        made.append((repository / "paper" / "build" / name).read_bytes())
    assert made[0] == made[1]


def test_what_it_shows_is_hashed(repository: Path) -> None:
    before = paper.inputs_hash(repository, "desk")
    (repository / paper.NUMBERS).write_text("{}")
    between = paper.inputs_hash(repository, "desk")
    table = repository / "paper" / "tables" / "desk" / "score_table.csv"
    table.parent.mkdir(parents=True)
    table.write_text("a\n1\n")
    assert len({before, between, paper.inputs_hash(repository, "desk")}) == 3


def test_no_number_of_a_result_is_typed_into_the_sources() -> None:
    """Prose has no decimal fraction and no percentage; markup, mathematics and code may have numbers."""
    found = []
    for path in sorted((ROOT / "paper" / "report").glob("*.typ")):
        if path.name == "template.typ":
            continue
        prose = re.sub(
            r"\$[^$]*\$|\"[^\"]*\"|//[^\n]*|\b(?:stroke|inset|size|columns|x|y)\b[^\n]*", "", path.read_text()
        )
        found += [f"{path.name}: {match}" for match in re.findall(r"\d+\.\d+|\d+ ?%", prose)]
    assert not [one for one in found if not one.endswith("95 %")], found


def test_mistakes_are_one_sentence(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(UserError, match="choose a path there"):
        paper.build(repository, "desk", tmp_path_factory.mktemp("elsewhere") / "report.pdf")
    (repository / paper.SOURCE).write_text("#unknown-function()")
    with pytest.raises(UserError, match="does not compile"):
        paper.build(repository, "desk", repository / "paper" / "build" / "report.pdf")
