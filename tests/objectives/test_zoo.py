"""Rules of other methods, each beside a loop over tokens that reads as its paper does."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import vaco
from vaco.errors import UserError
from vaco.objectives import zoo
from vaco.objectives.filters import FilterSettings, Samples
from vaco.objectives.rules import as_settings, find_rule
from vaco.objectives.tokens import TOKEN_FILTERS, Tokens, TokenSettings

ROWS, LENGTH = 6, 7
OWN = [name for name, entry in TOKEN_FILTERS.items() if entry.function.__module__ == zoo.__name__]
Loop = Callable[[Tokens, dict[str, float]], list[list[float]]]


def drawn(seed: int) -> Tokens:
    """Ratios on both sides of every bound, responses of every length, one of them empty."""
    source = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=source, dtype=torch.float64)

    behaviour = -3.0 * torch.rand(ROWS, LENGTH, generator=source, dtype=torch.float64) - 0.05
    log_learner = 0.3 * normal(ROWS, LENGTH) * torch.linspace(0.1, 3.0, ROWS)[:, None]
    log_ratio = torch.minimum(log_learner + 0.3 * normal(ROWS, LENGTH), -behaviour)  # no probability above 1
    lengths = torch.tensor([7, 3, 1, 0, 5, 7])[torch.randperm(ROWS, generator=source)]
    weights = (torch.arange(LENGTH) < lengths[:, None]).double()
    samples = Samples(log_ratio.exp(), log_learner.exp(), normal(ROWS, 1).expand(ROWS, LENGTH), weights)
    return Tokens(samples, torch.ones(ROWS, LENGTH, dtype=torch.int64), behaviour)


def live(x: Tokens) -> list[tuple[int, int]]:
    return [(i, t) for i, t in itertools.product(range(ROWS), range(LENGTH)) if x.weights[i, t] > 0]


def of(x: Tokens) -> tuple[list[list[float]], list[list[float]], list[list[float]]]:
    """ρ, ρ_T and A as numbers."""
    s = x.samples
    return s.ratio.tolist(), s.learner_ratio.tolist(), s.advantages.tolist()


def each(x: Tokens, rule: Callable[[float, float, float, int, int], float]) -> list[list[float]]:
    """A rule of ρ, ρ_T, A and the token's place, on every token."""
    rho, learner, a = of(x)
    found = [[0.0] * LENGTH for _ in range(ROWS)]
    for i, t in live(x):
        found[i][t] = rule(rho[i][t], learner[i][t], a[i][t], i, t)
    return found


def inside(ratio: float, a: float, low: float, high: float) -> bool:
    return not (a > 0 and ratio > high) and not (a < 0 and ratio < low)


def clip_asymmetric(x: Tokens, n: dict[str, float]) -> list[list[float]]:
    return each(x, lambda r, _, a, i, t: r * a if inside(r, a, 1 - n["clip_low"], 1 + n["clip_high"]) else 0.0)


def truncated_range(x: Tokens, n: dict[str, float]) -> list[list[float]]:
    return each(x, lambda r, _, a, i, t: max(min(r, 1 + n["clip_high"]), 1 - n["clip_low"]) * a)


def dual_clip(x: Tokens, n: dict[str, float]) -> list[list[float]]:
    """By the derivative of max(min(ρA, clip(ρ) A), C A) where A < 0."""

    def objective(r: float, a: float) -> float:
        plain = min(r * a, min(max(r, 1 - n["clip"]), 1 + n["clip"]) * a)
        return max(plain, n["filter.cap"] * a) if a < 0 else plain

    def rule(r: float, _: float, a: float, i: int, t: int) -> float:
        h = 1e-6
        return r * (objective(r + h, a) - objective(r - h, a)) / (2 * h)

    return each(x, rule)


def gspo(x: Tokens, n: dict[str, float]) -> list[list[float]]:
    def s(i: int) -> float:
        tokens = [t for j, t in live(x) if j == i]
        product = math.prod(x.samples.ratio[i, t].item() for t in tokens)
        return float(product ** (1 / len(tokens)))

    bounds = (1 - n["clip_low"], 1 + n["clip_high"])
    return each(x, lambda r, _, a, i, t: s(i) * a if inside(s(i), a, *bounds) else 0.0)


