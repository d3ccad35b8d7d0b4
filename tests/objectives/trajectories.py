"""What the tests of the alignments share."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

TOLERANCE: dict[torch.dtype, dict[str, Any]] = {
    torch.float64: {"rtol": 1e-10, "atol": 1e-10},
    torch.float32: {"rtol": 2e-4, "atol": 2e-4},
}


class Trajectory(NamedTuple):
    rewards: Tensor
    values: Tensor
    next_values: Tensor
    terminated: Tensor
    truncated: Tensor
    dead: Tensor
    ratio: Tensor

    def without(self, *names: str) -> dict[str, Any]:
        return {name: value for name, value in self._asdict().items() if name not in names}


def draw(seed: int, length: int, batch: tuple[int, ...], dtype: torch.dtype, ends: float = 0.2) -> Trajectory:
    """Random steps; `next_values` is independent of `values`, so that a confusion of the two shows everywhere."""
    generator = torch.Generator().manual_seed(seed)
    shape = (length, *batch)
    rewards, values, next_values, log_ratio = torch.randn((4, *shape), generator=generator, dtype=dtype)
    kind = torch.rand(shape, generator=generator)
    return Trajectory(
        rewards=rewards,
        values=values,
        next_values=next_values,
        terminated=kind < ends,
        truncated=(kind >= ends) & (kind < 2 * ends),
        dead=(kind >= 2 * ends) & (kind < 3 * ends),
        ratio=log_ratio.exp(),
    )


def close(got: Tensor, wanted: Tensor, **tolerance: float) -> None:
    torch.testing.assert_close(got, wanted.to(got.dtype), **(tolerance or TOLERANCE[got.dtype]))
