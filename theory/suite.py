"""Run the float checks and their controls over many instances, and tell what happened in numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from theory import bounds, tolerance
from theory.bounds import Bound
from theory.check import Check
from theory.checks import all_checks
from theory.hard import hard_instances
from theory.instances import Instance, random_instances, select, to_json

Json = dict[str, Any]
LEAST_FOR_CONTROLS = 1000  # a control needs prey: it always sees at least this many random instances
BINS = np.linspace(-8.0, 0.0, 33)  # histogram of log10(left/right)
SCATTER = ("state_drift", "state_drift_coupled", "cpo", "off_policy", "off_policy_split", "off_policy_coupled", "trpo")


def make_instances(instances: int, seed: int) -> list[Instance]:
    """At least `instances` random instances and all hand-made ones, from one seed."""
    return random_instances(np.random.default_rng(seed), instances) + hard_instances()


def number(value: Tensor | float) -> float | None:
    """A finite float, or None for what JSON cannot hold."""
    plain = float(value)
    return plain if np.isfinite(plain) else None


def _tightest(check: Check, xs: Sequence[Instance], results: Sequence[Bound]) -> Json:
    """The largest left/right of an inequality and the instance that attains it."""
    best, where = -np.inf, None
    for x, bound in zip(xs, results, strict=True):
        if not len(bound.left):
            continue
        share = torch.nan_to_num(bound.attained, nan=-np.inf)
        index = int(share.argmax())
        if float(share[index]) > best:
            best, where = float(share[index]), (x, index)
    if check.identity or where is None or best <= 0.0:
        return {"tightest": None}
    x, index = where
    found: Json = {"tightest": best, "family": x.family, "discount": float(x.mdp.discount[index])}
    if x.mdp.states <= 4:
        found["instance"] = to_json(select(x, index))
    return found


def _histograms(xs: Sequence[Instance], results: Sequence[Bound]) -> Json:
    """Counts of log10(left/right) in `BINS` for each family of random processes, below and above included."""
    families: dict[str, np.ndarray[Any, Any]] = {}
    for x, bound in zip(xs, results, strict=True):
        share = bound.attained.numpy()
        share = share[np.isfinite(share) & (share > 0)]
        counts = np.histogram(np.clip(np.log10(np.maximum(share, 1e-300)), BINS[0], BINS[-1]), BINS)[0]
        families[x.family] = families.get(x.family, np.zeros(len(BINS) - 1, dtype=int)) + counts
    return {name: counts.tolist() for name, counts in families.items() if counts.sum() >= 20}


def _scatter(xs: Sequence[Instance], results: Sequence[Bound], most: int = 1500) -> Json:
    """Mean TV(π, β), γ and left/right of evenly chosen instances: attained share against distance."""
    variation = torch.cat([bounds.mean_variation(x.behaviour_states, x.current, x.behaviour) for x in xs])
    discount = torch.cat([x.mdp.discount for x in xs])
    share = torch.cat([b.attained for b in results])
    index = torch.nonzero(torch.isfinite(share) & (share > 0))[:, 0]
    index = index[:: max(1, len(index) // most)]
    columns = {"variation": variation, "discount": discount, "attained": share}
    return {name: [float(f"{v:.4g}") for v in column[index].tolist()] for name, column in columns.items()}


def run_check(check: Check, xs: Sequence[Instance], detail: bool = True) -> Json:
    """Evaluate one check on every instance.

    Args:
        check: the statement.
        xs: batches of instances.
        detail: with the histograms and the tightest instance.

    Returns:
        A row of the table: counts, least slack, tightest share, seconds, and for figures the histograms.
    """
    started = time.perf_counter()
    results = [check.function(x) for x in xs]
    seconds = time.perf_counter() - started
    slack = torch.cat([b.slack for b in results])
    error = torch.cat([b.error for b in results])
    violated = torch.cat([b.violated | torch.isnan(b.slack) for b in results])
    row: Json = {
        "name": check.name,
        "section": check.section,
        "statement": check.statement,
        "kind": "identity" if check.identity else "inequality",
        "instances": len(slack),
        "violations": int(violated.sum()),
        "undecided": sum(int(b.undecided.sum()) for b in results),
        "empty": sum(int(b.empty.sum()) for b in results),
        "minimum_slack": number(slack.min()),
        "largest_rounding_used": number((-slack / error.clamp(min=1e-300)).max()),
        "seconds": seconds,
    }
    row |= _tightest(check, xs, results)
    if detail and not check.identity:
        row["histograms"] = _histograms(xs, results)
    if detail and check.name in SCATTER:
        row["scatter"] = _scatter(xs, results)
    return row


def run_controls(check: Check, xs: Sequence[Instance]) -> list[Json]:
    """Evaluate the controls of one check; each must be violated somewhere.

    Returns:
        For each control: its name, instances, violations, the largest violation in units of rounding, and `failed`,
        true when it failed as it must.
    """
    rows = []
    for dropped, function in check.controls.items():
        results = [function(x) for x in xs]
        excess = torch.cat([-b.slack / b.error.clamp(min=1e-300) for b in results])
        count = sum(int(b.violated.sum()) for b in results)
        rows.append(
            {
                "check": check.name,
                "dropped": dropped,
                "instances": len(excess),
                "violations": count,
                "largest_in_rounding_units": number(excess[torch.isfinite(excess)].max()),
                "failed": count > 0,
            }
        )
    return rows


def lag_columns(xs: Sequence[Instance], most: int = 1500) -> Json:
    """Total, forward and backward lag (mean TV under d^β) of evenly chosen instances with some lag."""

    def column(p: str, q: str) -> Tensor:
        pairs = [bounds.mean_variation(x.behaviour_states, getattr(x, p), getattr(x, q)) for x in xs]
        return torch.cat(pairs)

    columns = {
        "total": column("current", "behaviour"),
        "forward": column("current", "learner"),
        "backward": column("learner", "behaviour"),
    }
    index = torch.nonzero(columns["forward"] + columns["backward"] > 1e-6)[:, 0]
    index = index[:: max(1, len(index) // most)]
    return {name: [float(f"{v:.4g}") for v in values[index].tolist()] for name, values in columns.items()}


def conditioning(xs: Sequence[Instance]) -> Json:
    """How ill-conditioned the instances were: quantiles of (1 + γ)/(1 − γ) and of the tolerance on J over |J|."""
    condition = torch.cat([tolerance.condition(x.mdp.discount) for x in xs])
    relative = torch.cat([tolerance.surrogate_error(x.mdp) / x.mdp.horizon for x in xs])
    levels = torch.tensor([0.5, 0.9, 1.0], dtype=torch.float64)
    return {
        "condition_quantiles_50_90_100": torch.quantile(condition, levels).tolist(),
        "tolerance_on_J_in_horizons_50_90_100": torch.quantile(relative, levels).tolist(),
    }


def run_suite(instances: int, seed: int, advance: Callable[[str], None] = lambda name: None) -> tuple[Json, Json]:
    """All checks and all controls.

    Args:
        instances: how many random instances, at least.
        seed: of the generator.
        advance: called with the name of each check before it runs.

    Returns:
        The contents of checks.json and of controls.json.
    """
    started = time.perf_counter()
    xs = make_instances(instances, seed)
    prey = xs if instances >= LEAST_FOR_CONTROLS else make_instances(LEAST_FOR_CONTROLS, seed)
    rows, controls = [], []
    for check in all_checks():
        advance(check.name)
        rows.append(run_check(check, xs))
        controls += run_controls(check, prey)
    seconds = time.perf_counter() - started
    head = {"instances": instances, "seed": seed, "seconds": seconds, "conditioning": conditioning(xs)}
    head["lags"] = lag_columns(xs)
    return head | {"bins": BINS.tolist(), "checks": rows}, {"instances": instances, "seed": seed, "controls": controls}