def icepop(x: Tokens, n: dict[str, float]) -> list[list[float]]:
    def rule(r: float, learner: float, a: float, i: int, t: int) -> float:
        agreed = n["filter.low"] <= learner <= n["filter.high"]
        return learner * (r / learner) * a if agreed and inside(r / learner, a, 1 - n["clip"], 1 + n["clip"]) else 0.0

    return each(x, rule)


def tis_sequence(x: Tokens, n: dict[str, float]) -> list[list[float]]:
    def weight(i: int) -> float:
        return min(math.prod(x.samples.learner_ratio[j, t].item() for j, t in live(x) if j == i), n["ratio_cap"])

    def rule(r: float, learner: float, a: float, i: int, t: int) -> float:
        u = r / learner
        return weight(i) * u * a if inside(u, a, 1 - n["clip"], 1 + n["clip"]) else 0.0

    return each(x, rule)


def m2po(x: Tokens, n: dict[str, float]) -> list[list[float]]:
    moment = {(i, t): math.log(x.samples.learner_ratio[i, t].item()) ** 2 for i, t in live(x)}
    kept = sorted(moment, key=lambda place: moment[place])
    while len(kept) > 1 and sum(moment[place] for place in kept) / len(kept) >= n["filter.moment"]:
        kept.pop()

    def rule(r: float, learner: float, a: float, i: int, t: int) -> float:
        return r * a if (i, t) in kept and inside(r / learner, a, 1 - n["clip"], 1 + n["clip"]) else 0.0

    return each(x, rule)


def dppo_kl(x: Tokens, n: dict[str, float]) -> list[list[float]]:
    def rule(r: float, _: float, a: float, i: int, t: int) -> float:
        before = math.exp(x.behaviour_logp[i, t].item())
        after = before * r
        rest = (1 - before) * math.log((1 - before + 1e-8) / (1 - after + 1e-8))
        far = before * math.log(before / after) + rest > n["filter.limit"]
        return 0.0 if far and a * (after - before) > 0 else min(r, n["dppo_cap"]) * a

    return each(x, rule)


def tvpo(x: Tokens, n: dict[str, float]) -> list[list[float]]:
    moved = [abs(x.samples.ratio[place].item() - 1) for place in live(x)]
    fired = sum(moved) / len(moved) > n["filter.budget"]
    return each(x, lambda r, _, a, i, t: 0.0 if fired and a * (r - 1) > 0 else min(r, n["filter.cap"]) * a)


