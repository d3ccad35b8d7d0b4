"""Diagnostics of a batch in one call: each figure beside a loop, and parts that add up to the whole."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import vaco
from vaco.diagnostics import AGE_EDGES, Diagnostics
from vaco.errors import UserError

ROWS, LENGTH = 8, 9


def drawn(seed: int = 0) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(seed)

    def normal() -> Tensor:
        return torch.randn(ROWS, LENGTH, generator=source, dtype=torch.float64)

    behaviour = -1.0 + 0.3 * normal()
    return {
        "logp": behaviour + 0.3 * normal(),
        "behaviour_logp": behaviour,
        "learner_logp": behaviour + 0.2 * normal(),
        "evaluated_logp": behaviour + 0.05 * normal(),
        "mask": (torch.rand(ROWS, LENGTH, generator=source) < 0.7).double(),
        "staleness": torch.randint(0, 50, (ROWS, LENGTH), generator=source),
    }


def call(given: dict[str, Tensor], **others: Any) -> Diagnostics:
    arguments = {**given, **others}
    return vaco.diagnose(arguments.pop("logp"), **arguments)


def test_every_figure_is_its_loop() -> None:
    given = drawn()
    names = ("total_lag", "bounded_total_variation", "chi_squared", "kl_k1", "kl_k2", "kl_k3", "forward_lag")
    names += ("backward_lag", "engine_mismatch", "engine_kl_k3", "mean_ratio", "staleness")
    total, count, second, ages = dict.fromkeys(names, 0.0), 0, 0.0, [0] * (len(AGE_EDGES) + 1)
    for place in given["mask"].nonzero().tolist():
        x = {name: float(tensor[tuple(place)]) for name, tensor in given.items()}
        rho, learner, engine = (
            math.exp(x[name] - x["behaviour_logp"]) for name in ("logp", "learner_logp", "evaluated_logp")
        )
        values = {
            "total_lag": abs(rho - 1) / 2,
            "bounded_total_variation": max(1 - rho, 0),
            "chi_squared": (rho - 1) ** 2,
            "kl_k1": -math.log(rho),
            "kl_k2": math.log(rho) ** 2 / 2,
            "kl_k3": rho - 1 - math.log(rho),
            "forward_lag": abs(rho - learner) / 2,
            "backward_lag": abs(learner - 1) / 2,
            "engine_mismatch": abs(engine - 1) / 2,
            "engine_kl_k3": engine - 1 - math.log(engine),
            "mean_ratio": rho,
            "staleness": x["staleness"],
        }
        for name, value in values.items():
            total[name] += value
        count, second = count + 1, second + rho**2
        ages[sum(x["staleness"] > edge for edge in AGE_EDGES)] += 1
    figures = call(given).figures()
    for name in names:
        assert figures[name] == pytest.approx(total[name] / count), name
    assert figures["samples"] == count and figures["nonfinite"] == 0
    assert figures["ess"] == pytest.approx((total["mean_ratio"] / count) ** 2 / (second / count))
    bins = [figures[f"age_to_{edge}"] for edge in AGE_EDGES] + [figures[f"age_above_{AGE_EDGES[-1]}"]]
    assert bins == pytest.approx([n / count for n in ages]) and sum(bins) == pytest.approx(1.0)


def test_parts_add_up_to_the_whole() -> None:
    given = drawn(1)
    whole = call(given).figures()
    for cut in (1, 3, 7):
        parts = [{n: t[:cut] for n, t in given.items()}, {n: t[cut:] for n, t in given.items()}]
        merged = (call(parts[0]) + call(parts[1])).figures()
        assert merged == pytest.approx(whole, rel=1e-12), cut


@pytest.mark.parametrize("broken", ["logp", "behaviour_logp", "learner_logp", "evaluated_logp"])
def test_what_is_not_finite_is_left_out_and_counted(broken: str) -> None:
    given = drawn(2)
    first = tuple(given["mask"].nonzero()[0].tolist())
    given[broken] = given[broken].clone()
    given[broken][first] = math.nan
    figures = call(given).figures()
    without = given["mask"].clone()
    without[first] = 0.0
    given[broken][first] = 0.0
    expected = call(given, mask=without).figures()
    assert figures.pop("nonfinite") == 1 and expected.pop("nonfinite") == 0
    assert figures == pytest.approx(expected)


def test_what_is_not_known_is_not_there() -> None:
    given = drawn(3)
    bare = vaco.diagnose(given["logp"].requires_grad_(), behaviour_logp=given["behaviour_logp"])
    assert not bare.sums.requires_grad
    names = set(bare.figures())
    assert not names & {"forward_lag", "backward_lag", "engine_mismatch", "staleness", "kept_fraction"}
    assert {"total_lag", "ess", "chi_squared", "kl_k3"} <= names
    with pytest.raises(UserError, match=r"evaluated_logp has shape \[8\] and logp has \[8, 9\]"):
        call(given, evaluated_logp=torch.zeros(8))
    with pytest.raises(UserError, match=r"evaluated_logp is of type torch\.int64"):
        call(given, evaluated_logp=torch.zeros(8, 9, dtype=torch.int64))
