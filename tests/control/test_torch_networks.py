"""Networks of PyTorch in the place of the written-out ones: the same update, saved, loaded and resumed alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import nn

from vaco.control import saved
from vaco.control.acting import acting
from vaco.control.distributions import Categorical, Gaussian
from vaco.control.export import export
from vaco.control.networks import ActorCritic
from vaco.control.policy import Normaliser, take_snapshot
from vaco.control.torch_networks import Perceptrons, TorchActorCritic, make_networks
from vaco.control.train import Run, train
from vaco.errors import UserError
from vaco.runs.config import RunConfig, build

SMALL = {"num_envs": 4, "phase_steps": 32, "minibatch": 64, "steps": 512, "eval_points": 1, "eval_episodes": 1}
SMALL |= {"env": "Hopper-v5", "lag": 2}


def config(**settings: Any) -> RunConfig:
    return build(SMALL | settings)


def tanh_module(shape: tuple[int, ...], outputs: int) -> nn.Module:
    """A factory: the default networks, as a module."""
    return Perceptrons(shape[0], outputs, (8, 6), (8, 6), "tanh")


def wrong_width(shape: tuple[int, ...], outputs: int) -> nn.Module:
    return Perceptrons(shape[0], outputs + 1, (4,), (4,), "tanh")


def raising(shape: tuple[int, ...], outputs: int) -> nn.Module:
    return nn.Linear(shape[0] + 1, outputs)


def no_module(shape: tuple[int, ...], outputs: int) -> int:
    return 3


class Odd(nn.Module):
    """A network of the user's, of what trains wrongly if it is taken as it is."""

    def __init__(self, shape: tuple[int, ...], outputs: int, more: nn.Module | None = None) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(shape[0], 8), nn.Tanh(), *filter(None, [more]))
        self.scale = nn.Parameter(torch.randn(8))
        self.register_buffer("constant", torch.randn(8), persistent=False)
        self.actor, self.critic = nn.Linear(8, outputs), nn.Linear(8, 1)

    def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.scale * self.body(observations) + self.constant
        return self.actor(features), self.critic(features)


def with_dropout(shape: tuple[int, ...], outputs: int) -> nn.Module:
    return Odd(shape, outputs, nn.Dropout(0.5))


def with_state(shape: tuple[int, ...], outputs: int) -> nn.Module:
    return Odd(shape, outputs, nn.BatchNorm1d(8))


def of_the_batch(shape: tuple[int, ...], outputs: int) -> nn.Module:
    return Odd(shape, outputs, nn.Softmax(dim=0))


class Noise(nn.Module):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features + torch.rand(8)


def random_answers(shape: tuple[int, ...], outputs: int) -> nn.Module:
    return Odd(shape, outputs, Noise())


def lazy(shape: tuple[int, ...], outputs: int) -> nn.Module:
    return Odd(shape, outputs, nn.LazyLinear(8))


def another_signature(shape: tuple[int, ...]) -> nn.Module:
    raise AssertionError(shape)


def failing(shape: tuple[int, ...], outputs: int) -> nn.Module:
    raise KeyError("no\nweights")


class FailingLater(Odd):
    def initialise(self, source: torch.Generator) -> None:
        raise OSError("no weights")


def copy_weights(networks: ActorCritic, into: TorchActorCritic) -> None:
    """Give a module the parameters of the written-out networks."""
    tensors = saved.named(networks, networks.flat)
    for name, view in into.tensors(into.flat).items():
        view[...] = tensors[name]


def twins(**settings: Any) -> tuple[Run, Run]:
    """Two runs of the same parameters, one with each kind of network."""
    one = Run(config(hidden=[8, 6], **settings))
    two = Run(config(hidden=[8, 6], network="test_torch_networks:tanh_module", **settings))
    assert isinstance(two.networks, TorchActorCritic)
    copy_weights(one.networks, two.networks)
    two.buffer.push(take_snapshot(two.networks, two.normaliser, 0, 10.0))
    two.snapshot = list(two.buffer)[-1]
    two.buffer._snapshots = [two.snapshot]
    return one, two


@pytest.mark.parametrize("settings", [{}, {"algorithm": "ppo_kl"}, {"algorithm": "impala"}, {"env": "CartPole-v1"}])
def test_a_phase_is_that_of_the_written_out_networks(settings: dict[str, Any]) -> None:
    one, two = twins(**settings)
    for _ in range(2):
        left, right = one.advance(), two.advance()
        for name in ("value_loss", "grad_norm", "kl", "entropy", "forward_lag", "kept_fraction"):
            assert right[name] == pytest.approx(left[name], rel=2e-3, abs=1e-5), name
    np.testing.assert_allclose(
        two.networks.tensors(two.networks.flat)["actor.0.weight"],
        saved.named(one.networks, one.networks.flat)["actor.0.weight"],
        atol=1e-4,
    )


