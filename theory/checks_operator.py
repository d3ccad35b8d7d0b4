"""The table of checks, second part: V-trace and the filter."""

from __future__ import annotations

from functools import partial

from theory import bounds, filter_guarantee, vtrace
from theory.check import Check


def vtrace_checks() -> list[Check]:
    """V-trace as an operator, its target and its bias."""
    v = vtrace
    return [
        Check("vtrace_monotone", "f", "K ≥ 0", v.monotone, {"c̄ > ρ̄": partial(v.monotone, swap_truncations=True)}),
        Check(
            "vtrace_row_sums",
            "f",
            "K1 = 1 − (1−γ)S",
            v.row_sums,
            {"γ/2 for γ": partial(v.row_sums, unit=0.5)},
            identity=True,
        ),
        Check(
            "vtrace_contraction",
            "f",
            "‖K‖∞ ≤ 1 − (1−γ) min E_β min(ρ̄,ρ_T)",
            v.contraction,
            {
                "c̄ > ρ̄": partial(v.contraction, swap_truncations=True),
                "largest mass for the smallest": partial(v.contraction, least_mass="max"),
            },
        ),
        Check(
            "vtrace_fixed_point",
            "f",
            "R V^{π_ρ̄} = V^{π_ρ̄}",
            v.fixed_point,
            {"V^{π_T} for V^{π_ρ̄}": partial(v.fixed_point, target="learner")},
            identity=True,
        ),
        Check(
            "vtrace_code",
            "f",
            "E[v₀] of the code that trains = V + Σ(γλP_c)ᵗg",
            v.code,
            {"ratio 1 for ρ_T": partial(v.code, wrong_ratio=True)},
            identity=True,
        ),
        Check(
            "target_between",
            "f",
            "max(TV(π_ρ̄,π_T), TV(π_ρ̄,β)) ≤ TV(π_T,β)",
            v.target_between,
            {
                "sum for the larger": partial(v.target_between, combine="sum"),
                "half the constant": partial(v.target_between, constant=0.5),
            },
        ),
        Check(
            "truncation_bias",
            "f",
            "|J(π_ρ̄)−J(π_T)| ≤ E_{d^{π_ρ̄}}[m·span A^{π_T}]/(1−γ), m = 1−Σmin(ρ̄β,π_T)",
            bounds.truncation_bias,
            {
                "half the constant": partial(bounds.truncation_bias, constant=0.5),
                "without 1/(1−γ)": partial(bounds.truncation_bias, horizon=False),
            },
        ),
        Check(
            "truncation_bias_lag",
            "f",
            "the same with TV(π_T,β) for m",
            partial(bounds.truncation_bias, mass="backward lag"),
            {
                "half the constant": partial(bounds.truncation_bias, mass="backward lag", constant=0.5),
                "without 1/(1−γ)": partial(bounds.truncation_bias, mass="backward lag", horizon=False),
            },
        ),
    ]


def filter_checks() -> list[Check]:
    """What the filter guarantees, and for which parametrisation."""
    f = filter_guarantee
    return [
        Check(
            "filter_per_sample",
            "filter 1",
            "⟨gᵢ,∇Dᵢ⟩ ≤ 0 for kept samples",
            f.per_sample,
            {
                "no filter": partial(f.per_sample, rule="none"),
                "PPO's clip": partial(f.per_sample, rule="clip"),
                "sign of ρ−1 for ρ−ρ_T": partial(f.per_sample, rule="tv_total"),
            },
        ),
        Check(
            "filter_direct",
            "filter 2",
            "direct tabular: D does not rise to first order",
            f.direct,
            {
                "no filter": partial(f.direct, rule="none"),
                "PPO's clip": partial(f.direct, rule="clip"),
                "ordinary softmax": f.softmax_any,
            },
        ),
        Check(
            "filter_direct_finite",
            "filter 2",
            "direct tabular: nor for a finite step",
            f.direct_finite,
            {"a thousand times the step": partial(f.direct_finite, overshoot=1e3)},
        ),
        Check(
            "filter_natural",
            "filter 3",
            "natural softmax: D does not rise to first order",
            f.natural,
            {"no filter": partial(f.natural, rule="none"), "PPO's clip": partial(f.natural, rule="clip")},
        ),
        Check(
            "filter_two_actions",
            "filter 4",
            "ordinary softmax, two actions: D does not rise",
            f.softmax_two_actions,
            {"three actions or more": f.softmax_any},
        ),
        Check(
            "filter_projected",
            "filter 5",
            "shared features with projection repair: D does not rise",
            f.shared_features,
            {"no repair": partial(f.shared_features, repair="none")},
        ),
    ]
