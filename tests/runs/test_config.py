"""The configuration: its defaults, its identity, and one sentence for every value that cannot work."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from vaco.errors import UserError
from vaco.objectives.filters import FILTERS
from vaco.runs.config import (
    RunConfig,
    build,
    meanings,
    parse_assignment,
    parse_assignments,
    read_settings,
)
from vaco.runs.reads import require_read


def test_the_defaults_are_those_of_the_issue() -> None:
    config = RunConfig()
    assert (config.num_envs, config.phase_steps, config.epochs, config.minibatch) == (16, 128, 10, 512)
    assert (config.learning_rate, config.learning_rate_decay, config.discount, config.trace_decay) == (
        *(3e-4, True, 0.99, 0.95),
    )
    assert (config.hidden, config.max_grad_norm) == ((64, 64), 0.5)
    assert config.normalise_observations and config.normalise_rewards
    assert (config.delta, config.clip) == (0.2, 0.2)
    assert (config.batch, config.phases) == (2048, 488)


def test_every_setting_is_explained_for_table_1() -> None:
    assert set(meanings()) == {field.name for field in dataclasses.fields(RunConfig)}
    assert all(meanings().values())


def test_the_hash_is_stable_and_blind_to_spelling() -> None:
    assert build({"learning_rate": "3e-4", "steps": 1e6}).hash == RunConfig().hash
    assert build({"steps": "1e6", "seed": "0"}).hash == RunConfig().hash  # YAML takes 1e6 for a word
    assert build({"seed": "9007199254740993"}).seed == 2**53 + 1
    assert len(RunConfig().hash) == 16
    assert RunConfig().hash == "c0441d87979312e1"


def test_the_place_of_a_run_is_its_words_and_its_identity() -> None:
    config = build({"algorithm": "ppo", "lag": 4, "seed": 2})
    assert config.place == f"HalfCheetah-v5/none+clip/lag4/seed2/{config.hash}-v1"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lag": 0}, "lag is 0, but it must be at least 1"),
        ({"steps": -5}, "steps is -5, but it must be at least 1"),
        ({"steps": 2047}, "one phase alone takes 16 x 128 = 2048"),
        ({"delta": 0}, "delta is 0.0, but it must exceed 0"),
        ({"delta": -0.1}, "delta is -0.1, but it must exceed 0"),
        ({"delta": math.nan}, "delta is nan, but it must be a finite number"),
        ({"learning_rate": math.inf}, "learning_rate is inf, but it must be a finite number"),
        ({"steps": math.nan}, "steps is nan, but it must be a whole number"),
        ({"minibatch": 4096}, "minibatch is 4096, larger than the batch of 2048"),
        ({"minibatch": 500}, "does not divide the batch of 2048"),
        ({"discount": 1.5}, "discount is 1.5, but it must be at most 1"),
        ({"c_bar": 2.0}, "V-trace contracts only for c_bar <= rho_bar"),
        ({"hidden": []}, "hidden is [], but it must list widths"),
        ({"hidden": "64"}, "hidden is '64', but it must be a list"),
        ({"epochs": 2.5}, "epochs is 2.5, but it must be a whole number"),
        ({"epochs": "25e-1"}, "epochs is '25e-1', but it must be a whole number"),
        ({"epochs": "1e999"}, "epochs is '1e999', but it must be a whole number"),
        ({"epochs": "many"}, "epochs is 'many', but it must be a whole number"),
        ({"epochs": 10**400}, "epochs is a number too large for any run"),
        ({"hidden": [64, 1.5]}, "hidden[1] is 1.5, but it must be a whole number such as 64"),
        ({"backend": 3}, "backend is 3, but it must be a word such as 'auto'"),
        ({3: 4}, "there is no setting '3'"),
        ({"lag": 0, "epoch": 3}, "there is no setting 'epoch': did you mean 'epochs'?"),
        ({"epochs": True}, "epochs is True, but it must be a whole number"),
        ({"learning_rate_decay": 1}, "learning_rate_decay is 1, but it must be true or false"),
        ({"backend": "batchd"}, "backend is 'batchd': did you mean 'batched'?"),
        ({"algorithm": "vacco"}, "there is no algorithm 'vacco': did you mean 'vaco'?"),
        ({"algorithm": "once+tvv"}, "there is no filter 'tvv' in 'once+tvv': did you mean 'tv'?"),
        ({"algorithm": "onse+tv"}, "there is no alignment 'onse' in 'onse+tv': did you mean 'once'?"),
        ({"epoch": 3}, "there is no setting 'epoch': did you mean 'epochs'?"),
        ({"ratio_cap": -1}, "ratio_cap is -1.0, but it must be at least 0"),
        ({"ratio_cap": math.inf}, "ratio_cap is inf, but it must be a finite number"),
        ({"algorithm": "impala", "ratio_cap": 2}, "'impala' has no weight that it would truncate: leave it at 0"),
        ({"algorithm": "spo", "ratio_cap": 2}, "'spo' has no weight that it would truncate: leave it at 0"),
        ({"normaliser_start": "random", "normalise_observations": False}, "observations are not normalised"),
        ({"normaliser_start": "randm"}, "normaliser_start is 'randm': did you mean 'random'?"),
        ({"algorithm": "impala", "minibatches": "transitions"}, "needs whole trajectories: use 'auto'"),
        ({"algorithm": "impala", "minibatch": 64}, "need a multiple of phase_steps = 128"),
    ],
)
def test_bad_values_are_refused_in_one_sentence(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        build(settings)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_assignments_from_the_command_line() -> None:
    assert parse_assignment("epochs=3") == ("epochs", 3)
    assert build(dict([parse_assignment("steps=1e4")])).steps == 10_000
    assert parse_assignment("hidden=[32, 32]") == ("hidden", [32, 32])
    assert parse_assignment("learning_rate_decay=false") == ("learning_rate_decay", False)
    for wrong in ("epochs", "=3", "epochs=[1"):
        with pytest.raises(UserError):
            parse_assignment(wrong)


@pytest.mark.parametrize("content", ["- a list", "text", "a: [1", "\x00", "!!python/object/apply:os.system ['true']"])
def test_unreadable_files_are_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text(content)
    with pytest.raises(UserError, match=r"settings\.yaml"):
        read_settings(tmp_path / "settings.yaml")


def test_a_key_given_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("epochs: 3\nclip: 0.1\n'epochs': 4\n")
    with pytest.raises(UserError, match=r"settings\.yaml: the key 'epochs' is given twice, in lines 1 and 3: keep one"):
        read_settings(path)
    for text in ("{1: a, 0x1: b}", "{true: a, True: b}", "{<<: {a: 1}, <<: {b: 2}}", "a: {b: {c: 1, c: 2}}"):
        path.write_text(text)
        with pytest.raises(UserError, match="is given twice, in lines 1 and 1"):
            read_settings(path)
    path.write_text("defaults: &given {epochs: 3, clip: 0.1}\nown: {<<: *given, epochs: 4}\n")
    assert read_settings(path)["own"] == {"epochs": 4, "clip": 0.1}


def test_a_setting_given_twice_on_a_command_line_is_refused() -> None:
    assert parse_assignments(["epochs=3", "clip=0.1"], {"env": "Ant-v5", "seed": None, "lag": 0}) == {
        "env": "Ant-v5",
        "lag": 0,
        "epochs": 3,
        "clip": 0.1,
    }
    with pytest.raises(UserError, match="epochs is given twice, as '--set epochs=' and as '--set epochs=3'"):
        parse_assignments(["epochs=3", "epochs=3"], {})
    with pytest.raises(UserError, match="eval_points is given twice, as '--eval-points' and as '--set eval_points=2'"):
        parse_assignments(["eval_points=2"], {"eval_points": 1})


@pytest.mark.parametrize("content", [b"env: \xff", b"env: 2024-99-99", b"env: &x [*x]", b"env: " + b"[" * 9999])
def test_what_yaml_cannot_make_is_one_sentence(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"settings\.yaml is not valid YAML") as caught:
        read_settings(tmp_path / "settings.yaml")
    assert "\n" not in str(caught.value)


def test_settings_are_values_that_stay_checked() -> None:
    config = RunConfig(hidden=(32,), delta=1)
    assert config == build({"hidden": [32], "delta": 1}) and hash(config) == hash(build(config.resolved()))
    assert dataclasses.replace(config, lag=4).lag == 4 and type(config.delta) is float
    with pytest.raises(UserError, match="lag is 0"):
        dataclasses.replace(config, lag=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.lag = 2  # type: ignore[misc]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_settings(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("algorithm", "settings", "words"),
    [
        ("vaco", {"clip": 0.3}, "clip is 0.3, but 'vaco' does not read it"),
        ("ppo", {"delta": 1}, "delta is 1.0, but 'ppo' does not read it"),
        ("ppo", {"trigger": "phase"}, "trigger is phase, but 'ppo' does not read it"),
        ("vaco", {"truncation": 2}, "truncation is 2.0"),
        ("once+truncated", {"truncation": 2}, ""),
        ("ppo", {"rho_bar": 2}, "rho_bar is 2.0"),
        ("ppo", {"c_bar": 0.5}, "c_bar is 0.5"),
        ("vaco", {"rho_bar": 2, "c_bar": 2, "delta": 1, "trigger": "phase"}, ""),
        ("spo", {"clip": 0.3}, ""),
        ("vaco", {"kl_coefficient": 2}, "kl_coefficient is 2.0"),
        ("vaco", {"kl_adaptive": False}, "kl_adaptive is False"),
        ("ppo_kl", {"kl_adaptive": False, "kl_target": 1}, "kl_target is 1.0, but 'ppo_kl' without kl_adaptive does"),
        ("ppo_kl", {"kl_coefficient": 2, "kl_target": 1}, ""),
        (
            "vaco",
            {"observation_clip": 3, "normalise_observations": False},
            "observation_clip is 3.0, but a run without",
        ),
        ("vaco", {"reward_clip": 3, "normalise_rewards": False}, "reward_clip is 3.0, but a run without"),
        ("vaco", {"reward_clip": 3, "observation_clip": 3, "clip": 0.2}, ""),
    ],
)
def test_what_a_run_would_ignore_is_refused(algorithm: str, settings: dict[str, Any], words: str) -> None:
    config = build({"algorithm": algorithm, **settings})
    if not words:
        require_read(config)
        return
    with pytest.raises(UserError, match=words):
        require_read(config)


def test_a_filter_from_elsewhere_that_does_not_say_what_it_reads_is_not_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(FILTERS, "own", dataclasses.replace(FILTERS["clip"], name="own", reads=None))
    require_read(build({"algorithm": "once+own", "clip": 0.1, "delta": 0.1, "truncation": 2}))


def test_a_schedule_is_part_of_what_a_run_is() -> None:
    plain = build({"lag": 16})
    assert plain == build({"lag": "16"}) == build({"lag": "uniform:16"}) == build({"schedule": "uniform:16"})
    assert plain.place.split("/")[2] == "lag16" and plain.hash == "222f6d08adbea85a"
    queue = build({"lag": "fifo:8"})
    assert (queue.lag, queue.schedule, queue.place.split("/")[2]) == (9, "fifo:8", "fifo-8")
    assert build(queue.resolved()) == queue == build({"schedule": "fifo:08"})
    assert build({"lag": "9", "schedule": "fifo:8"}) == queue  # as the workflow writes it
    assert queue.hash not in (plain.hash, build({"lag": 9}).hash)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lag": 3, "schedule": "fifo:8"}, "lag is 3, but the schedule fifo:8 holds 9 policies: leave lag out"),
        ({"lag": "uniform:4", "schedule": "fifo:8"}, "the schedule is given twice"),
        ({"lag": "lifo:8"}, "the lag is 'lifo:8', but it must be a whole number K or one of uniform:K, fifo:AGE"),
        ({"schedule": 3}, "schedule is 3, but it must be a word"),
    ],
)
def test_schedules_that_make_no_sense_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        build(settings)
    assert words in str(caught.value) and "\n" not in str(caught.value)
