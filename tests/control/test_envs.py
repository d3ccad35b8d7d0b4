"""The batched backend is held to Gymnasium's own environments, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from vaco.control.envs import BACKENDS, TASKS, EnvSpec, VectorEnv, VectorStep, make_vector_env
from vaco.control.envs.base import decode_generators, encode_generators
from vaco.control.envs.batched import BatchedVectorEnv
from vaco.errors import UserError

TASK_IDS = sorted(TASKS)
NEVER_TERMINATED = {"HalfCheetah-v5", "HumanoidStandup-v5", "Pusher-v5", "Reacher-v5", "Swimmer-v5"}
LIMITS = {"Reacher-v5": 50, "Pusher-v5": 100}
"""Time limits other than 1000 steps."""
EXACT = ("observations", "terminated", "truncated", "dead")


def random_actions(env: VectorEnv, steps: int, seed: int) -> np.ndarray:
    """Actions [steps, E, A] of which about a quarter lie outside the bounds."""
    uniform = np.random.default_rng(seed).uniform(-1.3, 1.3, (steps, env.num_envs, env.action_size))
    return uniform * env.action_high


def assert_same_step(left: VectorStep, right: VectorStep, *, rewards: float) -> None:
    for name in EXACT:
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name)
    np.testing.assert_allclose(left.rewards, right.rewards, rtol=0, atol=rewards)


def age(envs: list[VectorEnv], elapsed: list[int]) -> None:
    """Pretend that the episodes have already lasted so many steps, to reach time limits soon."""
    for env in envs:
        env.set_state({**env.state(), "elapsed": np.array(elapsed, dtype=np.int64)})


@pytest.fixture
def make() -> Iterator[Any]:
    """`make_vector_env`, closing what it made."""
    made: list[VectorEnv] = []

    def make_and_keep(env_id: str, num_envs: int = 2, backend: str = "batched") -> VectorEnv:
        made.append(make_vector_env(env_id, num_envs=num_envs, backend=backend))
        return made[-1]

    yield make_and_keep
    for env in made:
        env.close()


@pytest.mark.parametrize("env_id", TASK_IDS)
def test_both_backends_agree_over_thousands_of_steps(make: Any, env_id: str) -> None:
    batched, reference = make(env_id, 3), make(env_id, 3, "gymnasium")
    np.testing.assert_array_equal(batched.reset(11), reference.reset(11))
    limit = LIMITS.get(env_id, 1000)
    assert batched.max_episode_steps == reference.max_episode_steps == limit
    ended, cut, dead = 0, 0, 0
    for index, actions in enumerate(random_actions(batched, 2200, seed=1)):
        if index % 400 == 300:  # random actions seldom survive 1000 steps; truncation must be met all the same
            age([batched, reference], [limit - 1, limit - 2, limit - 4])
        left, right = batched.step(actions), reference.step(actions)
        assert_same_step(left, right, rewards=1e-12)
        np.testing.assert_array_equal(batched.simulator_state(), reference.simulator_state())
        ended, cut, dead = ended + left.terminated.sum(), cut + left.truncated.sum(), dead + left.dead.sum()
    assert cut >= 6 and dead >= 6
    assert (ended == 0) if env_id in NEVER_TERMINATED else (ended >= 20)


@pytest.mark.parametrize("env_id", TASK_IDS)
def test_both_backends_agree_in_states_that_random_actions_never_reach(
    make: Any, env_id: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Velocities far beyond the clipping limits, heights and angles on either side of every range, divergence."""
    monkeypatch.chdir(tmp_path)  # where a simulation diverges, MuJoCo starts it afresh and writes MUJOCO_LOG.TXT
    batched, reference = make(env_id, 8), make(env_id, 8, "gymnasium")
    batched.reset(0), reference.reset(0)
    width = batched.simulator_state().shape[1]
    generator = np.random.default_rng(2)
    outcomes = []
    for _ in range(12):
        arrays = batched.state()
        # After the time, the vector holds positions and velocities; enough of both to leave the healthy ranges.
        arrays["simulator"][:, 1:width] += 0.1 * generator.standard_normal((8, width - 1))
        arrays["simulator"][:, width // 2 + 1 : width] += 15 * generator.standard_normal((8, width - width // 2 - 1))
        batched.set_state(arrays), reference.set_state(arrays)
        for actions in random_actions(batched, 3, seed=3):
            left, right = batched.step(actions), reference.step(actions)
            for name in EXACT:
                np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name)
            np.testing.assert_allclose(left.rewards, right.rewards, rtol=1e-12, atol=1e-12)
            outcomes.append(left.terminated)
    assert np.any(outcomes) == (env_id not in NEVER_TERMINATED)
    assert not np.all(outcomes)


