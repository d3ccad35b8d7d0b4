from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import vaco
from vaco.errors import UserError
from vaco.objectives import regressions
from vaco.objectives import tokens as rules
from vaco.objectives.filters import FILTERS, FilterSettings, Samples
from vaco.objectives.tokens import NOT_FOR_TOKENS, TOKEN_FILTERS, Tokens, TokenSettings

SHAPE = (6, 5)


def drawn(seed: int = 0, low: int = 0) -> Tokens:
    generator = torch.Generator().manual_seed(seed)

    def normal() -> Tensor:
        return torch.randn(SHAPE, generator=generator, dtype=torch.float64)

    samples = Samples(
        ratio=(0.5 * normal()).exp(),
        learner_ratio=(0.2 * normal()).exp(),
        advantages=normal(),
        weights=(torch.rand(SHAPE, generator=generator) < 0.8).double(),
    )
    staleness = torch.randint(low, 9, SHAPE, generator=generator)
    return Tokens(samples, staleness, -torch.rand(SHAPE, generator=generator, dtype=torch.float64) * 3)


def cells(x: Tokens) -> list[tuple[int, int, float, float, float, int, float]]:
    s = x.samples
    return [
        (i, j, float(s.ratio[i, j]), float(s.learner_ratio[i, j]), float(s.advantages[i, j]), int(x.staleness[i, j]),
         math.exp(float(x.behaviour_logp[i, j])))
        for i in range(SHAPE[0])
        for j in range(SHAPE[1])
    ]  # fmt: skip


def clipped(u: float, a: float, clip: float) -> bool:
    return (a > 0 and u > 1 + clip) or (a < 0 and u < 1 - clip)


@pytest.mark.parametrize("name", [name for name in FILTERS if name not in NOT_FOR_TOKENS])
def test_the_filters_of_mujoco_are_the_same_functions_on_tokens(name: str) -> None:
    x, settings = drawn(), TokenSettings(filter=FilterSettings(delta=0.1, clip=0.3, ratio_cap=1.2))
    found = TOKEN_FILTERS[name].function(x, settings)
    expected = FILTERS[name].function(x.samples, settings.filter)
    assert torch.equal(found.coefficient, expected.coefficient) and torch.equal(found.kept, expected.kept)
    # The same on whole responses: one sample a sequence.
    one = x.samples._replace(
        **{f: getattr(x.samples, f)[:, :1] for f in ("ratio", "learner_ratio", "advantages", "weights")}
    )
    whole = TOKEN_FILTERS[name].function(Tokens(one, x.staleness[:, :1], x.behaviour_logp[:, :1]), settings)
    assert torch.equal(whole.coefficient, FILTERS[name].function(one, settings.filter).coefficient)


def test_what_tokens_cannot_give_is_no_rule_for_them() -> None:
    assert {"kl", "kl_total", "centred_clip_lag", "centred_clip_fixed"} == NOT_FOR_TOKENS
    assert not NOT_FOR_TOKENS & set(TOKEN_FILTERS)


def test_which_rules_read_the_proximal_policy() -> None:
    for name, entry in TOKEN_FILTERS.items():
        x = drawn()
        other = Tokens(x.samples._replace(learner_ratio=x.samples.learner_ratio * 1.7), x.staleness, x.behaviour_logp)
        settings = TokenSettings(filter=FilterSettings(delta=0.01, clip=0.05), ratio_cap=1.1, dppo_cap=1.1)
        same = torch.equal(entry.function(x, settings).coefficient, entry.function(other, settings).coefficient)
        assert same != entry.proximal, name


def test_a3po_is_decoupled_ppo_with_the_interpolated_proximal_policy() -> None:
    """Weight π_prox/β times the clip on u = π/π_prox, with π_prox recomputed from its definition (ALGORITHMS 6.3)."""
    x, clip = drawn(low=1), 0.2
    settings = TokenSettings(filter=FilterSettings(clip=clip))
    s = x.samples
    alpha = 1.0 / x.staleness
    log_proximal_over_behaviour = (1 - alpha) * s.ratio.log()  # α log β + (1 − α) log π − log β
    recomputed = FILTERS["decoupled_clip"].function(
        s._replace(learner_ratio=log_proximal_over_behaviour.exp()), settings.filter
    )
    found = rules.staleness_clip(x, settings)
    assert torch.allclose(found.coefficient, recomputed.coefficient) and torch.equal(found.kept, recomputed.kept)
    unweighted = rules.staleness_clip_unweighted(x, settings)
    assert torch.equal(unweighted.kept, found.kept)
    for i, j, ratio, _, a, d, _ in cells(x):
        low, high = (1 - clip) ** d, (1 + clip) ** d
        dropped = (a > 0 and ratio > high) or (a < 0 and ratio < low)
        assert bool(found.kept[i, j]) != dropped
        assert float(found.coefficient[i, j]) == pytest.approx(0.0 if dropped else ratio * a)
        assert float(unweighted.coefficient[i, j]) == pytest.approx(0.0 if dropped else ratio ** (1 / d) * a)


def test_a3po_at_staleness_zero_and_one() -> None:
    x = drawn()
    settings = TokenSettings(filter=FilterSettings(clip=0.2))
    fresh = rules.staleness_clip(Tokens(x.samples, torch.zeros_like(x.staleness), x.behaviour_logp), settings)
    assert bool(fresh.kept.all())
    one = rules.staleness_clip(Tokens(x.samples, torch.ones_like(x.staleness), x.behaviour_logp), settings)
    assert torch.equal(one.kept, FILTERS["clip"].function(x.samples, settings.filter).kept)


