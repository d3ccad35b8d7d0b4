"""Core-hours and energy: sums over archived runs, and power that is measured or said to be an estimate."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from vaco import cli
from vaco.campaign import cost
from vaco.campaign.tiers import load_tier
from vaco.lm.tiers import load_lm_tier

ROOT = Path(__file__).parents[2]


def counter(place: Path, name: str, microjoules: int) -> None:
    (place / name).mkdir(exist_ok=True)
    (place / name / "energy_uj").write_text(f"{microjoules}\n")


def test_power_is_what_the_packages_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter(tmp_path, "intel-rapl:0", 1_000_000)
    counter(tmp_path, "intel-rapl:1", 0)
    counter(tmp_path, "intel-rapl:0:0", 7)  # a part of the first
    clock = iter((0.0, 2.0))
    monkeypatch.setattr(cost.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(os, "cpu_count", lambda: 8)

    def work(seconds: float) -> None:
        counter(tmp_path, "intel-rapl:0", 1_000_000 + 120_000_000)
        counter(tmp_path, "intel-rapl:1", 40_000_000)
        counter(tmp_path, "intel-rapl:0:0", 10**12)

    # 160 J in 2 s on 8 cores.
    assert cost.measure(place=tmp_path, sleep=work) == cost.Power(10.0, measured=True)


def test_without_counters_or_when_one_began_anew_it_is_an_estimate(tmp_path: Path) -> None:
    estimate = cost.Power(cost.ESTIMATE, measured=False)
    assert cost.measure(place=tmp_path, sleep=lambda _: None) == estimate
    counter(tmp_path, "intel-rapl:0", 100)
    assert cost.measure(place=tmp_path, sleep=lambda _: counter(tmp_path, "intel-rapl:0", 5)) == estimate
    assert cost.measure(place=tmp_path, sleep=lambda _: None) == estimate  # a counter that stands still


def test_the_hours_of_a_claim_are_those_of_its_runs() -> None:
    desk = load_tier(ROOT / "config/desk.yaml")
    wall = pq.read_table(ROOT / "results/desk/archive/runs.parquet", columns=["run", "wall_seconds"]).to_pylist()
    seconds = {row["run"]: row["wall_seconds"] for row in wall}
    found = {claim.grid: claim for claim in cost.claims(desk, ROOT / "results")}
    assert found.keys() == desk.grids.keys()
    for grid, claim in found.items():
        runs = [str(run.config.run_id) for run in desk.runs() if grid in run.grids]
        assert claim.runs == claim.archived == len(runs)
        assert claim.hours == pytest.approx(sum(seconds[run] for run in runs) / 3600)
    total = cost.whole(desk, ROOT / "results")
    assert total.runs == 615 and total.hours == pytest.approx(sum(seconds.values()) / 3600)
    assert total.hours < sum(claim.hours for claim in found.values()), "shared runs count once"


def test_what_no_archive_holds_is_predicted_for_the_whole_alone() -> None:
    paper = load_tier(ROOT / "config/paper.yaml")
    (main,) = cost.claims(paper, ROOT / "results")
    assert main.archived == 0 and main.hours == 0
    text = cost.render([paper], ROOT / "results", cost.Power(10.0, measured=False))
    whole = cost.whole(paper, ROOT / "results").hours
    assert whole > 1000 and f"{whole:,.1f}" in text and f"{whole * 10 / 1000:,.2f}" in text
    assert "1,440 not archived, predicted" in text and "1,440 not archived, not counted" in text
    assert "an estimate" in text


def test_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert cli.run(["cost", "--tier", "desk", "lm_desk"]) == 0
    said = capsys.readouterr().out
    assert "desk/main" in said and "lm_desk/main" in said and " W (" in said


def test_what_is_missing_of_language_models_is_predicted_from_their_own_tier_or_not_counted(tmp_path: Path) -> None:
    text = (ROOT / "config/lm_smollm.yaml").read_text(encoding="utf-8")
    (tmp_path / "lm_smollm.yaml").write_text(text.replace("seeds: [0, 1, 2]", "seeds: [0, 1, 2, 3]"), encoding="utf-8")
    tier = load_lm_tier(tmp_path / "lm_smollm.yaml")
    claim = cost.whole(tier, tmp_path)
    assert claim.archived == 0 and claim.hours == 0 and not claim.predicted
    assert cost.render([tier], tmp_path, cost.Power(10.0, measured=False)).endswith("32 not archived, not counted")
    claim, published = (
        cost.whole(one, ROOT / "results") for one in (tier, load_lm_tier(ROOT / "config/lm_smollm.yaml"))
    )
    assert (claim.archived, published.archived) == (24, 24) and claim.predicted
    assert claim.hours == pytest.approx(published.hours * 32 / 24, rel=0.1)
