"""Environments in several processes: the same bits as in one, the same mistakes, and no process left behind."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vaco import cli
from vaco.control.envs import EnvSpec, VectorEnv, make_vector_env
from vaco.control.train import begin, train
from vaco.errors import UserError
from vaco.runs.config import build
from vaco.runs.tables import read_parquet

OWN = "own_environments"
SMALL = {"num_envs": 5, "phase_steps": 24, "minibatch": 60, "steps": 240, "eval_points": 1, "eval_episodes": 2}


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def assert_same(left: VectorEnv, right: VectorEnv, steps: int, seed: int = 1) -> tuple[int, int]:
    """Step both with random actions; how many episodes ended, and how many slots were dead."""
    generator = np.random.default_rng(seed)
    ended = dead = 0
    for _ in range(steps):
        actions = left.random_actions(generator)
        one, other = left.step(actions), right.step(actions)
        for name, value in one._asdict().items():
            np.testing.assert_array_equal(value, getattr(other, name), err_msg=name)
        ended, dead = ended + int((one.terminated | one.truncated).sum()), dead + int(one.dead.sum())
    return ended, dead


@pytest.mark.parametrize("backend", ["batched", "gymnasium"])
def test_the_bits_are_those_of_one_process_and_so_is_the_saved_state(backend: str) -> None:
    spec = EnvSpec("Hopper-v5")
    one = make_vector_env(spec, num_envs=5, backend=backend)
    several = make_vector_env(spec, num_envs=5, backend=backend, processes=2)
    np.testing.assert_array_equal(one.reset(3), several.reset(3))
    ended, dead = assert_same(one, several, 150)
    assert ended > 10 and dead > 10 and several.backend == backend
    np.testing.assert_array_equal(one.simulator_state(), several.simulator_state())
    states = one.state(), several.state()
    assert states[0].keys() == states[1].keys()
    for name, array in states[0].items():
        np.testing.assert_array_equal(array, states[1][name], err_msg=name)
    again = make_vector_env(spec, num_envs=5, backend=backend, processes=3)
    np.testing.assert_array_equal(again.set_state(states[0]), states[0]["observations"])
    assert_same(one, again, 60)
    several.close()
    again.close()


def test_nested_spaces_and_discrete_actions_pass_through_shared_memory() -> None:
    for spec in (EnvSpec(f"{OWN}:Corridor", {"goal": 0.2}), EnvSpec(f"{OWN}:Choice")):
        one, several = make_vector_env(spec, num_envs=4), make_vector_env(spec, num_envs=4, processes=8)
        np.testing.assert_array_equal(one.reset(0), several.reset(0))
        assert assert_same(one, several, 45)[0] >= 8
        several.close()


def test_a_run_is_the_same_run(tmp_path: Path) -> None:
    tiny = [f"--set={name}={value}" for name, value in SMALL.items()]
    for name, more in (("one", []), ("two", ["--env-processes", "2"])):
        words = ["train", "--env", f"{OWN}:Choice", "--lag=2", "--quiet", f"--out={tmp_path / name}", *tiny, *more]
        assert cli.run(words) == 0
    manifests = [json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("one", "two")]
    assert (
        manifests[0]["config"] == manifests[1]["config"] and manifests[0]["config_hash"] == manifests[1]["config_hash"]
    )
    assert (tmp_path / "one/policy.safetensors").read_bytes() == (tmp_path / "two/policy.safetensors").read_bytes()
    for table in ("phases.parquet", "evals.parquet"):
        left, right = (read_parquet(tmp_path / name / table) for name in ("one", "two"))
        for column in left:
            assert column.endswith("seconds") or np.array_equal(left[column], right[column], equal_nan=True), column


@pytest.mark.parametrize(("broken", "sentence"), [("pushed", "of actor 3 returned an obs"), ("shape", "of shape .4,")])
def test_a_mistake_of_the_environment_is_told_as_in_one_process(broken: str, sentence: str) -> None:
    env = make_vector_env(EnvSpec(f"{OWN}:Corridor", {"broken": broken}), num_envs=4, processes=2)
    processes = list(env._processes)  # type: ignore[attr-defined]
    env.reset(0)
    with pytest.raises(UserError, match=sentence):
        for _ in range(4):
            env.step([[0.0], [0.0], [0.0], [1.0]])
    env.close()
    assert all(process.exitcode == 0 for process in processes)


def test_a_process_that_was_killed_ends_the_run_in_a_sentence(tmp_path: Path) -> None:
    def start(config: Any, say: Any) -> Any:
        run = begin(config, say, 2)
        processes.extend(run.eval_env._processes)  # type: ignore[attr-defined]
        os.kill(processes[1].pid, signal.SIGKILL)
        time.sleep(0.1)
        return run

    processes: list[Any] = []
    with pytest.raises(UserError, match=r"process 2 of 2 that step CartPole-v1 has ended .code -9."):
        train(build(SMALL | {"env": "CartPole-v1"}), tmp_path / "run", quiet=True, begin=start)
    assert processes[0].exitcode == 0


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--env-processes", "0"], "env-processes is 0, but at least 1"),
        (["--env-processes", "2", "--actors", "1"], "environments are its actors'"),
    ],
)
def test_what_makes_no_sense_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], sentence: str
) -> None:
    assert cli.run(["train", "--env", "CartPole-v1", "--quiet", "--out", str(tmp_path / "run"), *more]) == 2
    assert sentence in capsys.readouterr().err and not (tmp_path / "run").exists()