def test_gradient_is_that_of_the_written_out_backward() -> None:
    g = np.random.default_rng(0)
    written = ActorCritic(5, 3, (7, 4))
    written.initialise(g, -0.3)
    module = TorchActorCritic(Perceptrons(5, 3, (7, 4), (7, 4), "tanh"), 5, 3, Gaussian(3))
    copy_weights(written, module)
    inputs, d_outputs, d_value, d_spread = (g.standard_normal(s).astype(np.float32) for s in ((9, 5), (9, 3), 9, 3))
    for _ in range(2):  # nothing accumulates
        for left, right in zip(written.forward(inputs), module.forward(inputs), strict=True):
            np.testing.assert_allclose(left, right, atol=1e-6)
        ours, theirs = module.backward(d_outputs, d_value, d_spread), written.backward(d_outputs, d_value, d_spread)
    expected = saved.named(written, theirs)
    for name, part in module.tensors(ours).items():
        np.testing.assert_allclose(part, expected[name], atol=1e-5, err_msg=name)


def test_actors_of_several_snapshots_act_each_by_its_own() -> None:
    g, distribution = np.random.default_rng(1), Categorical((2, 3))
    template = TorchActorCritic(Perceptrons(4, 5, (6,), (3, 3), "relu"), 4, 2, distribution)
    snapshots = []
    for version in range(3):
        template.initialise(g, 0.0)
        snapshots.append(take_snapshot(template, Normaliser(4), version, 10.0))
    assigned = [snapshots[i] for i in (2, 0, 2, 1)]
    observations = g.standard_normal((5, 4, 4)).astype(np.float32)
    actors = acting(assigned, template)
    assert actors.log_std.shape == (4, 0)
    together = actors.outputs(observations)
    for actor, snapshot in enumerate(assigned):
        template.flat[:] = snapshot.flat
        alone = template.predict(snapshot.standardise(observations[:, actor]))[0]
        np.testing.assert_allclose(together[:, actor], alone, atol=1e-6)
        np.testing.assert_allclose(actors.outputs(observations[2])[actor], alone[2], atol=1e-6)
        np.testing.assert_allclose(acting([snapshot], template).outputs(observations[:, actor]), alone, atol=1e-6)


def test_weights_are_drawn_from_the_given_generator_alone() -> None:
    drawn = []
    for seed in (0, 0, 1):
        networks = TorchActorCritic(Perceptrons(4, 2, (6, 6), (5,), "gelu"), 4, 2, Gaussian(2))
        networks.initialise(np.random.default_rng(seed), -1.0)
        drawn.append(networks.flat.copy())
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2]) and networks.parameters["log_std"].tolist() == [-1.0, -1.0]
    tensors = networks.tensors(networks.flat)
    assert np.abs(tensors["actor.4.weight"]).max() < 0.011 and not tensors["actor.0.bias"].any()
    np.testing.assert_allclose(tensors["actor.2.weight"] @ tensors["actor.2.weight"].T, 2 * np.eye(6), atol=1e-5)


@pytest.mark.parametrize("settings", [{"activation": "relu"}, {"value_hidden": [5]}])
def test_a_run_is_saved_loaded_exported_and_repeats(settings: dict[str, Any], tmp_path: Path) -> None:
    for name in ("one", "two"):
        train(config(**settings), tmp_path / name, quiet=True)
    files = [(tmp_path / name / "policy.safetensors").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]
    run = Run(config(**settings))
    run.advance()
    twin = Run(config(**settings))
    twin.restore(run.phase, run.seconds, run.draws(), {name: np.array(a) for name, a in run.state().items()})
    left, right = run.advance(), twin.advance()
    assert left["value_loss"] == right["value_loss"] and left["kl"] == right["kl"]
    policy = saved.load(tmp_path / "one")
    assert isinstance(policy.networks, TorchActorCritic)
    export(policy, "torchscript", tmp_path / "it.pt")
    observations = np.random.default_rng(0).standard_normal((3, 11)).astype(np.float32)
    exported = torch.jit.load(str(tmp_path / "it.pt"))(torch.tensor(observations)).detach()
    np.testing.assert_allclose(exported, policy(observations), atol=1e-5)
    with pytest.raises(UserError, match="no form in Stable-Baselines3"):
        export(policy, "sb3", tmp_path / "it.zip")


def test_weights_that_only_the_factory_draws_are_of_the_run_and_constants_of_the_name() -> None:
    before = torch.random.get_rng_state()
    runs = [Run(config(network="test_torch_networks:Odd", seed=seed)) for seed in (0, 0, 1)]
    assert torch.equal(before, torch.random.get_rng_state())
    networks = [run.networks for run in runs]
    assert all(isinstance(one, TorchActorCritic) for one in networks)
    scales = [one.tensors(one.flat)["scale"] for one in networks]
    np.testing.assert_array_equal(scales[0], scales[1])
    assert not np.isin(scales[0], scales[2]).any() and scales[0].std() > 0
    constants = [one.module.constant for one in networks]
    assert torch.equal(constants[0], constants[2])  # a policy is loaded without its run's seed


