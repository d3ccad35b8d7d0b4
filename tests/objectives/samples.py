"""What the tests of the filters and of their trigger share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vaco.objectives.filters import Samples

TOLERANCE: dict[torch.dtype, dict[str, Any]] = {
    torch.float64: {"rtol": 1e-10, "atol": 1e-10},
    torch.float32: {"rtol": 1e-4, "atol": 1e-5},
}

TRIGGERED = ("tv", "tv_total", "tv_proximal")


def draw(seed: int, shape: tuple[int, ...] = (64,), dtype: torch.dtype = torch.float64, spread: float = 0.4) -> Samples:
    """Ratios on both sides of every threshold, advantages of both signs and a few that are exactly zero."""
    generator = torch.Generator().manual_seed(seed)
    ratio, learner_ratio = (spread * torch.randn((2, *shape), generator=generator, dtype=dtype)).exp()
    advantages = torch.randn(shape, generator=generator, dtype=dtype)
    advantages[torch.rand(shape, generator=generator) < 0.1] = 0.0
    return Samples(ratio=ratio, learner_ratio=learner_ratio, advantages=advantages)


def close(got: Tensor, wanted: Tensor | float) -> None:
    torch.testing.assert_close(got, torch.as_tensor(wanted, dtype=got.dtype), equal_nan=True, **TOLERANCE[got.dtype])


def reference_deviation(name: str, x: Samples) -> Tensor:
    """What each TV filter measures and takes the sign of, restated."""
    return {
        "tv": x.ratio - x.learner_ratio,
        "tv_total": x.ratio - 1.0,
        "tv_proximal": x.ratio / x.learner_ratio - 1.0,
    }[name]