def test_hopper_ends_when_only_its_speed_is_unhealthy(
    make: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    batched, reference = make("Hopper-v5", 1), make("Hopper-v5", 1, "gymnasium")
    batched.reset(0), reference.reset(0)
    arrays = batched.state()
    arrays["simulator"][0, 12] = 2000.0  # the foot spins; height and torso angle have no time to leave their ranges
    for env in (batched, reference):
        env.set_state(arrays)
        step = env.step(np.zeros((1, 3)))
        assert env.simulator_state()[0, 2] > 0.7 and abs(env.simulator_state()[0, 3]) < 0.2
        assert step.terminated[0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("env_id", ["Ant-v5", "Hopper-v5", "InvertedPendulum-v5"])
def test_a_state_that_is_not_finite_ends_the_episode(env_id: str, bad: float) -> None:
    """MuJoCo starts diverged simulations afresh, so that no sequence of actions reaches these lines."""
    genuine: Any = EnvSpec(env_id).make().unwrapped
    genuine.reset(seed=0)
    task = TASKS[env_id](genuine)
    row = np.concatenate(task.views(genuine.data))
    features = np.stack([row, row])
    features[1, task.coordinates - 1] = bad
    _, terminated = task.outcome(features, np.zeros(2), np.zeros((2, genuine.model.nu)))
    assert terminated.tolist() == [False, True]
    if hasattr(genuine, "is_healthy"):
        genuine.data.qvel[-1] = bad
        assert not genuine.is_healthy
    genuine.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_autoreset_is_gymnasiums_next_step_rule(make: Any, backend: str) -> None:
    ours = make("Hopper-v5", 4, backend)
    theirs = gymnasium.make_vec("Hopper-v5", num_envs=4, vectorization_mode="sync")
    np.testing.assert_array_equal(ours.reset(5), theirs.reset(seed=5)[0])
    done = np.zeros(4, dtype=bool)
    for actions in random_actions(ours, 300, seed=4):
        clipped = np.clip(actions, ours.action_low, ours.action_high)
        left, right = ours.step(actions), theirs.step(clipped)
        assert_same_step(left, VectorStep(*right[:4], done), rewards=1e-12)
        done = right[2] | right[3]
    theirs.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_dead_steps(make: Any, backend: str) -> None:
    """The final observation is the true one, the dead action is ignored, and the stream of resets goes on."""
    env, twin = make("Hopper-v5", 3, backend), make("Hopper-v5", 3, backend)
    plain = gymnasium.make("Hopper-v5")
    env.reset(7), twin.reset(7)
    plain.reset(seed=8)  # environment 1 of 3 has the seed 7 + 1
    deaths = 0
    for actions in random_actions(env, 120, seed=6):
        step = env.step(actions)
        other = actions.copy()
        other[step.dead] = 0.5
        assert_same_step(step, twin.step(other), rewards=0)
        assert not np.any(step.dead & (step.terminated | step.truncated))
        np.testing.assert_array_equal(step.rewards[step.dead], 0.0)
        if step.dead[1]:
            deaths += 1
            np.testing.assert_array_equal(step.observations[1], plain.reset()[0])
        else:
            observation, _, terminated, _, _ = plain.step(np.clip(actions[1], -1, 1))
            np.testing.assert_array_equal(step.observations[1], observation)
            assert terminated == step.terminated[1]
    assert deaths >= 3
    plain.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_dead_slot_is_not_terminated_even_where_every_state_is_unhealthy(make: Any, backend: str) -> None:
    env: Any = make("Hopper-v5", 2, backend)
    if backend == "batched":
        env._task.height_range = (5.0, 6.0)
    else:
        for single in env._envs:
            single.unwrapped._healthy_z_range = (5.0, 6.0)
    env.reset(0)
    for index, actions in enumerate(random_actions(env, 6, seed=16)):
        step = env.step(actions)
        assert step.terminated.tolist() == [index % 2 == 0] * 2 and step.dead.tolist() == [index % 2 == 1] * 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_environments_of_a_fixed_horizon_task_truncate_together(make: Any, backend: str) -> None:
    env = make("HalfCheetah-v5", 2, backend)
    env.reset(0)
    actions = random_actions(env, 1002, seed=8)
    for index in range(999):
        step = env.step(actions[index])
        assert not step.truncated.any() and not step.dead.any()
    last, dead, first = (env.step(actions[index]) for index in range(999, 1002))
    assert last.truncated.all() and not last.terminated.any() and not last.dead.any()
    assert dead.dead.all() and not dead.truncated.any() and np.all(dead.rewards == 0)
    assert np.isfinite(dead.observations).all()
    assert not first.dead.any() and not first.truncated.any() and np.all(first.rewards != 0)
    np.testing.assert_array_equal(env.state()["elapsed"], [1, 1])


@pytest.mark.parametrize("source", BACKENDS)
@pytest.mark.parametrize("env_id", TASK_IDS)
def test_a_saved_state_continues_exactly_in_a_new_object(make: Any, env_id: str, source: str) -> None:
    original = make(env_id, 2, source)
    original.reset(21)
    before = random_actions(original, 53, seed=9)
    for actions in before[:-3]:
        original.step(actions)
    limit = LIMITS.get(env_id, 1000)
    age([original], [limit - 2, max(limit - 100, 0)])
    for actions in before[-3:]:
        step = original.step(actions)  # saved with one slot pending or just reset, the other mid-episode
    arrays = original.state()
    kept = {name: array.copy() for name, array in arrays.items()}
    copies = {target: make(env_id, 2, target) for target in BACKENDS}
    for copy in copies.values():
        np.testing.assert_array_equal(copy.set_state(arrays), step.observations)
        assert all(np.array_equal(copy.state()[name], array) for name, array in kept.items())
    for actions in random_actions(original, 120, seed=10):
        step = original.step(actions)
        for target, copy in copies.items():
            assert_same_step(step, copy.step(actions), rewards=0 if target == source else 1e-12)
            np.testing.assert_array_equal(original.simulator_state(), copy.simulator_state())
    for name, array in kept.items():
        np.testing.assert_array_equal(arrays[name], array, err_msg=f"{name} changed after it was saved")


@given(seed=st.integers(0, 2**63), halves=st.integers(0, 5), draws=st.integers(0, 20))
def test_a_decoded_generator_continues_exactly(seed: int, halves: int, draws: int) -> None:
    original = np.random.default_rng(seed)
    original.standard_normal(draws)
    for _ in range(halves):  # an odd number of 32-bit draws leaves half a word in the generator
        original.integers(0, 2**32, dtype=np.uint32)
    before = original.bit_generator.state
    text = encode_generators([original, np.random.default_rng(1)])
    assert original.bit_generator.state == before
    copy, other = decode_generators(text)
    for left, right in ((original, copy), (np.random.default_rng(1), other)):
        np.testing.assert_array_equal(left.integers(0, 2**32, 7, np.uint32), right.integers(0, 2**32, 7, np.uint32))
        np.testing.assert_array_equal(left.standard_normal(50), right.standard_normal(50))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_state_saved_between_an_end_and_its_dead_step(make: Any, backend: str, tmp_path: Path) -> None:
    env, copy = make("Hopper-v5", 3, backend), make("Hopper-v5", 3, backend)
    env.reset(0)
    for actions in random_actions(env, 200, seed=11):
        if (env.step(actions).terminated).any():
            break
    save_file(env.state(), tmp_path / "state.safetensors")
    arrays = load_file(tmp_path / "state.safetensors")
    assert arrays["pending"].any()
    copy.reset(99)
    copy.set_state(arrays)
    for actions in random_actions(env, 100, seed=12):
        assert_same_step(env.step(actions), copy.step(actions), rewards=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("env_id", ["InvertedPendulum-v5", "Humanoid-v5", "Walker2d-v5"])
def test_actions_are_clipped_once_for_dynamics_and_reward(make: Any, env_id: str, backend: str) -> None:
    wild, tame = make(env_id, 2, backend), make(env_id, 2, backend)
    wild.reset(0), tame.reset(0)
    assert_same_step(
        wild.step(np.tile([[50.0], [-50.0]], (1, wild.action_size))),
        tame.step(np.stack([tame.action_high, tame.action_low])),
        rewards=0,
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_actions_of_any_float_type_and_no_mutation(make: Any, backend: str) -> None:
    first, second = make("Swimmer-v5", 2, backend), make("Swimmer-v5", 2, backend)
    first.reset(0), second.reset(0)
    actions = np.array([[2.0, 0.25], [-0.5, -3.0]], dtype=np.float32)
    kept = actions.copy()
    assert_same_step(first.step(actions), second.step(actions.astype(np.float64).tolist()), rewards=0)
    np.testing.assert_array_equal(actions, kept)


@pytest.mark.parametrize("env_id", TASK_IDS)
def test_returned_arrays_belong_to_the_caller(make: Any, env_id: str) -> None:
    for backend in BACKENDS:
        env, spoiled = make(env_id, 2, backend), make(env_id, 2, backend)
        kept = [(array := env.reset(3), array.copy())]
        spoiled.reset(3)[:] = np.nan
        for actions in random_actions(env, 40, seed=13):
            step, other = env.step(actions), spoiled.step(actions)
            assert_same_step(step, other, rewards=0)
            kept += [(array, array.copy()) for array in step]
            for array in other:
                array[:] = 1
        for array, copy in kept:
            np.testing.assert_array_equal(array, copy)
        np.testing.assert_array_equal(spoiled.state()["observations"], step.observations)


@pytest.mark.parametrize("env_id", TASK_IDS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_interface_describes_the_task(make: Any, env_id: str, backend: str) -> None:
    env, genuine = make(env_id, 2, backend), EnvSpec(env_id).make()
    observations = env.reset(0)
    step = env.step(np.zeros((2, env.action_size)))
    assert (env.env_id, env.backend, env.num_envs) == (env_id, backend, 2)
    assert genuine.observation_space.shape == (env.observation_size,)
    assert genuine.action_space.shape == (env.action_size,)
    np.testing.assert_array_equal(env.action_low, genuine.action_space.low)
    np.testing.assert_array_equal(env.action_high, genuine.action_space.high)
    assert observations.shape == step.observations.shape == (2, env.observation_size)
    assert observations.dtype == step.observations.dtype == step.rewards.dtype == np.float64
    for flags in step[2:]:
        assert flags.shape == (2,) and flags.dtype == np.bool_
    genuine.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_environment_i_has_the_seed_plus_i_and_seeding_starts_afresh(make: Any, backend: str) -> None:
    env = make("Walker2d-v5", 3, backend)
    first = env.reset(40)
    for actions in random_actions(env, 60, seed=14):
        env.step(actions)
    np.testing.assert_array_equal(env.reset(40), first)
    np.testing.assert_array_equal(env.state()["elapsed"], 0)
    np.testing.assert_array_equal(env.reset(41)[:2], first[1:])
    assert not np.array_equal(first[0], first[1])
    while not (env.step(np.ones((3, 6))).terminated).any():
        pass
    env.reset(42)
    assert not env.step(np.ones((3, 6))).dead.any()


def test_another_gymnasium_task_runs_but_cannot_be_saved(make: Any) -> None:
    env = make("Pendulum-v1", 2, "gymnasium")
    assert env.reset(0).dtype == np.float64
    for index, actions in enumerate(random_actions(env, 202, seed=15)):
        step = env.step(actions)
        assert step.observations.dtype == np.float64 and step.observations.shape == (2, 3)
        assert step.truncated.all() == (index == 199) and step.dead.all() == (index == 200)
    with pytest.raises(UserError, match="state of Pendulum-v1 cannot be saved or restored exactly"):
        env.state()
    with pytest.raises(UserError, match="cannot be saved"):
        env.simulator_state()


@pytest.mark.parametrize(
    ("env_id", "settings", "sentence"),
    [
        ("HalfCheeta-v5", {}, "unknown environment 'HalfCheeta-v5'.*did you mean 'HalfCheetah-v5'"),
        ("HalfCheetah", {}, "version included: did you mean 'HalfCheetah-v"),
        ("qqqq", {}, "unknown environment 'qqqq'.*valid names are Ant-v5, HalfCheetah-v5"),
        ("nowhere:Thing-v0", {}, "the module 'nowhere'.*cannot be imported .ModuleNotFoundError"),
        ("Pendulum-v1", {"backend": "batched"}, "batched backend does not know Pendulum-v1, only.*leave the backend"),
        ("CartPole", {}, "unknown environment 'CartPole'.*version included: did you mean 'CartPole-v"),
        ("Hopper-v5", {"num_envs": 0}, "num_envs is 0, but at least 1"),
        ("Hopper-v5", {"backend": "bached"}, "unknown backend 'bached'.*did you mean 'batched'"),
    ],
)
def test_mistakes_are_answered_in_a_sentence(env_id: str, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        make_vector_env(env_id, **{"num_envs": 1, **settings})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("backend", BACKENDS)
def test_wrong_use_is_refused(make: Any, backend: str) -> None:
    env = make("Hopper-v5", 2, backend)
    with pytest.raises(RuntimeError, match="must come before step"):
        env.step(np.zeros((2, 3)))
    with pytest.raises(RuntimeError, match="must come before state"):
        env.state()
    env.reset(0)
    with pytest.raises(ValueError, match=r"shape \(2, 4\), but \(2, 3\)"):
        env.step(np.zeros((2, 4)))
    with pytest.raises(UserError, match="not numbers"):
        env.step([[0, 0, 0], [0, float("nan"), 0]])
    arrays = env.state()
    with pytest.raises(UserError, match="has no pending"):
        env.set_state({name: array for name, array in arrays.items() if name != "pending"})
    with pytest.raises(UserError, match=r"shape \(2, 11\), but Walker2d-v5 with 2 environments"):
        make("Walker2d-v5", 2, backend).set_state(arrays)
    with pytest.raises(UserError, match=r"Hopper-v5 with 3 environments has observations of shape \(3, 11\)"):
        make("Hopper-v5", 3, backend).set_state(arrays)


def test_making_the_cheetah_says_nothing_and_writes_nothing(
    make: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """MuJoCo warns about Gymnasium's model file at every load, on the terminal and in MUJOCO_LOG.TXT."""
    monkeypatch.chdir(tmp_path)
    make("HalfCheetah-v5", 4, "gymnasium")
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def break_simulation(env: VectorEnv, index: int) -> None:
    """Give one environment a velocity that no step survives."""
    arrays = env.state()
    model = env._model if isinstance(env, BatchedVectorEnv) else env._envs[0].unwrapped.model
    arrays["simulator"][index, 1 + model.nq] = 1e11  # time, positions, then velocities
    env.set_state(arrays)


@pytest.mark.parametrize("env_id", TASK_IDS)
@pytest.mark.parametrize("backend", list(BACKENDS))
def test_a_simulation_that_mujoco_puts_back_ends_its_episode(
    make: Any, env_id: str, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    env, healthy = make(env_id, 3, backend), make(env_id, 3, backend)
    for one in (env, healthy):
        one.reset(5)
    break_simulation(env, 1)
    actions = np.zeros((3, env.action_size))
    broken, plain = env.step(actions), healthy.step(actions)
    assert broken.dead.tolist() == broken.truncated.tolist() == [False, True, False]
    assert not broken.terminated[1] and broken.rewards[1] == 0.0
    assert env.unstable == [(1, "velocity")] and healthy.unstable == []
    for name in ("observations", "rewards"):
        np.testing.assert_array_equal(np.delete(getattr(broken, name), 1, 0), np.delete(getattr(plain, name), 1, 0))
    after = env.step(actions)
    assert after.dead.tolist() == [False, True, False] and not after.truncated.any() and len(env.unstable) == 1
    assert not env.step(actions).dead.any() and len(env.unstable) == 1
    assert list(tmp_path.iterdir()) == [] and capfd.readouterr().err == ""


def test_it_is_noticed_also_where_somebody_else_listens(make: Any) -> None:
    """To a program that has its own handler of warnings, MuJoCo's counters remain."""
    heard: list[str] = []
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(heard.append)
    try:
        env = make("Hopper-v5", 2)
        env.reset(0)
        break_simulation(env, 0)
        assert env.step(np.zeros((2, 3))).truncated.tolist() == [True, False]
        assert any("unstable" in message for message in heard)
    finally:
        mujoco.set_mju_user_warning(before)


def test_an_unstable_step_saved_and_restored_is_reset(make: Any) -> None:
    env, other = make("Hopper-v5", 2), make("Hopper-v5", 2, "gymnasium")
    env.reset(0)
    break_simulation(env, 0)
    env.step(np.zeros((2, 3)))
    other.set_state(env.state())
    assert other.step(np.zeros((2, 3))).dead.tolist() == [True, False]
