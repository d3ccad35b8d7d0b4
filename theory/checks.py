"""The table of checks: performance bounds and divergences here, V-trace and the filter in `checks_operator`."""

from __future__ import annotations

from functools import partial

from theory import bounds, divergences
from theory.check import Check
from theory.checks_operator import filter_checks, vtrace_checks


def _identity_and_drift() -> list[Check]:
    b = bounds
    return [
        Check(
            "performance_difference",
            "a",
            "J(π) − J(π_T) = E_{d^π,π}[A^{π_T}]/(1−γ)",
            b.performance_difference,
            {
                "states of π_T": partial(b.performance_difference, states_of="learner"),
                "advantage of π": partial(b.performance_difference, advantage_of="current"),
                "unnormalised distribution": partial(b.performance_difference, normalised=False),
            },
            identity=True,
        ),
        Check(
            "state_drift",
            "e",
            "‖d^π − d^β‖₁ ≤ 2γ/(1−γ) E_{d^β}TV(π,β)",
            b.state_drift,
            {
                "half the constant": partial(b.state_drift, constant=1.0),
                "mean over uniform states": partial(b.state_drift, mean_over="uniform"),
                "unnormalised distribution": partial(b.state_drift, normalised=False),
            },
        ),
        Check(
            "state_drift_coupled",
            "e'",
            "‖d^π − d^β‖₁ ≤ 2γα/(1−γ+γα), α = max TV(π,β)",
            b.state_drift_coupled,
            {
                "half the constant": partial(b.state_drift_coupled, constant=1.0),
                "mean TV for the largest": partial(b.state_drift_coupled, worst_state=False),
            },
        ),
    ]


def _improvement() -> list[Check]:
    b = bounds
    return [
        Check(
            "cpo",
            "b",
            "|J(π) − J(π_T) − L_{d^{π_T}}| ≤ 2γε'/(1−γ)² E_{d^{π_T}}TV(π,π_T)",
            b.cpo,
            {
                "half the constant": partial(b.cpo, constant=1.0),
                "mean gain for the largest": partial(b.cpo, worst_gain=False),
                "γ² for γ": partial(b.cpo, drop_gamma=True),
            },
        ),
    ]


def _off_policy() -> list[Check]:
    b = bounds
    return [
        Check(
            "off_policy",
            "c",
            "|J(π) − J(π_T) − E_{d^β,β}[ρA^{π_T}]/(1−γ)| ≤ 2γC/(1−γ)² E_{d^β}TV(π,β)",
            b.off_policy,
            {
                "half the constant": partial(b.off_policy, constant=1.0),
                "denominator π_T for β": partial(b.off_policy, ratio_over="learner"),
                "advantage of β for π_T": partial(b.off_policy, advantage_of="behaviour"),
                "forward lag alone": partial(b.off_policy, lag_of="forward"),
                "unnormalised distribution": partial(b.off_policy, weight_sum="discounted"),
            },
        ),
        Check(
            "off_policy_split",
            "c+i",
            "the same with forward lag + backward lag for TV(π,β)",
            partial(b.off_policy, lag_of="split"),
            {
                "half the constant": partial(b.off_policy, lag_of="split", constant=1.0),
                "backward lag alone": partial(b.off_policy, lag_of="backward"),
                "advantage of β for π_T": partial(b.off_policy, lag_of="split", advantage_of="behaviour"),
            },
        ),
        Check(
            "off_policy_mixture",
            "c",
            "the same, averaged over several behaviour policies",
            b.off_policy_mixture,
            {
                "half the constant": partial(b.off_policy_mixture, constant=1.0),
                "ratio over the first β for all": partial(b.off_policy_mixture, ratio_over="first"),
                "smallest TV for the mean": partial(b.off_policy_mixture, penalty_of="least"),
            },
        ),
        Check(
            "off_policy_coupled",
            "c'",
            "penalty C/(1−γ)·2γα/(1−γ+γα), α = max TV(π,β)",
            b.off_policy_coupled,
            {"half the constant": partial(b.off_policy_coupled, constant=1.0)},
        ),
    ]


def _trust_region() -> list[Check]:
    b = bounds
    return [
        Check(
            "trpo",
            "d",
            "|J(π) − L| ≤ 4εγα²/(1−γ)²",
            b.trpo,
            {
                "half the constant": partial(b.trpo, constant=2.0),
                "mean TV for the largest": partial(b.trpo, distance="mean"),
                "signed ε": partial(b.trpo, signed_gain=True),
            },
        ),
        Check(
            "trpo_kl",
            "d",
            "|J(π) − L| ≤ 2εγ/(1−γ)² max KL(π_T‖π)",
            b.trpo_kl,
            {
                "a tenth of the constant": partial(b.trpo_kl, constant=0.2),
                "mean KL for the largest": partial(b.trpo_kl, distance="mean"),
            },
        ),
    ]


