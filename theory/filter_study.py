"""What the filter does not guarantee, measured: TV rises after a filtered step, noise of the trigger, whole phases.

Problems are small enough that the forward lag E_{d^β} TV(π, π_T) is known exactly after every step; the filter sees
what it sees in training, a minibatch, or the exact expectation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from theory.parametrised import Direction, Problem, direction, draw, models, problem

Json = dict[str, Any]
DELTA = 0.2  # threshold of mean|ρ − ρ_T|, hence of TV at 0.1
LIMIT = DELTA / 2.0
BATCHES: tuple[int | None, ...] = (32, 128, 512, 2048, None)  # None: exact expectations
LENGTHS = tuple(float(v) for v in np.round(10.0 ** np.arange(-3.0, 0.51, 0.5), 6))
ARMS = ("none", "clip", "tv", "tv+projection")
PHASE_STEPS = 80
RATES = {"SGD": 0.5, "Adam": 0.02}


def over_the_threshold(rng: np.random.Generator, p: Problem) -> tuple[Tensor, Tensor]:
    """Ascend without a filter from θ_T until the forward lag passes δ/2, as a phase does.

    Args:
        rng: unused minibatches would be drawn from it; the ascent here is exact.
        p: the problems.

    Returns:
        Parameters [B, P] at the first crossing, and which problems crossed within 400 steps, bool [B].
    """
    parameters = p.learner_parameters.clone()
    crossed = torch.zeros(len(parameters), dtype=torch.bool)
    for _ in range(400):
        step = direction(p, parameters, p.weights, "none", DELTA)
        unit = step.ascent / step.ascent.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        parameters = parameters + 0.03 * torch.where(crossed[:, None], 0.0, unit)
        with torch.no_grad():
            crossed = crossed | (p.forward_lag(p.model.policy(parameters)) > LIMIT)
        if bool(crossed.all()):
            break
    return parameters, crossed


def after(p: Problem, parameters: Tensor, step: Direction, length: float) -> Tensor:
    """Exact forward lag after a step whose unrepaired size is `length`, [B]."""
    unit = step.plain.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    with torch.no_grad():
        return p.forward_lag(p.model.policy(parameters + length * step.ascent / unit))


def one_step(rng: np.random.Generator, batch: int = 2000) -> list[Json]:
    """Rate and size of increases of the forward lag after one step over the threshold.

    For every model, arm, minibatch size and step length: the share of triggered problems whose exact lag rises (by
    more than 1e-12), the mean relative rise of those, and the mean relative change of all. ``cost`` of the
    projection is the cosine between the repaired and the filtered gradient.
    """
    rows = []
    for model in models(rng, batch):
        p = problem(rng, model, batch)
        parameters, crossed = over_the_threshold(rng, p)
        with torch.no_grad():
            before = p.forward_lag(model.policy(parameters))
        for count in BATCHES:
            weights = draw(rng, p, count)
            for arm in ARMS:
                step = direction(p, parameters, weights, arm, DELTA)
                use = crossed & (step.triggered if arm.startswith("tv") else crossed)
                use = use & (step.plain.norm(dim=-1) > 1e-9)
                cosine = torch.nn.functional.cosine_similarity(step.ascent, step.plain, dim=-1)[use]
                for length in LENGTHS:
                    change = ((after(p, parameters, step, length) - before) / before)[use]
                    rises = change > 1e-12
                    row: Json = {"model": model.name, "arm": arm, "batch": count, "length": length}
                    row |= {"problems": int(use.sum()), "rate": float(rises.double().mean())}
                    row["rise"] = float(change[rises].mean()) if bool(rises.any()) else 0.0
                    row |= {"change": float(change.mean()), "cosine": float(cosine.mean())}
                    rows.append(row)
    return rows


def _move(parameters: Tensor, ascent: Tensor, state: list[Tensor], optimiser: str, number: int) -> Tensor:
    """One step of ascent; Adam's moments live in `state`, and go on moving parameters when the gradient is zero."""
    if optimiser == "SGD":
        return parameters + RATES["SGD"] * ascent
    state[0] = 0.9 * state[0] + 0.1 * ascent
    state[1] = 0.999 * state[1] + 0.001 * ascent**2
    first, second = state[0] / (1.0 - 0.9**number), state[1] / (1.0 - 0.999**number)
    return parameters + RATES["Adam"] * first / (second.sqrt() + 1e-8)


def phase(rng: np.random.Generator, p: Problem, arm: str, count: int | None, optimiser: str) -> Json:
    """One whole optimisation phase of `PHASE_STEPS` steps from π_T.

    Returns:
        Quantiles of exact lag over δ/2 along the phase; how many problems end, or ever are, above the threshold, and by
        how much; the share of steps in which a minibatch's trigger disagrees with the exact one, and in which it
        switches; the gain of the surrogate at the end.
    """
    parameters = p.learner_parameters.clone()
    state = [torch.zeros_like(parameters), torch.zeros_like(parameters)]
    lags, triggers, kept = [], [], []
    with torch.no_grad():
        start = (p.weights * p.learner_ratio * p.gains).sum((1, 2))
    for number in range(1, PHASE_STEPS + 1):
        step = direction(p, parameters, draw(rng, p, count), arm, DELTA)
        triggers.append(step.triggered)
        kept.append(step.kept)
        parameters = _move(parameters, step.ascent, state, optimiser, number)
        with torch.no_grad():
            policy = p.model.policy(parameters)
            lags.append(p.forward_lag(policy) / LIMIT)
    path, fired = torch.stack(lags), torch.stack(triggers)
    over = torch.cat([torch.zeros_like(path[:1]), path[:-1]]) > 1.0
    with torch.no_grad():
        gain = (p.states[:, :, None] * policy * p.gains).sum((1, 2)) - start
    final, peak = path[-1], path.amax(0)
    return {
        "model": p.model.name,
        "arm": arm,
        "batch": count,
        "optimiser": optimiser,
        "median": torch.quantile(path, 0.5, dim=1).tolist(),
        "ninetieth": torch.quantile(path, 0.9, dim=1).tolist(),
        "ends_above": float((final > 1.0).double().mean()),
        "ends_10_percent_above": float((final > 1.1).double().mean()),
        "ever_above": float((peak > 1.0).double().mean()),
        "mean_final": float(final.mean()),
        "mean_peak": float(peak.mean()),
        "worst_peak": float(peak.max()),
        "wrong_trigger": float((fired != over).double().mean()) if arm.startswith("tv") else None,
        "switches": float((fired[1:] != fired[:-1]).double().mean()) if arm.startswith("tv") else None,
        "kept": float(torch.stack(kept).mean()),
        "gain": float(gain.mean()),
    }


def run_filter_study(seed: int, advance: Callable[[str], None] = lambda name: None) -> Json:
    """The whole study.

    Args:
        seed: of the generator.
        advance: called with the name of each stage.

    Returns:
        The contents of filter.json.
    """
    rng = np.random.default_rng([seed, 5])
    advance("filter one step")
    steps = one_step(rng)
    phases = []
    for model in models(rng, 500):
        if model.name in ("12 features", "3 features"):
            continue
        p = problem(rng, model, 500)
        for optimiser in RATES:
            for count in (64, 512, None):
                advance(f"filter phase {model.name} {optimiser} {count}")
                phases += [phase(rng, p, arm, count, optimiser) for arm in ARMS]
    head = {"seed": seed, "delta": DELTA, "limit": LIMIT, "steps": PHASE_STEPS, "rates": RATES}
    return head | {"one_step": steps, "phases": phases}
