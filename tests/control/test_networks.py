"""The written-out gradient against autograd, and the parameters' memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vaco.control.networks import ActorCritic, parameter_shapes, views

SHAPES = [((64, 64), 33), ((8,), 5), ((16, 12, 8), 1)]


def made(hidden: tuple[int, ...], seed: int = 0) -> ActorCritic:
    networks = ActorCritic(7, 3, hidden)
    networks.initialise(np.random.default_rng(seed), log_std=-0.3)
    networks.flat += 0.1 * np.random.default_rng(seed + 1).standard_normal(len(networks.flat)).astype(np.float32)
    return networks


def slow_forward(networks: ActorCritic, flat: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Two separate networks, one layer after the other."""
    parameters, start = {}, 0
    for name, shape in parameter_shapes(7, 3, networks.hidden).items():
        size = int(np.prod(shape))
        parameters[name] = flat[start : start + size].reshape(shape)
        start += size
    heads = []
    for network, head in enumerate(("actor", "critic")):
        h = x
        for layer in range(len(networks.hidden)):
            weight, bias = parameters[f"hidden.{layer}.weight"][network], parameters[f"hidden.{layer}.bias"][network]
            h = torch.tanh(h @ weight + bias)
        heads.append(h @ parameters[f"{head}.weight"] + parameters[f"{head}.bias"])
    return heads[0], heads[1][:, 0]


@pytest.mark.parametrize(("hidden", "samples"), SHAPES)
def test_forward_and_gradient_equal_autograd(hidden: tuple[int, ...], samples: int) -> None:
    networks, generator = made(hidden), np.random.default_rng(5)
    x = generator.standard_normal((samples, 7)).astype(np.float32)
    d_mean = generator.standard_normal((samples, 3)).astype(np.float32)
    d_value = generator.standard_normal(samples).astype(np.float32)
    d_log_std = generator.standard_normal(3).astype(np.float32)
    mean, value = networks.forward(x)
    gradient = networks.backward(d_mean, d_value, d_log_std)
    flat = torch.tensor(networks.flat.astype(np.float64), requires_grad=True)
    slow_mean, slow_value = slow_forward(networks, flat, torch.tensor(x.astype(np.float64)))
    np.testing.assert_allclose(mean, slow_mean.detach(), atol=1e-5)
    np.testing.assert_allclose(value, slow_value.detach(), atol=1e-5)
    loss = (slow_mean * torch.tensor(d_mean)).sum() + (slow_value * torch.tensor(d_value)).sum()
    (loss + (flat[-3:] * torch.tensor(d_log_std)).sum()).backward()
    assert flat.grad is not None
    np.testing.assert_allclose(gradient, flat.grad, atol=2e-4, rtol=1e-4)


def test_parameters_share_the_flat_vector() -> None:
    networks = made((8, 8))
    networks.parameters["log_std"][:] = 7.0
    assert (networks.flat[-3:] == 7.0).all()
    total = sum(array.size for array in views(networks.flat, parameter_shapes(7, 3, (8, 8))).values())
    assert total == networks.flat.size


def test_initial_weights_are_orthogonal_with_the_stated_gains() -> None:
    networks = ActorCritic(20, 4, (16, 16))
    networks.initialise(np.random.default_rng(0), log_std=0.5)
    for network in range(2):
        first = networks.parameters["hidden.0.weight"][network]
        np.testing.assert_allclose(first.T @ first, 2.0 * np.eye(16), atol=1e-5)
    actor = networks.parameters["actor.weight"]
    np.testing.assert_allclose(actor.T @ actor, 1e-4 * np.eye(4), atol=1e-9)
    assert (networks.parameters["log_std"] == 0.5).all()
    assert not np.array_equal(*networks.parameters["hidden.0.weight"])


def test_a_second_forward_of_another_size_keeps_the_gradient_right() -> None:
    networks, generator = made((8, 8)), np.random.default_rng(0)
    small, large = (generator.standard_normal((n, 7)).astype(np.float32) for n in (4, 9))
    ones = np.ones((4, 3), np.float32), np.ones(4, np.float32), np.zeros(3, np.float32)
    networks.forward(small)
    expected = networks.backward(*ones).copy()
    networks.forward(large)
    networks.forward(small)
    np.testing.assert_array_equal(networks.backward(*ones), expected)
