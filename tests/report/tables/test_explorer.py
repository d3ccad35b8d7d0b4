"""The explorer shows what the tables hold, works from a file, on a narrow screen, by keyboard, and without any data."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from vaco.report.tables import explorer

PAGE = Path(__file__).parents[3] / "paper" / "book" / "explorer" / "explorer.html"


def read(fragment: Path) -> Any:
    text = fragment.read_text()
    return json.loads(re.fullmatch(r"<script[^>]*>(.*)</script>\n", text, re.DOTALL).group(1))  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def fragment(tables_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("explorer") / "data.html"
    absent = tables_folder.parent / "no-such-tier"
    assert explorer.main(["--tables", str(absent), str(tables_folder), "--out", str(out)]) == 0
    return out


def test_every_estimate_of_the_tables_is_there(fragment: Path, tables_folder: Path) -> None:
    (tier,) = read(fragment)["tiers"]
    aggregates = pd.read_parquet(tables_folder / "aggregates.parquet")
    by_task = pd.read_parquet(tables_folder / "task_scores.parquet")
    assert len(tier["scores"]) == aggregates["point"].notna().sum() + by_task["point"].notna().sum()
    found = {(s["grid"], s["metric"], s["name"], s["lag"]): s for s in tier["scores"] if s["task"] == ""}
    for row in aggregates.itertuples():
        shown = found[row.grid, row.metric, row.name, row.lag]
        assert shown["point"] == pytest.approx(row.point, rel=1e-5, abs=1e-12) and shown["runs"] == row.runs
    curves = pd.read_parquet(tables_folder / "task_curves.parquet")
    (one,) = [c for c in tier["curves"] if (c["task"], c["name"], c["lag"]) == ("Hopper-v5", "vaco", 8)]
    rows = curves[(curves["env"] == "Hopper-v5") & (curves["name"] == "vaco") & (curves["lag"] == 8)]
    assert one["point"] == pytest.approx(rows.sort_values("grid_steps")["point"].tolist(), rel=1e-5)


def test_without_tables_there_is_an_empty_list(tmp_path: Path) -> None:
    assert explorer.main(["--tables", str(tmp_path / "x"), "--out", str(tmp_path / "d.html")]) == 0
    assert read(tmp_path / "d.html") == {"tiers": []}


def test_numbers_are_finite_or_null() -> None:
    assert [explorer.rounded(v) for v in (1.0, 1 / 3, float("nan"), float("inf"))] == [1, 0.333333, None, None]


def test_no_text_can_close_the_element() -> None:
    assert explorer.fragment([{"warnings": ["</script><b>"]}]).count("</script>") == 1


Open = Callable[..., Any]


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Open the page from a file, with data, in a window of a width; errors of the page fail the test."""
    errors: list[str] = []
    pages = []

    def opened(data: Path, width: int = 1000, theme: str = "light") -> Any:
        html = (
            f'<!doctype html><html lang="en" data-theme="{theme}"><meta charset="utf-8"><body>'
            f"{data.read_text()}{PAGE.read_text()}"
        )
        (tmp_path / "page.html").write_text(html)
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto((tmp_path / "page.html").as_uri())
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.close()
    assert not errors


def cells(page: Any, which: str) -> list[list[str]]:
    return [row.locator("th, td").all_inner_texts() for row in page.locator(f'[data-part="{which}"] tr').all()]


def test_scores_shown_are_those_of_the_table(show: Open, fragment: Path, tables_folder: Path) -> None:
    page = show(fragment)
    header, *rows = cells(page, "score-table")
    assert header == ["method", "K = 1", "K = 8"] and [row[0] for row in rows] == ["PPO", "SPO", "VACO"]
    table = pd.read_parquet(tables_folder / "aggregates.parquet").query("grid == 'main' and metric == 'iqm'")
    for name, row in zip(("ppo", "spo", "vaco"), rows, strict=True):
        for lag, text in zip((1, 8), row[1:], strict=True):
            (one,) = table[(table["name"] == name) & (table["lag"] == lag)].itertuples()
            assert text == f"{one.point:.3f} [{one.low:.3f}, {one.high:.3f}], {one.runs}"