def _estimators() -> list[Check]:
    d = divergences
    return [
        Check(
            "estimator_total",
            "g",
            "½E_β|ρ−1| = E TV(π,β)",
            d.estimator_total,
            {"without the half": partial(d.estimator_total, half=2.0)},
            identity=True,
        ),
        Check(
            "estimator_forward",
            "g",
            "½E_β|ρ−ρ_T| = E TV(π,π_T)",
            d.estimator_forward,
            {"|π/π_T−1| under β": partial(d.estimator_forward, statistic="proximal")},
            identity=True,
        ),
        Check(
            "estimator_bounded",
            "g",
            "E_β(1−ρ)⁺ = E TV(π,β)",
            d.estimator_bounded,
            {"β without π's support": partial(d.estimator_bounded, side="lost support")},
            identity=True,
        ),
    ]


def _pinsker() -> list[Check]:
    d = divergences
    return [
        Check(
            "pinsker",
            "h",
            "2TV² ≤ KL(π‖β)",
            d.pinsker,
            {
                "twice the constant": partial(d.pinsker, constant=4.0),
                "TV without its half": partial(d.pinsker, half=2.0),
                "the converse": d.pinsker_converse,
            },
        ),
        Check(
            "pinsker_backward",
            "h",
            "2TV² ≤ KL(β‖π)",
            partial(d.pinsker, direction="backward"),
            {"twice the constant": partial(d.pinsker, direction="backward", constant=4.0)},
        ),
        Check(
            "pinsker_mean",
            "h",
            "2(E TV)² ≤ E KL",
            d.pinsker_mean,
            {"twice the constant": partial(d.pinsker_mean, constant=4.0)},
        ),
        Check(
            "reverse_pinsker",
            "h",
            "KL(π‖β) ≤ log(1+2TV²/min β)",
            d.reverse_pinsker,
            {
                "a quarter of the constant": partial(d.reverse_pinsker, constant=0.5),
                "without min β": partial(d.reverse_pinsker, least="none"),
            },
        ),
    ]


def _lags() -> list[Check]:
    d = divergences
    return [
        Check(
            "lag_split",
            "i",
            "TV(π,β) ≤ forward lag + backward lag",
            d.lag_split,
            {
                "forward lag alone": partial(d.lag_split, parts="forward"),
                "backward lag alone": partial(d.lag_split, parts="backward"),
            },
        ),
        Check(
            "lag_split_reverse",
            "i",
            "|forward lag − backward lag| ≤ TV(π,β)",
            d.lag_split_reverse,
            {"forward lag ≤ total lag": partial(d.lag_split_reverse, forward_only=True)},
        ),
        Check(
            "lag_chain",
            "i",
            "TV(π,β_M) ≤ sum along the buffer",
            d.lag_chain,
            {"without the last link": partial(d.lag_chain, drop_last=True)},
        ),
    ]


def _relations() -> list[Check]:
    d = divergences
    return [
        Check(
            "ratio_range",
            "j",
            "TV ≤ ½ max|ρ−1|",
            d.ratio_range,
            {"half the constant": partial(d.ratio_range, constant=0.25)},
        ),
        Check(
            "chi_squared",
            "j",
            "4(E TV)² ≤ χ²(π‖β)",
            d.chi_squared,
            {"twice the constant": partial(d.chi_squared, constant=8.0)},
        ),
        Check(
            "effective_sample_size",
            "j",
            "4(E TV)² ≤ 1/ESS − 1",
            d.effective_sample_size,
            {"twice the constant": partial(d.effective_sample_size, constant=8.0)},
        ),
        Check(
            "binary_variation",
            "j",
            "|π(a)−β(a)| ≤ TV(π,β)",
            d.binary_variation,
            {"summed over actions": partial(d.binary_variation, own="sum")},
        ),
        Check(
            "product_upper",
            "j",
            "TV(⊗) ≤ Σ TV_j",
            d.product_upper,
            {"largest for the sum": partial(d.product_upper, combine="max")},
        ),
        Check(
            "product_lower",
            "j",
            "Π(1−TV_j) ≤ 1−TV(⊗)",
            d.product_lower,
            {"the reverse": partial(d.product_lower, swapped=True)},
        ),
    ]


def _gradients() -> list[Check]:
    d = divergences
    return [
        Check(
            "subgradient",
            "g",
            "TV(π) + ⟨g, π_T−π⟩ ≤ TV(π_T)",
            d.subgradient,
            {
                "without the half": partial(d.subgradient, half=2.0),
                "ρ not divided out": partial(d.subgradient, keep_ratio=False),
            },
        ),
        Check(
            "softmax_gradient",
            "g",
            "mean c∇log π = ∇ ½mean|ρ−1|",
            d.softmax_gradient,
            {
                "without the half": partial(d.softmax_gradient, half=2.0),
                "without ρ": partial(d.softmax_gradient, keep_ratio=False),
            },
            identity=True,
        ),
    ]


def all_checks() -> list[Check]:
    """Every check, in the order of the tables."""
    performance = [*_identity_and_drift(), *_improvement(), *_off_policy(), *_trust_region()]
    variation = [*_estimators(), *_pinsker(), *_lags(), *_relations(), *_gradients()]
    return [*performance, *variation, *vtrace_checks(), *filter_checks()]
