from __future__ import annotations

from pathlib import Path

import pytest
from synthetic import write_archive

from vaco.campaign.tiers import Tier, load_tier
from vaco.report.tables import aggregate, estimates

SMALL = """
tier: small
description: A tier for tests.
environments: [Hopper-v5, HalfCheetah-v5]
algorithms: [ppo, spo, vaco]
capacities: [1, 8]
seeds: [0, 1, 2]
steps: 40960
evaluation: {points: 4, episodes: 2}
reference: {episodes: 100, seed: 0}
variants:
  vaco-delta0.4: {algorithm: vaco, training: {delta: 0.4}}
studies:
  sensitivity: {environments: [Hopper-v5], algorithms: [vaco, vaco-delta0.4, once+clip], capacities: [8], seeds: [0, 1]}
"""


@pytest.fixture(scope="session")
def small_tier(tmp_path_factory: pytest.TempPathFactory) -> Tier:
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(SMALL)
    return load_tier(path)


@pytest.fixture(scope="session")
def results(small_tier: Tier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archive and tables of `small_tier`; tests only read them."""
    root = tmp_path_factory.mktemp("results") / small_tier.name
    archive = write_archive(small_tier, root / "archive").folder
    plan = root / "plan.json"
    plan.write_text(small_tier.plan())
    assert aggregate.main(["--plan", str(plan), "--archive", str(archive), "--out", str(root / "tables")]) == 0
    assert estimates.main(["--tables", str(root / "tables"), "--repetitions", "200"]) == 0
    return root


@pytest.fixture(scope="session")
def tables_folder(results: Path) -> Path:
    return results / "tables"
