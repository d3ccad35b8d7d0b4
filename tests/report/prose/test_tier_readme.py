"""The README of a tier's results, and the comparison with published results."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from vaco.errors import UserError
from vaco.report.prose import tier_readme
from vaco.report.tables import published
from vaco.report.tables.read import Tables

ROOT = Path(__file__).parents[3]


def test_a_complete_tier_misses_nothing(tables_folder: Path, tmp_path: Path) -> None:
    assert tier_readme.main(["--tables", str(tables_folder), "--out", str(tmp_path / "README.md")]) == 0
    text = (tmp_path / "README.md").read_text()
    assert "draws the figures from `archive/` and trains nothing" in text and "vaco restore --tier small" in text
    assert "**State: complete.**" in text and "## What is missing\n\nNothing." in text
    assert re.search(r"\| core-hours +\| 0\.1 ", text) and "2026-01-01T00:00:00Z" in text and "| mujoco " in text


def test_an_incomplete_tier_lists_what_is_missing(tables_folder: Path) -> None:
    tables = Tables(tables_folder)
    summary = json.loads(json.dumps(tables.summary))
    summary["runs"] = 38
    summary["missing"] = ["Hopper-v5/spo/lag8/seed2", "Hopper-v5/spo/lag1/seed2"]
    summary["progress"]["main"]["seeds"]["2"] = [10, 12]
    text = tier_readme.render(summary, tables.read("runs"), {})
    assert "What the comparison says" not in text
    assert "38 of 40 runs are finished" in text and "runs=missing" in text
    assert re.search(r"\| `spo` +\| 1 +\| 1 ", text) and "Hopper-v5/spo/lag8/seed2" in text and "10/12" in text


def test_the_readme_says_what_the_comparison_says(tables_folder: Path) -> None:
    tables = Tables(tables_folder)
    found = {"keeps.vaco": 0.5, "claim.iqm": "does not hold at K = 8", "order.lag8": "PPO 0.90, VACO 0.50, SPO 0.10"}
    found |= {"order.lag8.n": 3, "ahead.lag8": "SPO", "behind.lag8": "PPO", "clear.lag8": "none"}
    text = tier_readme.render(tables.summary, tables.read("runs"), found)
    assert "on the interquartile means it does not hold at K = 8." in text
    assert re.search(r"\| 8 +\| PPO 0.90, VACO 0.50, SPO 0.10 +\| 3 +\| SPO +\| PPO +\| none +\|", text)
    assert re.search(r"\| 1 +\| – +\| – +\| – +\| – +\| – +\|", text), "nothing is known there"
    assert "not evidence about the methods" in text, "a tier this short says so"
    assert "so far" not in text and "beyond chance, by mean scores" not in text, "complete, and nothing is known"
    found |= {"claim.refuted": "at K = 8", "claim.confirmed": "at no K"}
    text = tier_readme.render(tables.summary | {"runs": 38}, tables.read("runs"), found)
    assert "## What the comparison says so far" in text
    assert "another method is ahead of VACO at K = 8, and VACO is ahead of all others at no K. 0 is" in text
    assert "no verdict yet" in tier_readme.verdict(tables.summary, found | {"claim.iqm": None})


def test_the_published_file_is_whole() -> None:
    content = published.read_published(ROOT / "config/published.yaml")
    for source in content["sources"]:
        assert source["url"].startswith("https://") and re.search(r"/blob/[0-9a-f]{40}/", source["url"])
        assert source["version"] in ("v3", "v4", "v5") and source["seeds"] >= 1
        assert all(value > 0 for values in source["results"].values() for value in values)


def test_ours_stands_beside_the_published(tables_folder: Path, tmp_path: Path) -> None:
    arguments = ["--tables", str(tables_folder), "--published", str(ROOT / "config/published.yaml")]
    assert published.main([*arguments, "--out", str(tmp_path / "p")]) == 0
    table = pd.read_csv(tmp_path / "p.csv").set_index("source")
    final = pd.read_parquet(tables_folder / "scores.parquet")
    final = final[(final["name"] == "ppo") & (final["lag"] == 1) & (final["env"] == "Hopper-v5")]["final"].mean()
    assert table.loc["here", "Hopper-v5"].startswith(f"{final:.0f} [") and table.loc["here", "seeds"] == 3
    assert table.loc["CleanRL, ppo_continuous_action", "Hopper-v5"] == "2383 ± 272"
    assert "≈" in table.loc["Spinning Up (PyTorch), read off its plots by Tianshou", "Hopper-v5"]
    caption = json.loads((tmp_path / "p.json").read_text())["caption"]
    assert "https://github.com/DLR-RM/rl-baselines3-zoo" in caption and "40,960 steps" in caption


def test_the_verdict_counts_the_published_results_below_ours() -> None:
    ours = pd.DataFrame({"env": ["A-v5", "B-v5", "C-v5"], "point": [2.0, 2.0, 2.0]})
    # A mean and its spread, if it has one; B's second mean is ours.
    sources = [{"results": {"A": [1.0, 2.5], "B": [3.0], "C": [1.0]}}, {"results": {"A": [3.0, 2.5], "B": [2.0]}}]
    assert published.verdict(ours, sources) == (
        "Of the published means ours lies above 1 of 2 on A-v5, none of 2 on B-v5, all of 1 on C-v5."
    )
    assert published.verdict(ours[:0], sources) == ""


def test_a_published_file_without_its_sources_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(yaml.safe_dump({"algorithm": "ppo", "steps": 1, "sources": [{"name": "x"}]}))
    with pytest.raises(UserError, match="the source 'x' lacks policy, results, seeds, settings, url, version"):
        published.read_published(tmp_path / "p.yaml")
    with pytest.raises(UserError, match=r"none\.yaml cannot be read"):
        published.read_published(tmp_path / "none.yaml")
