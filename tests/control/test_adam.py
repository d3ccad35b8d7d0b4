"""Adam against PyTorch's."""

from __future__ import annotations

import numpy as np
import torch

from vaco.control.adam import Adam


def test_equals_torch_over_many_steps() -> None:
    generator = np.random.default_rng(0)
    start = generator.standard_normal(50).astype(np.float32)
    ours, theirs = start.copy(), torch.tensor(start.copy(), requires_grad=True)
    adam, reference = Adam(50, epsilon=1e-5), torch.optim.Adam([theirs], lr=1.0, eps=1e-5)
    for step in range(200):
        gradient = (generator.standard_normal(50) * 10.0 ** generator.integers(-4, 3)).astype(np.float32)
        rate = 3e-2 * (1.0 - step / 200)
        adam.step(ours, gradient, rate)
        reference.param_groups[0]["lr"] = rate
        theirs.grad = torch.tensor(gradient)
        reference.step()
    np.testing.assert_allclose(ours, theirs.detach(), rtol=2e-5, atol=2e-6)
    assert adam.steps == 200


def test_changes_in_place() -> None:
    parameters = np.zeros(3, np.float32)
    Adam(3, epsilon=1e-8).step(parameters, np.array([1.0, -2.0, 0.0], np.float32), 0.1)
    np.testing.assert_allclose(parameters, [-0.1, 0.1, 0.0], atol=1e-6)
