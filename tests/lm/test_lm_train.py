from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from lm_helpers import SIZE, small_config

import vaco.lm.run as running
from vaco.errors import UserError
from vaco.lm import rounds, state
from vaco.lm.config import LMConfig, build_lm
from vaco.lm.run import Run
from vaco.lm.task import Problem, Task
from vaco.lm.train import evaluate_if_due, evaluation_grid, train
from vaco.lm.warm import with_flaws
from vaco.lm.weights import parameters
from vaco.runs import checkpoint

CLOCKS = ["wall_seconds", "generate_seconds", "recompute_seconds", "update_seconds"]


def tables(folder: Path) -> list[pd.DataFrame]:
    found = [pd.read_parquet(folder / name) for name in ("phases.parquet", "evals.parquet")]
    return [table.drop(columns=CLOCKS, errors="ignore").sort_index(axis=1) for table in found]


def same(first: Path, second: Path) -> bool:
    equal = all(a.equals(b) for a, b in zip(tables(first), tables(second), strict=True))
    policies = [checkpoint.read(folder / "policy.safetensors")[0] for folder in (first, second)]
    return equal and all(np.array_equal(policies[0][name], policies[1][name]) for name in policies[0])


class Parity:
    """Rewards responses of even length: an untrained model gets some right, which sums would not give it."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def verify(self, response: str, problem: Problem) -> float:
        return float(len(response) % 2 == 0)


@pytest.fixture
def rewarded(monkeypatch: pytest.MonkeyPatch) -> None:
    made = running.make_task
    monkeypatch.setattr(running, "make_task", lambda *given: Parity(made(*given)))


VARIANTS = [
    {"algorithm": "vaco", "minibatches": 4, "lag": 1},
    {"algorithm": "decoupled", "minibatches": 8, "lag": 3, "proximal_updates": 2},
    {"algorithm": "a3po", "minibatches": 2, "lag": 2},
    {"algorithm": "tba", "minibatches": 4, "lag": 1},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=lambda c: c["algorithm"])
def test_the_same_command_gives_the_same_bits_and_so_does_a_run_that_was_stopped(
    changes: dict[str, object], tmp_path: Path, rewarded: None
) -> None:
    config = small_config(**changes)
    train(config, tmp_path / "whole", quiet=True)
    train(config, tmp_path / "again", quiet=True)
    assert same(tmp_path / "whole", tmp_path / "again")
    # Stopped after every third update, with everything carried through the bytes of a checkpoint.
    run = Run(config)
    while run.update < config.updates:
        evaluate_if_due(run)
        rounds.advance(run)
        if run.update % 3 == 0:
            packed = checkpoint.pack(state.arrays(run), state.facts(run))
            run = Run(config)
            arrays, meta = checkpoint.unpack(packed)
            state.restore(run, meta, arrays)
    evaluate_if_due(run)
    final = checkpoint.read(tmp_path / "whole" / "policy.safetensors")[0]
    assert all(np.array_equal(final[name], value) for name, value in parameters(run.model).items())
    expected = tables(tmp_path / "whole")
    for rows, table in ((run.rows, expected[0]), (run.evals, expected[1])):
        found = pd.DataFrame(state.columns(rows)).drop(columns=CLOCKS, errors="ignore")
        assert found.sort_index(axis=1).equals(table)


@pytest.mark.slow
def test_a_killed_process_ends_with_the_same_bits(tmp_path: Path) -> None:
    """SIGKILL the real command a little after it has saved something; the same command ends as if nothing had been."""
    settings = tmp_path / "settings.yaml"
    config = small_config(algorithm="a3po", minibatches=2, lag=2, updates=24, warm_target=0.1, warm_least=20)
    settings.write_text(yaml.safe_dump(config.resolved()))

    def command(folder: Path) -> list[str]:
        flags = ["--config", str(settings), "--out", str(folder), "--checkpoint-seconds", "0", "--quiet"]
        return [sys.executable, "-m", "vaco", "lm", "train", *flags]

    out = tmp_path / "killed"
    process = subprocess.Popen(command(out), stderr=subprocess.DEVNULL)
    while process.poll() is None and not list((out / "checkpoints").glob("checkpoint-*[0-9].safetensors")):
        time.sleep(0.005)
    time.sleep(0.1)
    process.kill()
    process.wait()
    assert not (out / "manifest.json").exists(), "the run must have been interrupted"
    assert list((out / "checkpoints").glob("checkpoint-*[0-9].safetensors")), "something must have been saved"
    for folder in (out, tmp_path / "whole"):
        subprocess.run(command(folder), check=True)
    assert same(tmp_path / "whole", out)


def test_a_round_abandoned_leaves_the_run_as_it_was(rewarded: None) -> None:
    config = small_config(minibatches=2, lag=2)
    plain, disturbed = Run(config), Run(config)
    with pytest.raises(rounds.Abandoned):
        rounds.advance(disturbed, lambda: True)
    rows = [[rounds.advance(run) for _ in range(4)] for run in (plain, disturbed)]
    for a, b in zip(*rows, strict=True):
        assert {k: v for k, v in a.items() if k not in CLOCKS} == {k: v for k, v in b.items() if k not in CLOCKS}


def test_what_a_run_leaves(tmp_path: Path, rewarded: None) -> None:
    config = small_config(minibatches=4)
    train(config, tmp_path / "run", quiet=True)
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        *("evals.parquet", "manifest.json", "phases.parquet", "policy.safetensors")
    ]
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["config"] == config.resolved() and manifest["completed_steps"] == 8
    problems = {problem.prompt for problem in Run(config).eval_set}
    assert manifest["distinct_eval_problems"] == len(problems) < config.eval_problems
    assert manifest["identity"]["minibatches"] == 4 and manifest["versions"]["transformers"]
    steps, evals = (pd.read_parquet(tmp_path / "run" / name) for name in ("phases.parquet", "evals.parquet"))
    assert steps["update"].tolist() == list(range(1, 9)) and steps["round"].tolist() == [0] * 4 + [1] * 4
    assert evals["update"].tolist() == [0, 4, 8] == evaluation_grid(config)
    # The first step of a round is on-policy, and staleness counts the steps since.
    assert steps["staleness"].tolist() == [0, 1, 2, 3] * 2
    assert (steps["total_lag"][steps["place"] == 0] < 1e-6).all() and (
        steps["total_lag"][steps["place"] == 3] > 0
    ).all()
    said: list[str] = []
    train(config, tmp_path / "run", quiet=True, say=said.append)
    assert "nothing to do" in said[0]
    with pytest.raises(UserError, match="minibatches is 4 there and 2 here"):
        train(small_config(minibatches=2), tmp_path / "run", quiet=True)


def test_older_policies_generate_where_the_buffer_holds_them() -> None:
    run = Run(small_config(minibatches=2, lag=3, updates=12, prompts=8))
    ages = set()
    for _ in range(12):
        rounds.advance(run)
        assert run.round is not None
        ages |= set((run.update - 1 - (run.update - 1) % 2 - run.round.versions).tolist())
    assert ages == {0, 2, 4}  # updates; a round is two of them


def test_minibatches_share_a_round_out_in_whole_groups() -> None:
    config = small_config(minibatches=4)
    run = Run(config)
    rounds.advance(run)
    assert run.round is not None
    rows = [rounds.rows_of(run.round, place, place + 1, config).tolist() for place in range(4)]
    assert sorted(row for part in rows for row in part) == list(range(64))
    for part in rows:
        groups = [row // 4 for row in part]
        assert groups == sorted(groups, key=groups.index) and all(groups.count(g) == 4 for g in groups)


def test_a_full_gpu_is_one_sentence(tmp_path: Path, rewarded: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    monkeypatch.setattr(running.Learner, "step", full)
    with pytest.raises(UserError, match=r"memory was full after update 0: lower tokens_at_once \(now 16,384\)"):
        train(small_config(), tmp_path / "run", quiet=True)


def test_half_precision_trains_from_data_close_to_on_policy(rewarded: None) -> None:
    run = Run(small_config(precision="bfloat16", minibatches=2))
    before = parameters(run.model)
    first, second = rounds.advance(run), rounds.advance(run)
    # bfloat16 rounds generation and training differently, but by far less than a threshold.
    assert first["total_lag"] < 0.02 and first["ess"] > 0.99 and second["forward_lag"] > first["forward_lag"]
    after = parameters(run.model)
    assert all(value.dtype == np.float32 for value in after.values())
    assert all((before[name] != after[name]).mean() > 0.5 for name in after)


def test_decoupled_ppo_evaluates_its_proximal_policy_every_few_updates(rewarded: None) -> None:
    run = Run(small_config(algorithm="decoupled", minibatches=8, proximal_updates=2, learning_rate=5e-3))
    lags = [rounds.advance(run)["forward_lag"] for _ in range(8)]
    # Measured against the proximal policy: none where it was evaluated just before.
    assert max(lags[0::2]) < 1e-6 < min(lags[1::2])


def test_flaws_add_up_and_reach_the_answer() -> None:
    certain, never = (with_flaws("46,41#41", p, np.random.default_rng(0)) for p in (1.0, 0.0))
    assert certain == "47,43#43" and never == "46,41#41"
    assert with_flaws("-3#-3", 1.0, np.random.default_rng(0)) == "-2#-2"
    generator = np.random.default_rng(1)
    drawn = [with_flaws("5#5", 0.4, generator) for _ in range(2000)]
    assert set(drawn) == {"5#5", "6#6"} and drawn.count("6#6") / 2000 == pytest.approx(0.4, abs=0.05)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"minibatches": 3}, "does not divide the 8 updates"),
        ({"algorithm": "pppo"}, "did you mean 'ppo'"),
        ({"samples": 1}, "at least 2"),
        ({"eval_points": 9}, "more than the 8 updates"),
        ({"task_options": "["}, "task_options is not valid YAML"),
        ({"task_options": "7"}, "must be a mapping"),
        ({"level": "sequence", "algorithm": "tba"}, "has no ratio"),
        ({"level": "sequence", "algorithm": "dppo"}, "could ever mask it"),
        ({"level": "product", "algorithm": "dppo"}, "could ever mask it"),
        ({"level": "sequence", "denominator": "constant"}, "takes the mean over responses"),
        ({"warm_flaw": 0.1, "task": "gsm8k", "task_options": "{}"}, "only worked solutions of chain_sum"),
        ({"advantage": "grp"}, "did you mean 'grpo'"),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(changes: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        small_config(**changes)


@pytest.mark.slow
def test_a_toy_task_is_learned(tmp_path: Path) -> None:
    """From at most 40 % to at least 90 % of right answers, on sums that a flawed teacher taught.

    Where the warm start stops depends on how the processor rounds, and the first four updates are 128 problems, a
    standard error of 0.04: on one machine they had less than 0.30, on another 0.305.
    """
    config = build_lm(
        {
            "task_options": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
            "model_options": {"hidden": 64, "layers": 1, "heads": 2, "intermediate": 128},
            "new_tokens": 8,
            "warm_target": 0.2,
            "warm_least": 1000,
            "warm_batch": 64,
            "warm_flaw": 0.75,
            "warm_learning_rate": 0.003,
            "updates": 400,
            "prompts": 32,
            "learning_rate": 0.0005,
            "eval_points": 4,
            "algorithm": "vaco",
            "minibatches": 4,
        }
    )
    train(config, tmp_path / "run", quiet=True)
    reward = pd.read_parquet(tmp_path / "run" / "phases.parquet")["reward"]
    assert reward.iloc[:4].mean() <= 0.4 and reward.iloc[-20:].mean() >= 0.9
    accuracy = pd.read_parquet(tmp_path / "run" / "evals.parquet")["accuracy"]
    assert accuracy.iloc[-1] >= accuracy.iloc[0] + 0.25  # on problems it has never seen


def test_a_warm_start_of_other_settings_is_refused(tmp_path: Path) -> None:
    from vaco.lm.model import load_model
    from vaco.lm.warm import load_warm_start, save_warm_start

    config, loaded = LMConfig(), load_model("tiny", size=SIZE)
    save_warm_start(tmp_path / "w.safetensors", config, loaded, {"warm_accuracy": 0.5})
    assert load_warm_start(tmp_path / "w.safetensors", config, loaded) == {"warm_accuracy": 0.5}
    with pytest.raises(UserError, match="other settings"):
        load_warm_start(tmp_path / "w.safetensors", small_config(warm_target=0.7), loaded)