def tvpo_prompt(x: Tokens, n: dict[str, float]) -> list[list[float]]:
    size = int(n["filter.responses"])

    def of_response(i: int) -> list[float]:
        return [abs(x.samples.ratio[j, t].item() - 1) for j, t in live(x) if j == i]

    prompts = {}
    for prompt in range(ROWS // size):
        responses = [of_response(i) for i in range(prompt * size, (prompt + 1) * size)]
        means = [sum(values) / len(values) for values in responses if values]
        if means:
            prompts[prompt] = sum(means) / len(means)
    fired = sum(prompts.values()) / len(prompts) > n["filter.budget"]

    def rule(r: float, _: float, a: float, i: int, t: int) -> float:
        drop = fired and prompts[i // size] > n["filter.budget"] and a * (r - 1) > 0
        return 0.0 if drop else min(r, n["filter.cap"]) * a

    return each(x, rule)


LOOPS: dict[str, tuple[Loop, list[dict[str, float]]]] = {
    "unweighted": (lambda x, n: each(x, lambda r, _, a, i, t: a), [{}]),
    "clip_asymmetric": (clip_asymmetric, [{"clip_low": 0.2, "clip_high": 0.28}, {"clip_low": 0.6, "clip_high": 0.05}]),
    "truncated_range": (truncated_range, [{"clip_low": 0.1, "clip_high": 0.3}, {"clip_low": 10.0, "clip_high": 0.3}]),
    "dual_clip": (dual_clip, [{"clip": 0.2, "filter.cap": 3.0}, {"clip": 0.1, "filter.cap": 1.3}]),
    "gspo": (gspo, [{"clip_low": 0.05, "clip_high": 0.1}, {"clip_low": 0.3, "clip_high": 0.4}]),
    "icepop": (icepop, [{"clip": 0.2, "filter.low": 0.8, "filter.high": 1.3}, {"filter.low": 0.0, "clip": 0.2}]),
    "tis_sequence": (tis_sequence, [{"clip": 0.2, "ratio_cap": 2.0}, {"clip": 0.4, "ratio_cap": 1.1}]),
    "m2po": (m2po, [{"clip": 0.2, "filter.moment": 0.04}, {"clip": 0.5, "filter.moment": 1e-9}]),
    "dppo_kl": (dppo_kl, [{"filter.limit": 0.05, "dppo_cap": 20.0}, {"filter.limit": 0.002, "dppo_cap": 1.1}]),
    "tvpo": (tvpo, [{"filter.budget": 0.015, "filter.cap": 1e4}, {"filter.budget": 0.6, "filter.cap": 1.2}]),
    "tvpo_prompt": (
        tvpo_prompt,
        [{"filter.responses": 2, "filter.budget": 0.3, "filter.cap": 1e4}, {"filter.responses": 3, "filter.budget": 9}],
    ),
}


@pytest.mark.parametrize(("name", "chosen"), [(name, n) for name, (_, many) in LOOPS.items() for n in many])
@pytest.mark.parametrize("seed", range(4))
def test_a_rule_is_its_loop(name: str, chosen: dict[str, float], seed: int) -> None:
    x, entry = drawn(seed), find_rule(name)
    given = {key: int(value) if key == "filter.responses" else value for key, value in chosen.items()}
    settings = as_settings(given, entry)
    own = {f"filter.{key}": value for key, value in vars(settings.filter.own).items()} if settings.filter.own else {}
    if entry.settings is not None and not own:
        own = {f"filter.{key}": value for key, value in vars(entry.settings()).items()}
    numbers = {**own, **chosen}
    found = entry.function(x, settings)
    expected = torch.tensor(LOOPS[name][0](x, numbers), dtype=torch.float64)
    coefficient = found.coefficient.expand_as(x.weights) * x.weights
    torch.testing.assert_close(coefficient, expected, rtol=1e-6, atol=1e-8)
    moved = (x.weights > 0) & (x.samples.advantages != 0)
    assert torch.equal(found.kept.expand_as(moved)[moved], expected[moved] != 0)
    if not any("mean" in part or "largest" in part for part in entry.formula.split()):
        assert not found.triggered


def test_every_rule_has_a_loop_and_acts_somewhere() -> None:
    assert set(LOOPS) == set(OWN)
    for name, (loop, many) in LOOPS.items():
        if name in ("unweighted", "truncated_range"):
            continue
        dropped = 0.0
        for seed, chosen in itertools.product(range(4), many):
            x, entry = drawn(seed), find_rule(name)
            own = {} if entry.settings is None else vars(entry.settings())
            c = torch.tensor(loop(x, {f"filter.{key}": value for key, value in own.items()} | chosen))
            dropped += float(((c == 0) & (x.weights > 0)).sum())
        assert dropped > 0, name


@pytest.mark.parametrize("name", OWN)
def test_padding_changes_nothing(name: str) -> None:
    x = drawn(0)
    far = x.samples.ratio * torch.where(x.weights > 0, 1.0, 50.0)
    entry = find_rule(name)
    one = entry.function(x, as_settings(None))
    other = entry.function(Tokens(x.samples._replace(ratio=far), x.staleness, x.behaviour_logp), as_settings(None))
    live_ = x.weights > 0
    assert torch.equal(one.coefficient.expand_as(far)[live_], other.coefficient.expand_as(far)[live_])


# --- What should coincide


def test_rules_with_equal_numbers_are_one() -> None:
    x, settings = drawn(1), TokenSettings()

    def c(name: str, **own: Any) -> Tensor:
        given = {f"filter.{key}": value for key, value in own.items()}
        found: Tensor = find_rule(name).function(x, as_settings(given, find_rule(name))).coefficient
        return found

    assert torch.equal(c("clip_asymmetric"), find_rule("clip").function(x, settings).coefficient)
    assert torch.equal(c("dual_clip", cap=1e9), c("clip_asymmetric"))
    everything = {"low": 0.0, "high": 1e9}
    assert torch.equal(c("icepop", **everything), find_rule("decoupled_clip").function(x, settings).coefficient)
    assert torch.equal(c("m2po", moment=1e9) * x.weights, c("icepop", **everything) * x.weights)
    total = TokenSettings(filter=FilterSettings(delta=0.1))
    assert torch.equal(c("tvpo", budget=0.1), find_rule("tv_total").function(x, total).coefficient)
    assert torch.equal(c("tvpo_prompt", budget=1e9), x.samples.ratio * x.samples.advantages)


def test_gspo_is_the_gradient_of_its_objective() -> None:
    """By autograd through s = exp(mean log ρ), as the mean over responses of min(sA, clip(s) A)."""
    source = torch.Generator().manual_seed(0)
    old = -torch.rand(4, 6, generator=source, dtype=torch.float64)
    logp = (old + 0.3 * torch.randn(4, 6, generator=source, dtype=torch.float64)).requires_grad_()
    mask = (torch.arange(6) < torch.tensor([[6], [2], [4], [1]])).double()
    advantages = torch.randn(4, 1, generator=source, dtype=torch.float64)
    s = (((logp - old) * mask).sum(-1) / mask.sum(-1)).exp()
    objective = torch.minimum(s * advantages[:, 0], s.clamp(0.9, 1.1) * advantages[:, 0]).mean()
    (expected,) = torch.autograd.grad(-objective, logp)
    loss, _ = vaco.policy_loss(
        logp,
        behaviour_logp=old,
        advantages=advantages.expand(4, 6),
        mask=mask,
        rule="gspo",
        settings={"clip_low": 0.1, "clip_high": 0.1},
        denominator="sequences",
    )
    (gradient,) = torch.autograd.grad(loss, logp)
    torch.testing.assert_close(gradient, expected)
    assert (expected == 0).any() and (expected != 0).any()


def test_equal_moments_are_kept_or_dropped_together() -> None:
    one = torch.ones(1, 4, dtype=torch.float64)
    learner = torch.tensor([[1.0, 1.5, 1.5, 1.0]], dtype=torch.float64)
    x = Tokens(Samples(learner, learner, one, one), torch.ones(1, 4, dtype=torch.int64), -one)
    rule = find_rule("m2po")
    # (log 1.5)² = 0.164: all four have mean 0.082, three 0.055.
    assert rule.function(x, as_settings({"filter.moment": 0.06}, rule)).kept.tolist() == [[True, False, False, True]]
    assert rule.function(x, as_settings({"filter.moment": 0.09}, rule)).kept.all()


def test_the_learner_says_how_many_responses_a_prompt_has() -> None:
    # The library alone has no learner.
    build_lm = pytest.importorskip("vaco.lm.config", exc_type=ImportError).build_lm
    assert build_lm({"algorithm": "tvpo_prompt", "samples": 4}).filter_own.responses == 4
    with pytest.raises(UserError, match=r"filter.responses is 3, but every problem has samples = 8"):
        build_lm({"algorithm": "tvpo_prompt", "filter.responses": 3})
    rule = find_rule("tvpo_prompt")
    with pytest.raises(UserError, match="6 rows are no whole number of prompts with 4 responses each"):
        rule.function(drawn(0), as_settings({"filter.responses": 4}, rule))
    with pytest.raises(UserError, match="no whole response is so probable"):
        build_lm({"algorithm": "dppo_kl", "level": "sequence"})
