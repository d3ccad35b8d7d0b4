"""The estimate against arithmetic by hand, from invented samples and from one real short run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from folders import write_archive, write_run

from vaco.campaign.estimate import Sample, estimate, finished_samples, measure_run, this_machine
from vaco.campaign.tiers import Tier, load_tier
from vaco.errors import UserError

SAMPLE = Sample("Hopper-v5", "ppo", 10, collect=1e-4, learn=2e-4, episode=0.05, columns=28, fresh=True)


@pytest.fixture
def tier(tmp_path: Path) -> Tier:
    content = {
        "tier": "t",
        "description": "For tests.",
        "environments": ["Hopper-v5", "Walker2d-v5"],
        "algorithms": ["ppo", "vaco", "vaco-long"],
        "capacities": [1, 8],
        "seeds": [0, 1],
        "steps": 20480,
        "evaluation": {"points": 4, "episodes": 3},
        "variants": {"vaco-long": {"algorithm": "vaco", "training": {"epochs": 30}}},
        "reference": {"episodes": 10, "seed": 0},
    }
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(content))
    return load_tier(tmp_path / "t.yaml")


def invented(env: str, algorithm: str) -> Sample:
    return replace(
        SAMPLE,
        env=env,
        algorithm=algorithm,
        collect=1e-4 if env == "Hopper-v5" else 3e-4,
        learn=2e-4 if algorithm == "ppo" else 4e-4,
    )


def test_data_that_are_used_again_are_learnt_from_again(tmp_path: Path) -> None:
    content = {
        **{"tier": "t", "description": "For tests.", "environments": ["Hopper-v5"], "algorithms": ["vaco", "twice"]},
        **{"capacities": [1], "seeds": [0], "steps": 20480, "evaluation": {"points": 4, "episodes": 3}},
        "variants": {"twice": {"algorithm": "vaco", "training": {"reuse": [2.0, 1.0]}}},
        "reference": {"episodes": 10, "seed": 0},
    }
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(content))
    once, twice = (cost.seconds for cost in estimate(load_tier(tmp_path / "t.yaml"), tmp_path, measure=invented).costs)
    assert twice - once == pytest.approx(20480 * 4e-4)


def test_hours_steps_and_disk_by_hand(tier: Tier, tmp_path: Path) -> None:
    found = estimate(tier, tmp_path, measure=invented)
    assert found.runs == 2 * 3 * 2 * 2 and found.environment_steps == 24 * 20480
    total = 0.0
    for collect in (1e-4, 3e-4):
        # An evaluation episode is 1,000 steps of collection, or what was measured if that is more.
        evaluation = 2 * 3 * 5 * max(0.05, 1000 * collect)
        for learn in (2e-4, 4e-4, 3 * 4e-4):
            total += 4 * (20480 * (collect + learn) + evaluation)
    assert found.core_hours == pytest.approx(total / 3600)
    assert found.remaining_core_hours == found.core_hours
    assert found.disk_bytes == pytest.approx(24 * (120_000 + 4 * 28 * 10))


def test_as_few_short_runs_as_cover_tasks_and_alignments(tier: Tier, tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []

    def measure(env: str, algorithm: str) -> Sample:
        asked.append((env, algorithm))
        return invented(env, algorithm)

    estimate(tier, tmp_path, measure=measure)
    assert len(asked) == 2
    assert {env for env, _ in asked} == {"Hopper-v5", "Walker2d-v5"} and {name for _, name in asked} == {"ppo", "vaco"}


def test_the_text_says_what_was_measured(tier: Tier, tmp_path: Path) -> None:
    text = estimate(tier, tmp_path, measure=invented).render()
    for part in (
        "24 (0 finished)",
        "491,520",
        "core-hours",
        "at most",
        "2 short runs made now",
        "Hopper-v5",
        "Walker2d-v5",
    ):
        assert part in text, part
    assert max(map(len, text.splitlines())) <= 110


def test_a_short_run_is_read_back_as_a_finished_one_would_be(tmp_path: Path) -> None:
    import subprocess
    import sys

    fresh = measure_run("InvertedPendulum-v5", "ppo")
    assert fresh.fresh and fresh.env == "InvertedPendulum-v5" and 0 < fresh.collect < 1 and 0 < fresh.learn < 1
    folder = tmp_path / "runs/InvertedPendulum-v5/none+clip/lag1/seed0/any"
    flags = ["--env", "InvertedPendulum-v5", "--algorithm", "ppo", "--lag", "1", "--seed", "0", "--steps", "4096"]
    flags += ["--eval-points", "1", "--eval-episodes", "1", "--quiet", "--out", str(folder)]
    subprocess.run([sys.executable, "-m", "vaco", "train", *flags], check=True, capture_output=True)
    (read,), elsewhere = finished_samples(tmp_path)
    assert elsewhere == 0
    assert not read.fresh and (read.env, read.algorithm, read.passes) == ("InvertedPendulum-v5", "ppo", 10)
    assert read.columns == fresh.columns


@pytest.mark.parametrize("change", [{"host": "elsewhere"}, {"cpu": "abacus"}, {"host": None}])
def test_runs_of_another_machine_are_not_taken_for_this_ones(
    change: dict[str, str | None], tier: Tier, tmp_path: Path
) -> None:
    """In a fresh clone the tracked runs are the authors', and the tier is measured here."""
    place = tmp_path / "results"
    for spec in tier.runs():
        write_run(spec.config, place)
    manifests = sorted(place.rglob("manifest.json"))
    host, cpu = this_machine()
    for number, path in enumerate(manifests):
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"host": host, "cpu": cpu} | (change if number else {})))
    samples, elsewhere = finished_samples(place)
    assert len(samples) == 1 and elsewhere == len(manifests) - 1
    text = estimate(tier, place, measure=invented).render()
    assert f"This machine is {host} with {cpu}." in text
    assert "1 runs that finished on this machine (Hopper-v5)" in text
    assert "1 short runs made now on this machine (Walker2d-v5 with" in text
    assert f"Not from the {elsewhere} finished runs under results/ that other machines made." in text


