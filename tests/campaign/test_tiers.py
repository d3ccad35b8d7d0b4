"""A tier expands to the runs it should, once each, in a useful order; its mistakes are told in one sentence."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from vaco.campaign.tier_file import WorkflowConfig
from vaco.campaign.tiers import Tier, load_tier, main
from vaco.errors import UserError
from vaco.report.tables.plan import read_plan
from vaco.runs.config import BATCHED_TASKS, SETTINGS, build, parse_assignment
from vaco.runs.explain import check

CONFIG = Path(__file__).parents[2] / "config"
BASE: dict[str, Any] = {
    "tier": "t",
    "description": "For tests.",
    "environments": ["Hopper-v5", "Walker2d-v5"],
    "algorithms": ["ppo", "vaco"],
    "capacities": [1, 8],
    "seeds": [0, 1, 2],
    "steps": 40960,
    "evaluation": {"points": 5, "episodes": 2},
    "reference": {"episodes": 10, "seed": 0},
}


SWEEP: dict[str, Any] = {"algorithm": "once+tv", "knob": "delta", "values": [0.1, 0.2]}


@pytest.fixture
def make(tmp_path: Path) -> Any:
    def build(name: str = "t", **changes: Any) -> Tier:
        content = {key: value for key, value in (BASE | changes).items() if value is not ...}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content))
        return load_tier(path)

    return build


def test_a_sweep_is_a_variant_for_every_value_and_the_default_among_them_the_plain_algorithm(make: Any) -> None:
    swept = {"algorithm": "none+tv", "knob": "delta", "values": [0.1, 1, 0.2], "training": {"ratio_cap": 2}}
    tier = make(
        algorithms=["ppo", "x"], sweeps={"x": SWEEP, "y-": swept}, studies={"s": {"algorithms": ["y-"], "seeds": [7]}}
    )
    assert tier.grids["main"].algorithms == ("ppo", "x0.1", "vaco")
    assert tier.grids["s"].algorithms == ("y-0.1", "y-1", "y-0.2")
    assert tier.methods["y-1"].settings == (("delta", 1.0), ("ratio_cap", 2.0))
    assert tier.sweeps == {
        "x": {"knob": "delta", "values": {"x0.1": 0.1, "vaco": 0.2}},
        "y-": {"knob": "delta", "values": {"y-0.1": 0.1, "y-1": 1, "y-0.2": 0.2}},
    }
    assert json.loads(tier.plan())["sweeps"] == tier.sweeps
    assert "sweeps" not in json.loads(make().plan())


def test_readings_of_the_paper_are_balanced_and_differ_from_their_controls_in_nothing_but_what_is_vacos() -> None:
    tier = load_tier(CONFIG / "readings.yaml")
    own, common = (
        ("delta", "trigger", "ratio_cap"),
        ("trace_decay", "advantage_normalisation", "normaliser_start", "learning_rate_decay"),
    )
    configs = {spec.name: spec.config for spec in tier.runs()}
    del configs["ppo"]
    readings = [config for config in configs.values() if "tv" in config.parsed.filter.name]
    rows = [(config.parsed.filter.name, *(getattr(config, key) for key in (*common, *own))) for config in readings]
    assert len(set(rows)) == 24
    for one, other in combinations(range(8), 2):
        counts = Counter((row[one], row[other]) for row in rows)
        levels = [{row[column] for row in rows} for column in (one, other)]
        assert len(counts) == len(levels[0]) * len(levels[1]) and max(counts.values()) - min(counts.values()) <= 1
    controls = [config for config in configs.values() if config not in readings]
    shared = Counter(tuple(getattr(config, key) for key in common) for config in readings)
    assert shared == Counter(dict.fromkeys({tuple(getattr(c, key) for key in common) for c in controls}, 3))
    assert len(controls) == 16 and all(getattr(c, key) == SETTINGS[key].default for c in controls for key in own)


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("smoke", 24),
        ("desk", 615),
        ("paper", 1440),
        ("centres", 465),
        ("tuning", 591),
        ("tuned", 555),
        ("longer", 54),
        ("readings", 255),
        ("asynchrony", 132),
    ],
)
def test_the_tiers_of_the_repository_expand_to_their_runs(name: str, runs: int) -> None:
    tier = load_tier(CONFIG / f"{name}.yaml")
    specs = tier.runs()
    assert len(specs) == runs == len({spec.config.place for spec in specs}) == len({s.config.run_id for s in specs})
    assert tier.name == name


def test_desk_shares_the_runs_that_several_studies_ask_for() -> None:
    tier = load_tier(CONFIG / "desk.yaml")
    sizes = {
        name: len(grid.environments) * len(grid.algorithms) * len(grid.capacities) * len(grid.seeds)
        for name, grid in tier.grids.items()
    }
    assert sizes == {"main": 360, "factorial": 117, "contributions": 90, "sensitivity": 60, "forward_lag": 66}
    # Shared: ppo and vaco in the factorial (3 tasks x 3 seeds each) and among the contributions (3 x 5 each); the two
    # defaults in the sensitivity study (2 x 3 each); ten epochs of ppo, vaco and impala in the study of forward lag (2
    # capacities x 3 seeds each).
    assert len(tier.runs()) == 360 + 117 + 90 + 60 + 66 - 2 * 9 - 2 * 15 - 2 * 6 - 3 * 6
    shared = tier.find("HalfCheetah-v5", "vaco", 16, 0)
    assert shared.grids == ("main", "factorial", "sensitivity", "forward_lag") and shared.settings == ()


def test_every_prefix_holds_whole_seeds_first(make: Any) -> None:
    studies = {"extra": {"algorithms": ["vaco", "spo"], "capacities": [1], "seeds": [0, 1]}}
    tier = make(studies=studies)
    specs = tier.runs()
    priorities = [tier.priority(spec) for spec in specs]
    assert all(a >= b for a, b in pairwise(priorities))
    assert [spec.seed for spec in specs] == sorted(spec.seed for spec in specs)
    first = [spec for spec in specs if spec.seed == 0]
    assert ["main" in spec.grids for spec in first] == [True] * 8 + [False] * 2
    assert {(spec.env, spec.name, spec.lag) for spec in first[:8]} == {
        (env, name, lag) for env in ("Hopper-v5", "Walker2d-v5") for name in ("ppo", "vaco") for lag in (1, 8)
    }


def test_names_that_mean_the_same_are_one_run(make: Any) -> None:
    variants = {
        "same": {"algorithm": "vaco", "training": {"delta": 0.2}},
        "b": {"algorithm": "vaco", "training": {"delta": 0.4}},
        "a": {"algorithm": "once+tv", "training": {"delta": 0.4}},
    }
    tier = make(algorithms=["vaco", "once+tv", "same", "a", "b", "none+clip", "continuous+tv"], variants=variants)
    assert tier.grids["main"].algorithms == ("vaco", "a", "ppo", "continuous+tv")
    assert tier.methods["a"].algorithm == "vaco" and tier.methods["a"].settings == (("delta", 0.4),)


def test_settings_come_from_the_tier_then_the_override_then_the_variant(make: Any) -> None:
    tier = make(
        algorithms=["ppo", "impala", "impala-long"],
        training={"epochs": 4, "learning_rate": 1e-4},
        overrides={"impala": {"epochs": 1}},
        variants={"impala-long": {"algorithm": "impala", "training": {"epochs": 10}}},
    )
    assert dict(tier.methods["ppo"].settings) == {"epochs": 4, "learning_rate": 1e-4}
    assert dict(tier.methods["impala"].settings) == {"epochs": 1, "learning_rate": 1e-4}
    # Ten epochs are the default of the run configuration, hence no setting; but not that of this tier's impala.
    assert dict(tier.methods["impala-long"].settings) == {"learning_rate": 1e-4}


def test_an_override_of_an_algorithm_that_only_a_variant_uses_is_no_dead_one(make: Any) -> None:
    tier = make(
        algorithms=["ppo", "long"],
        overrides={"impala": {"epochs": 1}},
        variants={"long": {"algorithm": "impala", "training": {"truncation": 0.4}}},
    )
    assert dict(tier.methods["long"].settings) == {"epochs": 1, "truncation": 0.4}


def test_the_command_of_a_run_is_complete(make: Any) -> None:
    tier = make(algorithms=["ppo", "odd"], variants={"odd": {"algorithm": "ppo", "training": {"hidden": [32, 32]}}})
    words = tier.find("Walker2d-v5", "odd", 8, 2).command
    assert words[:2] == ["vaco", "train"]
    assert dict(zip(words[2::2], words[3::2], strict=True)) == {
        "--env": "Walker2d-v5",
        "--algorithm": "none+clip",
        "--lag": "8",
        "--seed": "2",
        "--steps": "40960",
        "--eval-points": "5",
        "--eval-episodes": "2",
        "--set": "hidden=[32, 32]",
    }


def test_the_command_makes_the_run_that_was_planned(make: Any) -> None:
    """Whatever the tier calls it, and with the settings that are not the defaults."""
    variants = {"odd": {"algorithm": "impala", "training": {"hidden": [32, 32], "learning_rate": 1e-4, "epochs": 2}}}
    for spec in make(algorithms=["ppo", "odd"], variants=variants).runs():
        flags = dict(zip(spec.command[2::2], spec.command[3::2], strict=True))
        words = [value for flag, value in zip(spec.command[2::2], spec.command[3::2], strict=True) if flag == "--set"]
        given = {flag[2:].replace("-", "_"): value for flag, value in flags.items() if flag != "--set"}
        counts = ("lag", "seed", "steps", "eval_points", "eval_episodes")
        settings = given | {name: int(given[name]) for name in counts} | dict(map(parse_assignment, words))
        assert build(settings).run_id == spec.config.run_id


def test_the_plan_is_what_the_reporting_code_reads(make: Any, tmp_path: Path, capsys: Any) -> None:
    tier = make()
    plan = read_plan(tier.plan())
    assert {plan.runs[cell.path] for cell in plan.cells()} == {str(spec.config.run_id) for spec in tier.runs()}
    assert (plan.tier, plan.steps, plan.points) == ("t", 40960, 5)
    assert main([str(tmp_path / "t.yaml")]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(tier.plan())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"enviroments": ["A"]}, r"unknown key 'enviroments' at the top level: did you mean 'environments'\?"),
        (
            {"evaluation": {"points": 5, "episode": 2, "episodes": 2}},
            r"unknown key 'episode' in 'evaluation'.*'episodes'",
        ),
        ({"seeds": ..., "seed": [0]}, r"unknown key 'seed' at the top level: did you mean 'seeds'\?"),
        ({"evaluation": [5, 2]}, r"'evaluation' is \[5, 2\]: expected keys and values"),
        ({"studies": {"s": {"seeds": None}}}, r"'studies\.s\.seeds' is null: expected a list"),
        ({"training": {"epochs": 10**400}}, "in the settings of 'ppo': epochs is a number too large"),
        ({"seeds": ...}, "the key 'seeds' is missing at the top level"),
        ({"seeds": []}, "expected a list of at least 1"),
        ({"seeds": [0, 0]}, "listed once only"),
        ({"environments": ["Hoper-v5"]}, "there is no task 'Hoper-v5': did you mean 'Hopper-v5'"),
        ({"studies": {"s": {"environments": ["Ant-v4"]}}}, "there is no task 'Ant-v4': did you mean 'Ant-v5'"),
        ({"environments": ["Pendulum"]}, "'Pendulum' names no environment: write a Gymnasium task with its version"),
        ({"environments": ["../Corner-v0"]}, "'../Corner-v0' names no environment"),
        ({"training": {"time_limit": 100}}, "'time_limit' changes the task itself"),
        ({"training": {"wrappers": ["ClipAction"]}}, "'wrappers' changes the task itself"),
        ({"steps": 40960.0}, "'steps' is 40960.0: expected a whole number without"),
        ({"seeds": [0.0]}, r"'seeds\[0\]' is 0.0: expected a whole number without"),
        ({"capacities": [True]}, "expected a whole number"),
        ({"variants": {"x": {"algorithm": "nonsense", "training": {"epoch": 3}}}}, "no grid lists the variant 'x'"),
        ({"steps": "1e6"}, "'steps' is \"1e6\": expected a whole number"),
        ({"capacities": [0]}, "expected at least 1"),
        ({"algorithms": ["ppo", "vacoo"]}, "there is no algorithm 'vacoo': did you mean 'vaco'"),
        ({"training": {"epoch": 3}}, "there is no setting 'epoch': did you mean 'epochs'"),
        ({"training": {"epochs": 0}}, "epochs is 0, but it must be at least 1"),
        ({"training": {"lag": 3}}, "'lag' is no training setting"),
        ({"training": {"eval_points": 3}}, "'eval_points' is no training setting"),
        ({"reference": {"episodes": 1, "seed": 0}}, "expected at least 2"),
        ({"overrides": {"spo": {"epochs": 1}}}, "'overrides' speaks of 'spo', which no grid"),
        ({"variants": {"ppo": {"algorithm": "ppo", "training": {}}}}, "named like an algorithm"),
        ({"variants": {"a/b": {"algorithm": "ppo", "training": {}}}}, "part of a path"),
        (
            {"variants": {"x": {"algorithm": "ppo", "training": {}, "epochs": 3}}},
            r"unknown key 'epochs' in 'variants\.x'",
        ),
        ({"studies": {"s": {"seed": [0]}}}, r"unknown key 'seed' in 'studies\.s': did you mean 'seeds'"),
        ({"studies": {"main": {}}}, "may not be called 'main'"),
        ({"sweeps": {"x": SWEEP}}, "no grid lists the sweep 'x'"),
        ({"algorithms": ["x"], "sweeps": {"x": SWEEP | {"values": [0.1]}}}, "expected a list of at least 2"),
        ({"algorithms": ["x"], "sweeps": {"x": SWEEP | {"values": [0.1, 0.1]}}}, "listed once only"),
        ({"algorithms": ["x"], "sweeps": {"x": SWEEP | {"knob": "clap"}}}, "there is no setting 'clap': did you mean"),
        ({"algorithms": ["vaco"], "sweeps": {"vaco": SWEEP}}, "the sweep 'vaco' makes 'vaco', a name in use"),
        (
            {"algorithms": ["x", "x0.1"], "sweeps": {"x": SWEEP, "x0.1": SWEEP}},
            "the sweep 'x0.1' makes 'x0.1', a name in use",
        ),
        (
            {
                "algorithms": ["x", "x0.1"],
                "sweeps": {"x": SWEEP},
                "variants": {"x0.1": {"algorithm": "ppo", "training": {}}},
            },
            "the sweep 'x' makes 'x0.1', a name in use",
        ),
        ({"tier": "other"}, "calls itself 'other', but a tier is named after its file"),
    ],
)
def test_mistakes_are_told_in_one_sentence(make: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        make(**changes)
    assert "\n" not in str(caught.value) and "t.yaml" in str(caught.value)


def test_the_tasks_are_those_of_the_batched_backend_on_either(make: Any) -> None:
    from vaco.control.envs import TASKS

    assert set(TASKS) == BATCHED_TASKS
    assert make(environments=["Ant-v5"], training={"backend": "gymnasium"}).environments == ("Ant-v5",)
    for env in (
        "CartPole-v1",
        "ALE/Pong-v5",
        "my_package:MyTask-v0",
        "my_package.tasks:make",
        "dm_control/hopper-hop-v0",
    ):
        (task,) = make(environments=[env], algorithms=["ppo"], capacities=[1], seeds=[0]).runs()
        assert task.config.backend == "gymnasium" and task.config.place.count("/") == 4
        assert task.command[:4] == ["vaco", "train", "--env", env]


def test_an_unknown_tier_names_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFIG.parent)
    with pytest.raises(UserError, match=r"no tier 'smokey'.*did you mean 'smoke'"):
        load_tier("smokey")
    known = "asynchrony, centres, desk, longer, paper, readings, smoke, tuned, tuning, wall_clock"
    with pytest.raises(UserError, match=f"valid names are {known}$"):
        load_tier("zzz")
    with pytest.raises(UserError, match="no tier file"):
        load_tier("elsewhere/smoke.yaml")
    assert load_tier("smoke").name == "smoke"


def test_broken_yaml_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("tier: t\nseeds: [0, 1\nsteps: 3\n")
    with pytest.raises(UserError, match=r"not valid YAML near line \d"):
        load_tier(tmp_path / "t.yaml")


@pytest.mark.parametrize("value", ["2024-99-99", "!!int x", "!!bool x", "!!timestamp x"])
def test_values_that_yaml_cannot_make_are_one_sentence(value: str, tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(f"tier: {value}\n")
    with pytest.raises(UserError, match="is not valid YAML near line 1"):
        load_tier(tmp_path / "t.yaml")


def test_a_key_given_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(BASE) + "steps: 81920\n")
    with pytest.raises(UserError, match=r"t\.yaml: the key 'steps' is given twice, in lines \d+ and \d+: keep one"):
        load_tier(tmp_path / "t.yaml")


def test_the_workflow_s_configuration_has_its_defaults() -> None:
    given = yaml.safe_load((CONFIG / "config.yaml").read_text())
    config = check({"tier": "desk"}, WorkflowConfig, "config.yaml").model_dump()
    assert config == check(given, WorkflowConfig, "config.yaml").model_dump() == given
    wrong = {"tier": "desk", "bootstrap": {"repetitions": 5}}
    with pytest.raises(UserError, match=r"config\.yaml: 'bootstrap\.repetitions' is 5: expected at least 100"):
        check(wrong, WorkflowConfig, "config.yaml")


def test_a_run_outside_the_tier_is_refused(make: Any) -> None:
    with pytest.raises(UserError, match="the tier 't' has no run Hopper-v5/ppo/lag2/seed0"):
        make().find("Hopper-v5", "ppo", "2", "0")


def test_a_setting_that_an_algorithm_of_the_tier_does_not_read_is_refused(make: Any) -> None:
    variants = {"odd": {"algorithm": "ppo", "training": {"delta": 0.4}}}
    with pytest.raises(UserError, match=r"in the settings of 'odd': delta is 0.4, but 'ppo' does not read it"):
        make(algorithms=["odd"], variants=variants)
    with pytest.raises(UserError, match=r"in the settings of 'ppo': delta is 0.4, but 'ppo' does not read it"):
        make(algorithms=["vaco", "ppo"], training={"delta": 0.4})
    assert make(algorithms=["vaco", "ppo"], overrides={"vaco": {"delta": 0.4}}).methods["vaco"].settings