def test_dppo_cispo_and_tis_by_hand() -> None:
    x = drawn()
    settings = TokenSettings(
        filter=FilterSettings(clip=0.2), clip_high=0.3, divergence_limit=0.1, ratio_cap=1.5, dppo_cap=1.4
    )
    dppo, cispo, tis = (f(x, settings) for f in (rules.divergence_mask, rules.truncated_high, rules.truncated_clip))
    for i, j, ratio, learner, a, _, behaviour in cells(x):
        far = abs(behaviour * ratio - behaviour) > 0.1
        dropped = far and a * (ratio - 1) > 0
        assert float(dppo.coefficient[i, j]) == pytest.approx(0.0 if dropped else min(ratio, 1.4) * a)
        assert float(cispo.coefficient[i, j]) == pytest.approx(min(ratio, 1.3) * a)
        u = ratio / learner
        expected = 0.0 if clipped(u, a, 0.2) else min(learner, 1.5) * u * a
        assert float(tis.coefficient[i, j]) == pytest.approx(expected)
    assert bool(cispo.kept.all()) and not bool(dppo.kept.all()) and not bool(tis.kept.all())


def test_the_tv_rule_for_each_sequence_by_hand() -> None:
    x, settings = drawn(), TokenSettings(filter=FilterSettings(delta=0.35))
    found = rules.tv_sequence(x, settings)
    s, fired = x.samples, []
    for i in range(SHAPE[0]):
        weights = [float(w) for w in x.weights[i]]
        deviations = [float(s.ratio[i, j] - s.learner_ratio[i, j]) for j in range(SHAPE[1])]
        mean = sum(w * abs(d) for w, d in zip(weights, deviations, strict=True)) / max(sum(weights), 1)
        fired.append(mean > 0.35)
        for j, deviation in enumerate(deviations):
            a = float(s.advantages[i, j])
            dropped = mean > 0.35 and a * deviation > 0
            assert bool(found.kept[i, j]) != dropped
            assert float(found.coefficient[i, j]) == pytest.approx(0.0 if dropped else float(s.ratio[i, j]) * a)
    assert any(fired) and not all(fired) and bool(found.triggered)


def finite_difference(loss: object, logp: Tensor) -> Tensor:
    point = logp.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(loss(point), point)  # type: ignore[operator]
    return gradient


def test_regressions_ascend_minus_the_gradient_of_their_losses() -> None:
    """Both losses as the papers write them, differentiated with respect to log π(y|x)."""
    generator = torch.Generator().manual_seed(1)
    rewards = torch.randint(0, 2, (3, 4), generator=generator).double()
    logp, other = (-5 * torch.rand(3, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    b = 0.3

    def tba(x: Tensor) -> Tensor:
        partition = (other - x + rewards / b).mean(-1, keepdim=True).detach()
        return ((partition + x - other - rewards / b) ** 2).sum()

    expected = -finite_difference(tba, logp) * b / 2
    assert torch.allclose(regressions.tba_coefficient(rewards, logp - other, b), expected)

    def oapl(x: Tensor) -> Tensor:
        value = b * (rewards / b).exp().mean(-1, keepdim=True).log()
        return ((b * (x - other) - (rewards - value)) ** 2).sum()

    expected = -finite_difference(oapl, logp) / (2 * b)
    assert torch.allclose(regressions.oapl_coefficient(rewards, logp - other, b), expected)


def test_names() -> None:
    assert rules.parse_token_algorithm("vaco").filter is TOKEN_FILTERS["tv"]
    assert rules.parse_token_algorithm("decoupled").recompute
    assert rules.parse_token_algorithm("tba").filter is None
    with pytest.raises(UserError, match="did you mean 'cispo'"):
        rules.parse_token_algorithm("cispoo")
    text = rules.describe_tokens()
    others = set(TOKEN_FILTERS) - set(rules.TOKEN_ALIASES.values())
    assert others and all(f"{name} " in text for name in (*rules.TOKEN_ALIASES, *rules.REGRESSIONS, *others))


def test_nothing_carries_a_gradient() -> None:
    x = drawn()
    ratio = x.samples.ratio.clone().requires_grad_(True)
    seen = Tokens(x.samples._replace(ratio=ratio), x.staleness, x.behaviour_logp)
    for entry in TOKEN_FILTERS.values():
        assert not entry.function(seen, TokenSettings()).coefficient.requires_grad


@pytest.mark.parametrize("name", ["tis", "tis_sequence"])
def test_no_cap_is_0_as_in_every_other_rule(name: str) -> None:
    given = {"logp": torch.tensor([[0.3, -0.2]]), "behaviour_logp": torch.zeros(1, 2)}
    given |= {"learner_logp": torch.tensor([[0.2, 0.1]]), "advantages": torch.ones(1, 2)}
    loss, _ = vaco.policy_loss(**given, rule=name, settings={"ratio_cap": 0})
    without, _ = vaco.policy_loss(**given, rule=name, settings={"ratio_cap": 1e9})
    assert loss == without != 0


def test_a_sequence_is_judged_by_its_mean_whatever_its_weights_add_up_to() -> None:
    """A mask of tenths is one of weights, so its mean is that of ones."""
    given = {"logp": torch.full((1, 3), 0.4), "behaviour_logp": torch.zeros(1, 3), "learner_logp": torch.zeros(1, 3)}
    for weight in (1.0, 0.1):
        mask = torch.full((1, 3), weight)
        _, found = vaco.policy_loss(**given, advantages=torch.ones(1, 3), mask=mask, rule="vaco_sequence")
        assert found.figures()["dropped_positive"] == pytest.approx(1.0)
