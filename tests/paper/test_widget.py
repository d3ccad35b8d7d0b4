"""The filter widget of the method page: its two rules are those that train, and it can be read and operated."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from vaco.objectives.filters import FILTERS, FilterSettings, Samples

WIDGET = Path(__file__).parents[2] / "paper" / "book" / "widgets" / "filter.html"
LINES = {
    # The edges of the rules are among the values: 1 ± ε, ρ = ρ_T, statistic = δ, A = 0.
    "ratio": [0.1, 0.5, 1 - 0.2, 0.9, 1.0, 1.1, 1 + 0.2, 1 + 0.05, 1.5, 2.5],
    "learner": [0.5, 0.9, 1.0, 1.5],
    "advantage": [-2.0, -0.05, 0.0, 0.05, 2.0],
    "statistic": [0.0, 0.05, 0.2, 0.21, 0.6],
    "delta": [0.05, 0.2],
    "clip": [0.05, 0.2],
}


@pytest.fixture(params=[(1000, "light"), (390, "dark")], ids=["wide", "narrow"])
def page(browser: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    width, theme = request.param
    file = tmp_path / "page.html"
    file.write_text(
        f'<!doctype html><html lang="en" data-theme="{theme}"><meta charset="utf-8"><body>{WIDGET.read_text()}'
    )
    errors: list[str] = []
    opened = browser.new_page(viewport={"width": width, "height": 900})
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    opened.goto(file.as_uri())
    yield opened
    opened.close()
    assert not errors


def test_the_rules_are_those_that_train(page: Any) -> None:
    grid = [dict(zip(LINES, values, strict=True)) for values in itertools.product(*LINES.values())]
    told = page.evaluate("grid => grid.map(s => [vacoRules.clip(s), vacoRules.tv(s)])", grid)
    expected = []
    for delta, clip, statistic in itertools.product(LINES["delta"], LINES["clip"], LINES["statistic"]):
        rows = [i for i, s in enumerate(grid) if (s["delta"], s["clip"], s["statistic"]) == (delta, clip, statistic)]
        columns = {
            name: torch.tensor([grid[i][name] for i in rows], dtype=torch.float64)
            for name in ("ratio", "learner", "advantage")
        }
        samples = Samples(
            ratio=columns["ratio"],
            learner_ratio=columns["learner"],
            advantages=columns["advantage"],
            statistic=torch.tensor(statistic, dtype=torch.float64),
        )
        kept = [FILTERS[rule].function(samples, FilterSettings(delta=delta, clip=clip)).kept for rule in ("clip", "tv")]
        expected += [(i, [bool(kept[0][at]), bool(kept[1][at])]) for at, i in enumerate(rows)]
    assert len(expected) == len(grid) == 4000
    wrong = [(grid[i], verdict, told[i]) for i, verdict in expected if told[i] != verdict]
    assert not wrong, wrong[:3]
    assert {tuple(verdict) for _, verdict in expected} == {(a, b) for a in (True, False) for b in (True, False)}


def move(page: Any, name: str, value: float) -> None:
    page.locator(f'[data-name="{name}"]').fill(str(value))


def test_moving_a_slider_changes_the_verdict(page: Any) -> None:
    verdict = page.locator('[data-verdict="tv"]')
    for name, value in {
        "ratio": 1.5,
        "learner": 1,
        "advantage": 1,
        "statistic": 0.1,
        "delta": 0.2,
        "clip": 0.2,
    }.items():
        move(page, name, value)
    assert verdict.inner_text().startswith("Kept, c = ρA = 1.50") and "within the threshold" in verdict.inner_text()
    assert page.locator('[data-verdict="clip"]').inner_text().startswith("Dropped, c = 0")
    move(page, "statistic", 0.3)
    assert verdict.inner_text().startswith("Dropped") and "away from" in verdict.inner_text()
    move(page, "learner", 1.8)
    assert verdict.inner_text().startswith("Kept") and "back towards ρ_T = 1.80" in verdict.inner_text()


def test_it_is_operated_by_keyboard_and_fits(page: Any) -> None:
    slider = page.get_by_role("slider", name="ratio ρ = π/β")
    slider.focus()
    before = float(slider.input_value())
    page.keyboard.press("ArrowRight")
    assert float(slider.input_value()) == pytest.approx(before + 0.01)
    assert page.get_by_role("slider").count() == len(LINES)
    width = page.evaluate("document.documentElement.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