def of_this_machine(tier: Tier, place: Path) -> list[Path]:
    """Manifests of all runs of a tier, as if they had finished here."""
    for spec in tier.runs():
        write_run(spec.config, place)
    manifests = sorted(place.rglob("manifest.json"))
    host, cpu = this_machine()
    for path in manifests:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"host": host, "cpu": cpu}))
    return manifests


def test_a_damaged_manifest_is_named(tier: Tier, tmp_path: Path) -> None:
    path = of_this_machine(tier, tmp_path)[0]
    for content in ("[]", "{", "{}", '{"identity": []}', path.read_text().replace('"training_version"', '"x"')):
        path.write_text(content)
        with pytest.raises(UserError) as caught:
            finished_samples(tmp_path)
        assert str(path.parent) in str(caught.value) and "\n" not in str(caught.value)


def test_a_few_finished_runs_of_each_kind_are_read(tier: Tier, tmp_path: Path) -> None:
    manifests = of_this_machine(tier, tmp_path)
    # 2 tasks, 3 methods, 4 runs each.
    assert (len(finished_samples(tmp_path)[0]), len(manifests)) == (2 * 3 * 3, 24)
    path = manifests[0]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "new"}))
    with pytest.raises(UserError, match="is incomplete"):
        finished_samples(tmp_path)


def test_archived_runs_count_as_finished(tier: Tier, tmp_path: Path) -> None:
    """As in a fresh clone, which has no folders."""
    write_archive(tier, tmp_path / "t" / "archive")
    assert len(finished_samples(tmp_path)[0]) == 2 * 3 * 3
    assert all(cost.finished for cost in estimate(tier, tmp_path, measure=invented).costs)
    assert estimate(tier, tmp_path, measure=invented).remaining_core_hours == 0


def test_an_episode_takes_what_training_leaves_of_a_runs_time(tier: Tier, tmp_path: Path) -> None:
    of_this_machine(tier, tmp_path)
    # Of 10 s, 10 phases of 0.1 s each to collect, align and update; 3 episodes of two kinds at step 0 and 4 points.
    assert finished_samples(tmp_path)[0][0].episode == pytest.approx((10 - 3) / (2 * 3 * 5), rel=1e-5)


def test_what_is_finished_is_not_to_go(tier: Tier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in of_this_machine(tier, tmp_path)[1:]:
        path.unlink()
    monkeypatch.setattr("vaco.campaign.estimate.cores", lambda: (2, "a test"))
    found = estimate(tier, tmp_path, measure=invented)
    (done,) = (cost for cost in found.costs if cost.finished)
    left = found.core_hours - done.seconds / 3600
    assert found.remaining_core_hours == pytest.approx(left) and done.seconds > 0
    text = found.render()
    assert "24 (1 finished)" in text and f"({left:.3g} to go" in text and f"{left / 2:.3g} h on 2 cores" in text


def test_wall_clock_is_that_of_the_cores_one_may_use(
    tier: Tier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(64)))
    monkeypatch.setattr("vaco.campaign.doctor._cgroup_cores", lambda: None)
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    assert "h on 3 cores (by SLURM_CPUS_PER_TASK)" in estimate(tier, tmp_path, measure=invented).render()
