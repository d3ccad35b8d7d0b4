"""The directives and roles of the book, on a book of one page with results of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sphinx", reason="the extra 'book' is not installed: pip install -e '.[book]'")
pytest.importorskip("myst_parser", reason="the extra 'book' is not installed: pip install -e '.[book]'")

Build = Callable[[str], tuple[str, str]]

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
)
NUMBERS = {
    "desk.vaco.lag16.iqm": {"value": 0.934, "text": "0.93", "source": "results/desk/tables/aggregates.parquet"},
    "desk.spo.lag16.iqm": {"value": None, "text": "not yet measured", "source": "results/desk/tables/x.parquet"},
}
FIGURE = "```{result-figure} desk/aggregate_scores\n:title: Figure 3\n:alt: Lines.\n```\n"


def write_results(root: Path) -> None:
    archive, figures = root / "results/desk/archive", root / "paper/figures/desk"
    for folder in (archive, figures, root / "paper/tables/desk"):
        folder.mkdir(parents=True)
    sums = "0123  runs.parquet\n"
    (archive / "SHA256SUMS").write_text(sums)
    sidecar: dict[str, Any] = {
        "tier": "desk",
        "caption": "What |ρ − 1| was *measured*. Tier 'desk': 2 tasks (Hopper-v5), K in {1, 4}. "
        "Bars & bands: <95 %. Incomplete: 4.",
        "runs": 20,
        "planned_runs": 24,
        "missing": ["a", "b", "c", "d"],
        "config_hash": "2a70d5964c0775b68fd3404ee5aeab898353bda7",
        "seeds": [0, 1, 2],
        "steps": 1_000_000,
        "archive": hashlib.sha256(sums.encode()).hexdigest(),
        "tables": {"build/results/desk/tables/summary.json": "0" * 64},
    }
    (figures / "aggregate_scores.json").write_text(json.dumps(sidecar))
    (figures / "aggregate_scores.png").write_bytes(PIXEL)
    (root / "paper/tables/desk/scores.csv").write_text('task,score\nHopper-v5,"0.5 [0.4, 0.6]"\n')
    (root / "paper/tables/desk/scores.json").write_text(json.dumps(sidecar))
    (root / "paper/numbers.json").write_text(json.dumps(NUMBERS))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_results(tmp_path)
    return tmp_path


@pytest.fixture
def build(root: Path) -> Build:
    """Build one page; the HTML and what Sphinx warned of, which would have failed a real build."""
    from io import StringIO

    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace

    def run(text: str) -> tuple[str, str]:
        book = root / "paper" / "book"
        book.mkdir(exist_ok=True)
        (book / "index.md").write_text(f"# Page\n\n{text}\n")
        settings: dict[str, Any] = {"extensions": ["myst_parser", "vacobook"], "html_theme": "basic"}
        settings["myst_enable_extensions"] = ["colon_fence", "dollarmath"]
        warnings = StringIO()
        with docutils_namespace():
            out = root / "out"
            app = Sphinx(book, None, out, root / "trees", "html", settings, None, warnings, freshenv=True)
            app.build(force_all=True)
        return (out / "index.html").read_text(encoding="utf-8"), warnings.getvalue()

    return run


def test_a_number_is_read_with_its_source(build: Build) -> None:
    html, warnings = build("It reached {num}`desk.vaco.lag16.iqm`.")
    assert (
        '<span class="number" title="desk.vaco.lag16.iqm: results/desk/tables/aggregates.parquet">0.93</span>' in html
    )
    assert not warnings


def test_a_number_without_value_says_so(build: Build) -> None:
    html, warnings = build("It reached {num}`desk.spo.lag16.iqm`.")
    assert "not-measured" in html and "not yet measured" in html and not warnings


def test_an_unknown_number_fails_the_build(build: Build) -> None:
    _, warnings = build("It reached {num}`desk.vacoo.lag16.iqm`.")
    assert "there is no number 'desk.vacoo.lag16.iqm'" in warnings
    assert "did you mean 'desk.vaco.lag16.iqm'?" in warnings


def test_a_number_without_numbers_fails_the_build(build: Build, root: Path) -> None:
    (root / "paper/numbers.json").unlink()
    assert "not computed" in build("It reached {num}`desk.vaco.lag16.iqm`.")[1]


def test_a_typed_number_fails_the_build(build: Build) -> None:
    _, warnings = build("It reached 0.93.")
    assert "'0.93' is typed into the prose" in warnings and "index.md:3" in warnings


@pytest.mark.parametrize("needed", ["desk.vaco", "desk.vaco.lag16.iqm", "results/desk/archive/SHA256SUMS"])
def test_a_passage_is_shown_once_its_results_exist(build: Build, needed: str) -> None:
    html, warnings = build(f":::{{computed}} {needed}\nSeen **here**.\n:::")
    assert "Seen <strong>here</strong>" in html and not warnings


@pytest.mark.parametrize("needed", ["desk.spo", "desk.vaco results/other.json"])
def test_a_passage_waits_for_its_results(build: Build, needed: str) -> None:
    html, warnings = build(f":::{{computed}} {needed}\nUnseen.\n:::")
    assert "Unseen" not in html and "Not yet computed" in html and not warnings


@pytest.mark.parametrize(("key", "shown"), [("desk.vaco.lag16.iqm", True), ("lm.vaco.n64.accuracy", False)])
def test_a_passage_can_wait_for_all_its_numbers(build: Build, key: str, shown: bool) -> None:
    html, warnings = build(f":::{{computed}} numbers\nIt reached {{num}}`{key}`.\n:::")
    assert ("It reached" in html) == shown and ("Not yet computed" in html) != shown and not warnings


def test_a_passage_that_would_wait_for_ever_fails_the_build(build: Build) -> None:
    assert "wait for ever" in build(":::{computed} desk.vac\nUnseen.\n:::")[1]


def test_a_figure_stands_with_its_provenance(build: Build) -> None:
    html, warnings = build(FIGURE)
    assert not warnings
    assert 'alt="Lines."' in html and "<strong>Figure 3. </strong>" in html
    for part in (
        "snakemake aggregate_scores --config tier=desk<",
        "results/desk/archive (13611ad6)",
        "2a70d5964c0775b6",
        "20 of 24 planned",
        "0, 1, 2",
        "1,000,000",
    ):
        assert part in html.replace('<span class="w"> </span>', " "), part
    assert "What |ρ − 1| was *measured*. Tier" in html, "captions are text, not markup"
    shown, _, rest = html.partition("<details><summary>How to read it")
    assert "K in {1, 4}." in shown and "Bars" not in shown
    assert "Bars &amp; bands: &lt;95 %. Incomplete: 4.</details>" in rest
    assert "4 of 24 planned runs are not there yet" in shown, "what is missing is never folded away"


def test_a_figure_that_is_not_there_says_so(build: Build) -> None:
    html, warnings = build(FIGURE.replace("aggregate_scores", "figure9"))
    assert "Not yet computed" in html and "figure9" in html and "<img" not in html and not warnings


def test_a_figure_without_description_fails_the_build(build: Build) -> None:
    assert "no alt text" in build("```{result-figure} desk/aggregate_scores\n```")[1]


def test_a_figure_whose_archive_has_changed_fails_the_build(build: Build, root: Path) -> None:
    (root / "results/desk/archive/SHA256SUMS").write_text("{}")
    assert "has changed since this was made" in build(FIGURE)[1]


def test_a_figure_without_sidecar_needs_its_command(build: Build, root: Path) -> None:
    (root / "paper/figures/desk/plain.png").write_bytes(PIXEL)
    plain = "```{result-figure} desk/plain\n:alt: Lines.\n```"
    assert "<img" not in build(plain)[0]
    told = plain.replace(":alt:", ":made-by: snakemake theory\n:source: results/desk/archive/SHA256SUMS\n:alt:")
    html, warnings = build(told)
    assert "<img" in html and "results/desk/archive/SHA256SUMS (" in html and not warnings


def test_a_table_is_read_from_its_file(build: Build) -> None:
    html, warnings = build("```{result-table} desk/scores\n:title: Scores\n```")
    assert "Hopper-v5" in html and "0.5 [0.4, 0.6]" in html and "2a70d5964c0775b6" in html and not warnings


def test_the_algorithms_are_those_of_the_code(build: Build) -> None:
    from vaco.objectives.filters import FILTERS
    from vaco.objectives.table import ALIASES

    html, warnings = build("```{algorithm-table}\n```\n\n```{algorithm-matrix}\n```\n\n```{settings-table}\n```")
    assert not warnings
    for name in (*ALIASES, *FILTERS):
        assert f">{name}<" in html, name


def test_docstrings_are_not_taken_for_markup() -> None:
    from vacobook.docstrings import plain

    given = ["Mean|ρ − 1|, the |π| of `a|b` and π*.", "* an item", "Code::", "", "    x | y", "", "Text |z|."]
    made = [
        "Mean\\|ρ − 1\\|, the \\|π\\| of `a|b` and π\\*.",
        "* an item",
        "Code::",
        "",
        "    x | y",
        "",
        "Text \\|z\\|.",
    ]
    assert plain(given) == made