def test_choices_change_what_is_shown(show: Open, fragment: Path, tables_folder: Path) -> None:
    page = show(fragment)
    page.get_by_role("combobox", name="Task").select_option("Hopper-v5")
    page.get_by_role("combobox", name="Score").select_option("final")
    page.get_by_role("combobox", name="Degree of asynchrony K").select_option("1")
    page.get_by_role("checkbox", name="SPO").uncheck()
    page.locator("summary").click()
    header, *rows = cells(page, "curve-table")
    assert header == ["steps", "PPO, n = 3", "VACO, n = 3"]
    table = pd.read_parquet(tables_folder / "task_curves.parquet")
    for row in rows:
        at = table[
            (table["env"] == "Hopper-v5") & (table["lag"] == 1) & (table["grid_steps"] == int(row[0].replace(",", "")))
        ]
        for name, text in zip(("ppo", "vaco"), row[1:], strict=True):
            (one,) = at[at["name"] == name].itertuples()
            shown = [float(value) for value in re.findall(r"-?\d+", text)]
            # Whole returns; the data keep six digits, so a half may round either way.
            assert shown == pytest.approx([one.point, one.low, one.high], abs=0.51)
    assert "on Hopper-v5" in page.locator('[data-part="score-title"]').inner_text()
    assert page.locator('[data-part="curve"] svg path[style*="fill: none"]').count() == 2


def test_a_study_shows_its_own_methods_and_gaps(show: Open, fragment: Path) -> None:
    page = show(fragment)
    page.get_by_role("combobox", name="Study").select_option("sensitivity")
    assert (
        page.locator("[data-method]").count() == 3
        and "VACO δ = 0.4" in page.locator('[data-part="methods"]').inner_text()
    )
    assert cells(page, "score-table")[0] == ["method", "K = 8"]
    assert "made for the comparison only: choose a task" in page.locator('[data-part="curve"]').inner_text()
    page.get_by_role("combobox", name="Task").select_option("Hopper-v5")
    page.locator("summary").click()
    assert "VACO δ = 0.4, n = 2" in cells(page, "curve-table")[0]
    assert "scores over those of the study" in page.locator('[data-part="note"]').inner_text()


def test_it_is_operated_by_keyboard_and_named_for_screen_readers(show: Open, fragment: Path) -> None:
    page = show(fragment)
    for label in ("Task", "Degree of asynchrony K", "Score", "Study"):
        page.get_by_role("combobox", name=label).focus()
    page.get_by_role("combobox", name="Degree of asynchrony K").focus()
    page.keyboard.press("ArrowUp")
    assert page.locator('[data-part="curve-title"]').inner_text().endswith("K = 1")
    box = page.get_by_role("checkbox", name="PPO", exact=True)
    box.focus()
    page.keyboard.press("Space")
    assert not box.is_checked() and "2 of 3 methods" in page.get_by_role("status").inner_text()
    assert page.evaluate("document.activeElement.dataset.method") == "ppo"
    assert page.get_by_role("group", name="Methods").count() == 1
    for chart in page.get_by_role("img").all():
        assert len(chart.get_attribute("aria-label")) > 20


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_narrow_screen_needs_no_sideways_scrolling(show: Open, fragment: Path, theme: str) -> None:
    page = show(fragment, width=390, theme=theme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_without_results_it_says_so(show: Open, tmp_path: Path) -> None:
    empty = tmp_path / "empty.html"
    empty.write_text(explorer.fragment([]))
    page = show(empty)
    assert "No results yet" in page.get_by_role("status").inner_text()
    assert not page.locator("form").is_visible()


def test_one_seed_and_missing_runs_are_shown_as_they_are(show: Open, fragment: Path, tmp_path: Path) -> None:
    data = read(fragment)
    (tier,) = data["tiers"]
    tier["missing"] = 5
    tier["scores"] = [s | {"low": None, "high": None} for s in tier["scores"] if s["name"] != "spo"]
    unknown = [None] * len(tier["curves"][0]["steps"])
    tier["curves"] = [c | {"low": unknown, "high": unknown} for c in tier["curves"] if c["name"] != "spo"]
    partial = tmp_path / "partial.html"
    partial.write_text(explorer.fragment(data["tiers"]))
    page = show(partial)
    assert [row[0] for row in cells(page, "score-table")[1:]] == ["PPO", "VACO"]
    assert not any("[" in text for row in cells(page, "score-table") for text in row)
    assert "5 runs are missing" in page.locator('[data-part="note"]').inner_text()