def test_dropout_is_off_and_a_policy_loaded_is_the_one_that_was_trained(tmp_path: Path) -> None:
    settings = config(network="test_torch_networks:with_dropout", lag=1)
    first = Run(settings).advance()
    assert first["backward_lag"] == 0
    trained = Run(settings)
    train(settings, tmp_path, quiet=True)
    while trained.phase < settings.phases:
        trained.advance()
    policy = saved.load(tmp_path)
    observations = np.random.default_rng(0).standard_normal((3, 11)).astype(np.float32)
    inputs = trained.snapshot.standardise(observations)
    np.testing.assert_allclose(policy(observations), trained.networks.predict(inputs)[0], atol=1e-6)
    np.testing.assert_array_equal(policy(observations), saved.load(tmp_path)(observations))


class Square(gymnasium.Env[Any, Any]):
    """Where is the bright square? A pixel task that a linear policy of pixels could not tell from noise alone."""

    observation_space = gymnasium.spaces.Box(0, 255, (12, 12, 1), np.uint8)
    action_space = gymnasium.spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self._draw(), {}

    def _draw(self) -> Any:
        picture = self.np_random.integers(0, 120, (12, 12, 1)).astype(np.uint8)
        row, column = self.np_random.integers(0, 9, 2)
        picture[row : row + 3, column : column + 3] = 250
        self.wanted = 2 * int(row > 4) + int(column > 4)
        return picture

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = float(int(action) == self.wanted)
        self.steps += 1
        return self._draw(), reward, False, self.steps >= 8, {}


def test_a_convolutional_network_learns_from_pixels() -> None:
    """Of 8: a random policy gets 2 in the mean."""
    more = {"env": "test_torch_networks:Square", "network": "cnn", "hidden": [32], "steps": 6144, "phase_steps": 64}
    more |= {
        "algorithm": "ppo",
        "learning_rate": 0.003,
        "epochs": 4,
        "minibatch": 128,
        "num_envs": 8,
        "eval_episodes": 8,
    }
    more |= {"discount": 0.0, "lag": 1}
    run = Run(config(**more))
    assert isinstance(run.networks, TorchActorCritic) and run.networks.observation_size == 144
    run.evaluate_if_due()
    while run.phase < run.config.phases:
        run.advance()
    run.evaluate_if_due()
    assert run.evals[0]["deterministic_mean"] < 4 and run.evals[-1]["deterministic_mean"] > 6


@pytest.mark.parametrize("shape", [(3, 84, 84), (84, 84, 4), (12, 12, 1), (1, 16, 16)])
def test_images_of_either_order_and_any_size_pass(shape: tuple[int, ...]) -> None:
    size = int(np.prod(shape))
    settings = {"hidden": [16], "network": "cnn"}
    kinds = {"shape": shape, "observation_size": size, "action_size": 1, "distribution": Categorical((3,))}
    networks = make_networks(settings, **kinds)
    networks.initialise(np.random.default_rng(0), 0.0)
    assert networks.predict(np.random.default_rng(1).uniform(0, 1, (2, size)).astype(np.float32))[0].shape == (2, 3)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"network": "cnn"}, r"network is 'cnn', but observations have the shape \(11,\)"),
        ({"network": "nowhere:make"}, "the module 'nowhere' of network cannot be imported"),
        ({"network": "test_torch_networks:no_module"}, "makes no torch.nn.Module but int: return one"),
        (
            {"network": "test_torch_networks:wrong_width"},
            r"gives \(2, 4\) and \(2,\), not outputs \[N, 3\]",
        ),
        ({"network": "test_torch_networks:raising"}, r"the network does not give outputs \[N, 3\] and values"),
        ({"network": "test_torch_networks:with_state"}, "keeps 'body.2.num_batches_tracked' beside its parameters"),
        ({"network": "test_torch_networks:of_the_batch"}, "gives one observation two answers"),
        ({"network": "test_torch_networks:random_answers"}, "gives one observation two answers"),
        ({"network": "test_torch_networks:lazy"}, "'body.2.weight' has no shape yet"),
        (
            {"network": "test_torch_networks:another_signature"},
            r"cannot be made \(TypeError: .*\): it is called as make\(shape, outputs\), here make\(\(11,\), 3\)",
        ),
        ({"network": "test_torch_networks:failing"}, r"cannot be made \(KeyError: "),
        ({"network": "test_torch_networks:FailingLater"}, r"method 'initialise' fails \(OSError: no weights\)"),
        ({"network": "module"}, "network is 'module', but module:name was expected"),
        ({"device": "cudda"}, "device is 'cudda', which PyTorch has not here: leave it at 'cpu'"),
        ({"value_hidden": [0]}, r"value_hidden is \[0\], but it must list widths of at least 1"),
        ({"activation": "rulu"}, "activation is 'rulu': did you mean 'relu'"),
    ],
)
def test_mistakes_are_one_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        Run(config(**settings))
    assert "\n" not in str(caught.value)
