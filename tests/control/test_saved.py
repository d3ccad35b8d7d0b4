"""The policy that a run leaves: named tensors, read again, also from files of before they had names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vaco
from vaco.control import saved
from vaco.control.distributions import Categorical
from vaco.control.networks import ActorCritic
from vaco.control.train import Run, train
from vaco.errors import UserError
from vaco.runs import checkpoint
from vaco.runs.config import build

SMALL = {"num_envs": 4, "phase_steps": 32, "minibatch": 64, "steps": 256, "eval_points": 1, "eval_episodes": 1}


@pytest.fixture(scope="module", params=["Hopper-v5", "CartPole-v1"])
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A run's folder, and the run that it was."""
    config = build(SMALL | {"env": request.param, "hidden": [8, 6]})
    out = tmp_path_factory.mktemp("runs") / "run"
    train(config, out, quiet=True)
    run = Run(config)
    while run.phase < config.phases:
        run.advance()
    return out, run


def torch_net(tensors: dict[str, Any], network: str) -> torch.nn.Sequential:
    """What somebody else would make of the file."""
    own = {n.removeprefix(f"{network}."): torch.tensor(a) for n, a in tensors.items() if n.startswith(f"{network}.")}
    sizes = [own[f"{layer}.weight"].shape for layer in (0, 2, 4)]
    layers = [torch.nn.Linear(size[1], size[0]) for size in sizes]
    net = torch.nn.Sequential(layers[0], torch.nn.Tanh(), layers[1], torch.nn.Tanh(), layers[2])
    net.load_state_dict(own)
    return net


def test_its_tensors_are_those_of_a_torch_sequential(finished: tuple[Path, Run]) -> None:
    out, run = finished
    tensors, _ = checkpoint.read(out / "policy.safetensors")
    observations = np.random.default_rng(0).standard_normal((5, run.networks.observation_size)).astype(np.float32)
    inputs = np.clip((observations - tensors["observation_shift"]) * tensors["observation_scale"], -10, 10)
    outputs, values = run.networks.forward(run.snapshot.standardise(observations))
    np.testing.assert_array_equal(inputs, run.snapshot.standardise(observations))
    with torch.no_grad():
        np.testing.assert_allclose(torch_net(tensors, "actor")(torch.tensor(inputs)), outputs, atol=1e-6)
        np.testing.assert_allclose(torch_net(tensors, "critic")(torch.tensor(inputs))[:, 0], values, atol=1e-6)


def test_a_loaded_policy_has_the_bits_of_the_run(finished: tuple[Path, Run]) -> None:
    out, run = finished
    policy = vaco.load(out)
    np.testing.assert_array_equal(policy.networks.flat, run.networks.flat)
    observations = run.collector.observations
    actions = policy(observations)
    outputs = run.networks.forward(run.snapshot.standardise(observations))[0]
    best = outputs.argmax(-1)[:, None] if isinstance(run.networks.distribution, Categorical) else outputs
    np.testing.assert_allclose(actions, best, atol=1e-6)
    np.testing.assert_allclose(policy(observations[0]), actions[0], atol=1e-6)
    first, again = (policy(observations, deterministic=False, generator=np.random.default_rng(1)) for _ in range(2))
    other = policy(np.repeat(observations, 50, 0), deterministic=False, generator=np.random.default_rng(2))
    np.testing.assert_array_equal(first, again)
    assert len(np.unique(other)) > 1


def test_names_and_vector_are_inverse() -> None:
    for distribution in (None, Categorical((2, 3))):
        networks = ActorCritic(4, 2, (5, 3, 6), distribution)
        networks.initialise(np.random.default_rng(0), -0.5)
        tensors = saved.named(networks, networks.flat)
        assert ("log_std" in tensors) == (distribution is None) and tensors["actor.4.weight"].shape == (6, 3)
        np.testing.assert_array_equal(saved.flat_of(networks, tensors), networks.flat)
        with pytest.raises(KeyError):
            saved.flat_of(networks, {name: a for name, a in tensors.items() if name != "critic.2.bias"})


def test_a_file_of_before_there_were_names_is_read(finished: tuple[Path, Run], tmp_path: Path) -> None:
    out, run = finished
    tensors, meta = checkpoint.read(out / "policy.safetensors")
    old = {name: tensors[name] for name in ("observation_shift", "observation_scale")}
    path = tmp_path / "policy.safetensors"
    path.write_bytes(checkpoint.pack(old | {"parameters": run.networks.flat}, meta))
    observations = run.collector.observations
    np.testing.assert_array_equal(saved.load(path)(observations), saved.load(out)(observations))
    np.testing.assert_array_equal(saved.load(tmp_path)(observations), saved.load(out)(observations))


def test_wrong_files_and_observations_are_one_sentence(finished: tuple[Path, Run], tmp_path: Path) -> None:
    policy = saved.load(finished[0])
    with pytest.raises(UserError, match=r"the observation has shape .2,., but the policy of"):
        policy(np.zeros(2))
    with pytest.raises(UserError, match=r"holds no policy.safetensors"):
        saved.load(tmp_path / "nowhere")
    tensors, meta = checkpoint.read(finished[0] / "policy.safetensors")
    for arrays, said in ((tensors, {"model": "tiny"}), ({"x": np.zeros(2)}, meta)):
        (tmp_path / "policy.safetensors").write_bytes(checkpoint.pack(arrays, said))
        with pytest.raises(UserError, match="is no policy of a control task"):
            saved.load(tmp_path)
