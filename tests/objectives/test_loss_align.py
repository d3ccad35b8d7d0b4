from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import vaco
from vaco.errors import UserError

T, B = 9, 4


def drawn(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    names = ("rewards", "values", "next_values", "target_logp", "behaviour_logp")
    found = {name: torch.randn(T, B, generator=generator, dtype=torch.float64) for name in names}
    for name, share in (("terminated", 0.1), ("truncated", 0.1), ("dead", 0.05)):
        found[name] = torch.rand(T, B, generator=generator) < share
    return found


def slow(x: dict[str, Tensor], gamma: float, lam: float, use_ratio: bool) -> tuple[Tensor, Tensor]:
    """V-trace backwards, one step of one trajectory at a time (Espeholt et al. 2018, remark 1)."""
    advantages, targets = torch.zeros(T, B, dtype=torch.float64), torch.zeros(T, B, dtype=torch.float64)
    for b in range(B):
        following = 0.0
        for t in reversed(range(T)):
            if x["dead"][t, b]:
                targets[t, b], following = x["values"][t, b], 0.0
                continue
            ratio = math.exp(float(x["target_logp"][t, b] - x["behaviour_logp"][t, b])) if use_ratio else 1.0
            ended, cut = bool(x["terminated"][t, b]), bool(x["truncated"][t, b])
            bootstrap = 0.0 if ended else gamma * float(x["next_values"][t, b])
            delta = float(x["rewards"][t, b]) + bootstrap - float(x["values"][t, b])
            beyond = 0.0 if ended or cut else following
            advantages[t, b] = delta + gamma * lam * beyond
            following = min(1.0, ratio) * (delta + gamma * lam * beyond)
            targets[t, b] = x["values"][t, b] + following
    return advantages, targets


@pytest.mark.parametrize("alignment", ["once", "continuous", "none"])
@pytest.mark.parametrize("seed", range(3))
def test_align_by_a_loop_and_on_either_axis(alignment: str, seed: int) -> None:
    given = drawn(seed)
    found = vaco.align(**given, alignment=alignment, discount=0.9, trace_decay=0.8)
    advantages, targets = slow(given, 0.9, 0.8, alignment != "none")
    torch.testing.assert_close(found.advantages, advantages)
    torch.testing.assert_close(found.value_targets, targets)
    turned = vaco.align(
        **{name: x.T for name, x in given.items()}, alignment=alignment, discount=0.9, trace_decay=0.8, time_axis=1
    )
    assert torch.equal(turned.advantages.T, found.advantages) and torch.equal(
        turned.value_targets.T, found.value_targets
    )


def test_flags_may_be_left_out_or_be_numbers() -> None:
    given = drawn()
    given["truncated"], given["dead"] = torch.zeros(T, B, dtype=torch.bool), torch.zeros(T, B, dtype=torch.bool)
    expected = vaco.align(**given)
    del given["truncated"], given["dead"]
    found = vaco.align(**given | {"terminated": given["terminated"].float()})
    assert torch.equal(found.advantages, expected.advantages)


def test_a_ratio_that_is_not_finite_cuts_the_trace() -> None:
    """Nothing is learnt of the step's value, and earlier steps see no further than its value."""
    given = drawn()
    for name in ("terminated", "truncated", "dead"):
        given[name] = torch.zeros(T, B, dtype=torch.bool)
    given["behaviour_logp"][4, 1] = math.nan
    found = vaco.align(**given)
    assert found.advantages.isfinite().all() and found.value_targets.isfinite().all()
    assert found.value_targets[4, 1] == given["values"][4, 1]
    given["behaviour_logp"][4, 1] = given["target_logp"][4, 1] + 20
    torch.testing.assert_close(vaco.align(**given).advantages, found.advantages, rtol=1e-6, atol=1e-6)


def test_half_precision_is_computed_in_float32() -> None:
    given = {name: x.bfloat16() if x.dtype == torch.float64 else x for name, x in drawn().items()}
    found = vaco.align(**given)
    assert found.advantages.dtype == torch.float32
    wanted = vaco.align(**{name: x.double() if x.dtype == torch.bfloat16 else x for name, x in given.items()})
    torch.testing.assert_close(found.advantages.double(), wanted.advantages, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"values": torch.ones(T + 1, B)}, "values has shape"),
        ({"behaviour_logp": None}, "needs target_logp and behaviour_logp"),
        ({"alignment": "twice"}, "there is no alignment 'twice'"),
        ({"discount": 1.5}, "discount is 1.5"),
        ({"c_bar": 2.0}, "c_bar is 2.0"),
        ({"time_axis": 2}, "time_axis is 2"),
        ({"rewards": torch.ones(T, B, dtype=torch.int64)}, "rewards is of type torch.int64"),
    ],
)
def test_bad_input_is_one_sentence(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        vaco.align(**drawn() | given)
