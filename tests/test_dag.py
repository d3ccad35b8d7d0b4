"""What the rules ask, without Snakemake: `tests/workflow` asks Snakemake."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from vaco import dag
from vaco.archive import SUMS
from vaco.campaign.tier_file import check_config
from vaco.errors import UserError
from vaco.lm.kind import load_any_tier
from vaco.lm.tiers import LMTier
from vaco.runs.attempts import journal

ROOT = Path(__file__).parents[1]
FIGURES = yaml.safe_load((ROOT / "workflow/figures.yaml").read_text())

TIERS = sorted(
    path.stem
    for path in ROOT.glob("config/*.yaml")
    if "\nenvironments:" in path.read_text() or path.stem.startswith("lm_")
)


def ask(**wildcards: str) -> Any:
    return SimpleNamespace(**wildcards)


def work(**config: str) -> dag.Dag:
    return dag.Dag({"tier": "desk", "lm_tier": "auto", "runs": "published"} | config, FIGURES)


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place with the tiers, and nothing else."""
    (tmp_path / "config").mkdir()
    for name in ("smoke", "desk", "paper", "lm_smoke", "lm_paper", "published"):
        (tmp_path / f"config/{name}.yaml").write_bytes((ROOT / f"config/{name}.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_language_models_come_along_unless_they_need_a_gpu() -> None:
    assert [tier.name for tier in work(tier="smoke").tiers] == ["smoke", "lm_smoke"]
    assert [tier.name for tier in work(tier="smoke", lm_tier="none").tiers] == ["smoke"]
    assert [tier.name for tier in work(tier="smoke", lm_tier="lm_desk").tiers] == ["smoke", "lm_desk"]
    assert [tier.name for tier in work(tier="paper").tiers] == ["paper"]
    assert [tier.name for tier in work(tier="paper", lm_tier="lm_paper").tiers] == ["paper", "lm_paper"]
    assert [tier.name for tier in work(tier="tuning").tiers] == ["tuning"]


def test_a_tier_of_language_models_is_given_as_lm_tier() -> None:
    with pytest.raises(UserError, match="'lm_desk' is a tier of language models: give it as lm_tier=lm_desk"):
        work(tier="lm_desk")


def test_a_published_tier_trains_nothing_and_all_trains_everything() -> None:
    assert not work().trains and work().runs == {} and work().made_archives() == [] == work().published()
    everything = work(runs="all", lm_tier="none")
    assert len(everything.runs) == 615 and everything.published() == []
    assert everything.made_archives() == [f"build/results/desk/archive/{SUMS}"]
    with pytest.raises(UserError, match="is asked for by no tier here, or it is archived"):
        work().run(next(iter(everything.runs)))


def test_missing_runs_are_those_of_no_archive(elsewhere: Path) -> None:
    found = work(tier="smoke", runs="missing")
    assert set(found.runs) == set(work(tier="smoke", runs="all").runs)
    assert found.manifests() == [f"results/runs/{place}/manifest.json" for place in found.runs]
    assert len(found.manifests("smoke")) + len(found.manifests("lm_smoke")) == len(found.runs)
    asked = ask(tier="smoke")
    assert len(found.archived(asked)) == 3 * len(found.folders("smoke"))
    assert len(found.references(asked)) == len(found.tier.environments) > 0
    assert found.references(ask(tier="lm_smoke")) == []


def test_what_a_training_job_asks_for() -> None:
    found = work(tier="paper", lm_tier="lm_paper", runs="all")
    places = list(found.runs)
    control = ask(run=places[0])
    assert found.command(control)[:2] == ["vaco", "train"] and "--warm-start" not in found.command(control)
    assert (found.memory(control, 1), found.memory(control, 3), found.gpus(control)) == (1200, 3600, 0)
    assert found.minutes(control) > 60 and found.warm_start(control) == []
    language = ask(run=found.folders("lm_paper")[0])
    assert (found.memory(language, 2), found.gpus(language), found.minutes(language)) == (48000, 1, 1440)
    order = [found.priority(ask(run=place)) for place in places]
    assert order == sorted(order, reverse=True) and len(set(order)) == len(order) and min(order) > 0


def test_a_run_with_actors_asks_for_their_cores_and_memory() -> None:
    found = work(tier="asynchrony", lm_tier="none", runs="all")
    asked = {run.config.actors: ask(run=place) for place, run in found.runs.items()}
    assert {actors: (found.cores(one), found.memory(one, 1)) for actors, one in asked.items()} == {
        0: (1, 1200),
        4: (5, 2200),
    }
    real, simulated = asked[4].run, asked[0].run
    places = list(found.runs)
    assert found.priority(asked[4]) == 5 * (len(places) - places.index(real)), "worth as much a core as its place says"
    assert found.priority(asked[0]) == len(places) - places.index(simulated)
    paper = work(tier="paper", lm_tier="lm_paper", runs="all")
    assert {paper.cores(ask(run=place)) for place in paper.runs} == {1}


@pytest.mark.parametrize("tier", TIERS)
def test_one_rule_trains_each_run_of_a_tier(tier: str) -> None:
    """Whatever makes its data old is part of its path."""
    found = load_any_tier(tier)
    kind = dag.LM_PLACE if isinstance(found, LMTier) else dag.PLACE
    for run in found.planned():
        assert [one for one in (dag.PLACE, dag.LM_PLACE) if re.fullmatch(one, run.config.place)] == [kind]


def test_memory_grows_with_attempts_that_were_killed_alone(elsewhere: Path) -> None:
    """Being asked to stop, and failing with a sentence, cost none; one killed before it could say a word does."""
    found = work(tier="smoke", lm_tier="none", runs="all")
    asked = ask(run=next(iter(found.runs)))
    folder = elsewhere / "results/runs" / asked.run
    folder.parent.mkdir(parents=True)

    def attempt(number: int, outcome: str | None) -> None:
        lines = [{"event": "began", "attempt": str(number), "job": str(number)}]
        lines += [{"event": "ended", "attempt": str(number), "outcome": outcome}] if outcome else []
        with journal(folder).open("a") as stream:
            stream.writelines(json.dumps(line) + "\n" for line in lines)

    assert [found.memory(asked, number) for number in (1, 2, 3)] == [1200, 2400, 3600]
    attempt(1, "stopped")
    attempt(2, "refused")
    assert [found.memory(asked, number) for number in (1, 2, 3)] == [1200, 1200, 1200]
    assert found.memory(asked, 4) == 2400
    attempt(3, None)
    assert found.memory(asked, 4) == 2400 and found.memory(asked, 1) == 2400


def test_no_job_asks_for_more_time_than_the_profile_allows() -> None:
    found = work(tier="paper", lm_tier="lm_paper", runs="all")
    control, language = (ask(run=found.folders(tier)[0]) for tier in ("paper", "lm_paper"))
    before = found.minutes(control)
    found.longest = 120
    assert before > 120 and found.minutes(control) == found.minutes(language) == 120
    found.longest = 10**6
    assert found.minutes(control) == before and found.minutes(language) == 1440


def test_a_warm_start_is_needed_by_runs_that_train(elsewhere: Path) -> None:
    found = work(tier="smoke", runs="all")
    asked = ask(run=found.folders("lm_smoke")[0])
    (weights,) = found.warm_start(asked)
    assert found.command(asked)[-2:] == ["--warm-start", weights]
    assert found.warm_tier(ask(warm=Path(weights).stem)) == "lm_smoke"
    with pytest.raises(UserError, match="no language-model tier here has the warm start other"):
        found.warm_tier(ask(warm="other"))
    folder = elsewhere / "results/runs" / asked.run
    folder.mkdir(parents=True)
    (folder / "manifest.json").touch()
    assert found.warm_start(asked) == []  # finished
    (elsewhere / weights).parent.mkdir()
    (elsewhere / weights).touch()
    assert found.warm_start(asked) == [weights]


def test_an_archive_is_made_here_or_published_or_missed() -> None:
    assert work(runs="missing").archive("desk") == f"build/results/desk/archive/{SUMS}"
    assert work().archive_of(ask(tier="desk")) == f"results/desk/archive/{SUMS}" and work().exists("lm_desk")
    assert not work().exists("paper")
    for tier, setting in (("paper", "tier=paper"), ("lm_paper", "lm_tier=lm_paper")):
        with pytest.raises(UserError, match=f"train it with snakemake --cores 2 --config {setting} runs=missing"):
            work().archive(tier)


def test_a_figure_reads_what_the_file_says() -> None:
    found, tables = work(), "build/results/desk/tables"
    asked = ask(tier="desk", name="cost")
    read = found.reads(asked)
    assert read[:3] == [f"{tables}/{name}" for name in ("summary.json", "runs.parquet", "aggregates.parquet")]
    command = found.show("figures", asked, read, ["build/paper/figures/desk/cost.json"])
    assert command[:5] == ["python", "-m", "vaco.report.figures.cost", "--tables", tables]
    assert command[5:7] == ["--out", "build/paper/figures/desk/cost"] and command[7] == "--benchmark"
    shown = ask(tier="demonstrations", name="policy_ages")
    read = found.reads(shown)
    assert read == ["results/demonstrations/asynchrony.json", "results/demonstrations/measured.json"]
    assert found.show("figures", shown, read, ["a/b.json"])[3:] == ["--data", "results/demonstrations", "--out", "a/b"]
    with pytest.raises(UserError, match="'desk' has no figure or table 'nope': it has aggregate_scores"):
        found.reads(ask(tier="desk", name="nope"))
    with pytest.raises(UserError, match="'demonstrations' has no figure or table 'cost': it has policy_ages"):
        found.reads(ask(tier="demonstrations", name="cost"))


def test_what_is_not_measured_is_made_and_what_is_missing_not_given(elsewhere: Path) -> None:
    read = work(tier="smoke").reads(ask(tier="demonstrations", name="policy_ages"))
    assert read == ["build/results/demonstrations/asynchrony.json", "build/results/demonstrations/measured.json"]
    assert work(tier="smoke").further("cost") == {}
    assert dag.measured("results/theory/*.json") == []


def test_every_product_has_a_name_and_the_paper_s_figures_a_number() -> None:
    found = work()
    named = dict(found.named())
    assert named["figure3"] == named["aggregate_scores"] == "build/paper/figures/desk/aggregate_scores.json"
    assert named["language_models"] == "build/paper/figures/lm_desk/language_models.json"
    shown = {path for path in found.products() if path.endswith(".json")} - {"build/paper/numbers.json"}
    assert set(named.values()) == shown
    assert "build/paper/figures/tuned/tuned.json" in shown, "what the book shows of other tiers"
    assert "tuned" not in dict(work(tier="smoke").named())
    assert {"build/paper/numbers.json", "build/paper/book/explorer/data.html"} <= set(found.products())
    assert "build/paper/numbers.json" not in work(tier="smoke").products()
    assert "published" not in work(tier="smoke").typeset("smoke") and "choice" in found.typeset("tuning")


def test_the_book_shows_what_is_tracked_and_no_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = ["config/a.yaml", "paper/book/index.md", "results/desk/archive/evals.parquet", "src/vaco/runs/config.py"]
    hidden = ["results/runs/x/manifest.json", "paper/book/_build/html/index.html", "src/vaco/__pycache__/a.pyc"]
    for name in shown + hidden:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    assert sorted(dag.released()) == shown


def test_the_configuration_is_checked_and_a_mistake_blamed_on_where_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Snakemake itself takes the last of keys given twice, and hands over a mapping in which nothing is to be seen."""
    monkeypatch.chdir(tmp_path)
    assert check_config({"tier": "smoke", "runs": "missing"})["runs"] == "missing"
    with pytest.raises(UserError, match="given twice, in lines 1 and 1"):
        check_config({"bootstrap": "{seed: 1, seed: 2}"})
    with pytest.raises(UserError, match="--config: unknown key 'runz' at the top level: did you mean 'runs'"):
        check_config({"runz": "all"})
    with pytest.raises(UserError, match="--config: 'runs' is \"al\": expected 'published', 'missing' or 'all'"):
        check_config({"runs": "al"})
    file = tmp_path / "config/config.yaml"
    file.parent.mkdir()
    file.write_text("tier: desk\nruns: missing\nruns: all\n")
    with pytest.raises(UserError, match=r"config\.yaml: the key 'runs' is given twice, in lines 2 and 3"):
        check_config({"tier": "desk", "runs": "all"})
    file.write_text("teir: desk\n")
    with pytest.raises(UserError, match=r"config/config\.yaml: unknown key 'teir' at the top level: did you mean"):
        check_config({"teir": "desk"})


def test_the_plan_and_the_source_are_told_apart() -> None:
    assert dag.plan_digest("desk") != dag.plan_digest("smoke") and len(dag.plan_digest("desk")) == 16
    assert dag.source("figures.cost") != dag.source("figures.profiles")
    assert dag.source("figures.cost", "figures.profiles").count("-") == 1


def test_the_theory_s_source_is_found_where_snakemake_is_called(elsewhere: Path) -> None:
    assert dag.theory_source(drawing=True) == "none"
    (elsewhere / "theory").symlink_to(ROOT / "theory")
    drawing, numbers = dag.theory_source(drawing=True), dag.theory_source(drawing=False)
    assert drawing != numbers and len(drawing) == len(numbers) == 16


def test_the_matrix_of_conformance_depends_on_the_rules_and_on_what_compares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for room in ("conformance", "objectives"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "a.py").write_text("A = 1\n")
    (tmp_path / "loss.py").write_text("")
    monkeypatch.setattr(dag, "__file__", str(tmp_path / "dag.py"))
    before = dag.conformance_source()
    (tmp_path / "loss.py").write_text("B = 1\n")
    assert dag.conformance_source() == before
    for room in ("conformance", "objectives"):
        (tmp_path / room / "b.py").write_text("")
        assert dag.conformance_source() != before
        before = dag.conformance_source()


def test_every_figure_and_table_is_about_a_section_of_the_book_that_exists() -> None:
    found = work()
    drawn = [
        *FIGURES["figures"],
        *FIGURES["language"],
        *FIGURES["typeset"],
        *FIGURES["choices"],
        *FIGURES["demonstrations"],
    ]
    drawn += [name for read in (*FIGURES["studies"].values(), FIGURES["sweeps"]) for name in read]
    told = [name for headings in FIGURES["claims"].values() for names in headings.values() for name in names]
    assert sorted(told) == sorted(drawn)
    for page, headings in FIGURES["claims"].items():
        lines = (ROOT / f"paper/book/{page}.md").read_text().splitlines()
        assert all(f"## {heading}" in lines or f"### {heading}" in lines for heading in headings), page
    title, address = found.claim("cost")
    assert title == "Aligning once is cheaper than continuously; does it cost return?"
    assert address.endswith("findings.html#aligning-once-is-cheaper-than-continuously-does-it-cost-return")


def test_a_model_is_fetched_once_before_all_runs_and_never_for_finished_ones(elsewhere: Path) -> None:
    found = work(tier="smoke", lm_tier="lm_paper", runs="all")
    places = found.folders("lm_paper")
    (note,) = {path for place in places for path in found.fetched(ask(run=place))}
    assert note == "results/runs/models/lm_paper/Qwen--Qwen2.5-0.5B-Instruct.json"
    assert found.fetched(ask(warm="of a warm start")) == [note]
    (elsewhere / "results/runs" / places[0]).mkdir(parents=True)
    (elsewhere / "results/runs" / places[0] / "manifest.json").touch()
    assert found.fetched(ask(run=places[0])) == [] != found.fetched(ask(run=places[1]))
    (elsewhere / note).parent.mkdir(parents=True)
    (elsewhere / note).touch()
    assert found.fetched(ask(run=places[0])) == [note], "with other inputs than before it would be trained again"
    assert work(tier="smoke", runs="all").fetched(ask(run="")) == [], "the model 'tiny' is made on the spot"
