"""What a batch says of the lag and of the filter, as sums: batches, micro-batches and processes add up.

Every entry of `Diagnostics` is a sum over samples, and every figure a quotient of two of them, so that gradient
accumulation and several processes give what one process gives that sees all samples. No figure is a mean of means.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaco.objectives.filters import Samples

# d lies in a bin if it is above the edge before and not above its own; the last bin holds the rest.
AGE_EDGES = (0, 1, 2, 4, 8, 16, 32)
AGES = (*(f"age_to_{edge}" for edge in AGE_EDGES), f"age_above_{AGE_EDGES[-1]}")

# Sums of w·x over samples. The first three are all that there is without a verdict or another policy.
OF_RATIO = (
    *("samples", "ratio", "squared_ratio", "total_lag", "bounded_total_variation"),
    *("chi_squared", "kl_k1", "kl_k2", "kl_k3"),
)
OF_LEARNER = ("forward_lag", "backward_lag")
OF_ENGINE = ("engine_mismatch", "engine_kl_k3")
OF_VERDICT = ("kept", "dropped_positive", "dropped_negative", "advantage", "squared_advantage", "coefficient")
OF_AGE = ("staleness", *AGES)
# Sums over batches, not over samples.
OF_BATCH = ("deviation", "fired", "batches", "nonfinite")
FIELDS = (*OF_RATIO, *OF_LEARNER, *OF_ENGINE, *OF_VERDICT, *OF_AGE, *OF_BATCH)
PLACES = {name: place for place, name in enumerate(FIELDS)}


class Statistic(NamedTuple):
    """The trigger's statistic as two sums, Σ w|deviation| and Σ w; both 0-d.

    Statistics of parts add up to that of the whole: ``sum(parts, Statistic.zero())``, `all_reduce` for processes.
    """

    total: Tensor
    samples: Tensor

    @staticmethod
    def zero() -> Statistic:
        """What adds nothing."""
        return Statistic(torch.zeros(()), torch.zeros(()))

    @property
    def mean(self) -> Tensor:
        """What the trigger compares with δ; 0 where there is no sample."""
        return mean_of(self.total, self.samples)

    def __add__(self, other: Statistic) -> Statistic:  # type: ignore[override]
        """The statistic of both parts together."""
        return Statistic(
            self.total.to(other.total.device) + other.total, self.samples.to(other.samples.device) + other.samples
        )

    def all_reduce(self, group: Any = None) -> Statistic:
        """The statistic of all processes' samples together, by ``torch.distributed`` where that is initialised."""
        total, samples = _all_reduce(torch.stack([self.total, self.samples]), group).unbind()
        return Statistic(total, samples)


def mean_of(total: Tensor, samples: Tensor) -> Tensor:
    """The quotient of two sums; 0 where there is no sample."""
    return total / torch.where(samples > 0, samples, torch.ones_like(samples))


class Diagnostics(NamedTuple):
    """Sums over a batch, in the order of `FIELDS`; [len(FIELDS)], NaN where a figure was not measured.

    ``a + b`` is what both batches give together, `all_reduce` what all processes give.
    """

    sums: Tensor

    def __add__(self, other: Diagnostics) -> Diagnostics:  # type: ignore[override]
        """The diagnostics of both batches together."""
        return Diagnostics(self.sums + other.sums)

    def all_reduce(self, group: Any = None) -> Diagnostics:
        """The diagnostics of all processes together, by ``torch.distributed`` where that is initialised."""
        return Diagnostics(_all_reduce(self.sums, group))

    def sum_of(self, name: str) -> Tensor:
        """One of `FIELDS`, 0-d."""
        return self.sums[..., PLACES[name]]

    @property
    def statistic(self) -> Statistic:
        """Σ w|deviation| and Σ w of the rule's trigger over these samples; NaN for a rule without one."""
        return Statistic(self.sum_of("deviation"), self.sum_of("samples"))

    def figures(self) -> dict[str, float]:
        """Every measured figure by name, as numbers to log; waits for the device once.

        Returns:
            ``samples`` and ``nonfinite`` as counts; ``kept_fraction``; ``dropped_positive`` and ``dropped_negative``,
            shares of samples whose gradient was dropped, by the advantage's sign; the lags as total variations;
            ``kl_k1`` to ``kl_k3``, estimates of KL(β‖π) in nats; ``ess``, a share; ``trigger_statistic`` and
            ``trigger_fraction`` over batches; ``staleness`` with a histogram as shares; the rest as means.
        """
        found = dict(zip(FIELDS, self.sums.detach().cpu().double().tolist(), strict=True))
        samples, batches = max(found["samples"], 1e-300), max(found["batches"], 1.0)
        names = {"kept": "kept_fraction", "deviation": "trigger_statistic", "ratio": "mean_ratio"}
        result = {names.get(name, name): found[name] / samples for name in FIELDS if name not in ("samples", *OF_BATCH)}
        result["trigger_statistic"] = found["deviation"] / samples
        result["trigger_fraction"] = found["fired"] / batches
        second = result.pop("squared_ratio")
        result["ess"] = result["mean_ratio"] ** 2 / second if second else 0.0
        counts = {"samples": found["samples"], "nonfinite": found["nonfinite"]}
        return counts | {name: value for name, value in result.items() if not math.isnan(value)}


def _all_reduce(sums: Tensor, group: Any) -> Tensor:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return sums
    total = sums.detach().clone()
    torch.distributed.all_reduce(total, group=group)
    return total


class Verdict(NamedTuple):
    """What a rule decided, as far as `measure` reads it."""

    coefficient: Tensor
    kept: Tensor
    deviation: Tensor  # 0-d, Σ w|deviation| of these samples
    fired: Tensor  # 0-d


@torch.no_grad()
def measure(
    x: Samples,
    *,
    has_learner: bool = True,
    staleness: Tensor | None = None,
    engine_ratio: Tensor | None = None,
    verdict: Verdict | None = None,
    nonfinite: Tensor | None = None,
) -> Diagnostics:
    """Sum everything that is known of a batch.

    Args:
        x: ρ, ρ_T, A and weights, all finite, any one shape.
        has_learner: whether ρ_T is known; else the two lags that need it are NaN.
        staleness: d, same shape.
        engine_ratio: the learner's own β over the inference engine's, same shape: 1 if both computed the same.
        verdict: what a rule decided.
        nonfinite: 0-d, samples left out because a number of theirs was not finite.
    """
    ratio, weights = x.ratio, torch.ones_like(x.ratio) if x.weights is None else x.weights
    log_ratio, away = ratio.log(), ratio - 1.0
    one = torch.ones_like(ratio)
    rows = [one, ratio, ratio**2, 0.5 * away.abs(), (-away).clamp(min=0.0), away**2]
    rows += [-log_ratio, 0.5 * log_ratio**2, away - log_ratio]
    known = [*OF_RATIO]
    if has_learner:
        rows += [0.5 * (ratio - x.learner_ratio).abs(), 0.5 * (x.learner_ratio - 1.0).abs()]
        known += OF_LEARNER
    if engine_ratio is not None:
        rows += [0.5 * (engine_ratio - 1.0).abs(), engine_ratio - 1.0 - engine_ratio.log()]
        known += OF_ENGINE
    if verdict is not None:
        a, dropped = x.advantages, ~verdict.kept
        rows += [verdict.kept.to(ratio), (dropped & (a > 0)).to(ratio), (dropped & (a < 0)).to(ratio)]
        rows += [a, a**2, verdict.coefficient]
        known += OF_VERDICT
    if staleness is not None:
        rows += [staleness.to(ratio), *(part.to(ratio) for part in _ages(staleness))]
        known += OF_AGE
    sums = (torch.stack([row * weights for row in rows])).flatten(1).sum(-1)
    unknown = torch.full_like(sums[0], math.nan)
    zero = torch.zeros_like(sums[0])
    deviation, fired = (unknown, zero) if verdict is None else (verdict.deviation, verdict.fired.to(sums))
    batch = torch.stack([deviation.to(sums), fired, zero + 1.0, zero if nonfinite is None else nonfinite.to(sums)])
    known += OF_BATCH
    # Float64 counts tokens exactly beyond 2²⁴; Apple's devices have none.
    every = torch.cat([sums, batch, unknown[None]])
    every = every if every.device.type == "mps" else every.double()
    where = {name: place for place, name in enumerate(known)}
    order = [where.get(name, len(known)) for name in FIELDS]
    return Diagnostics(every[torch.tensor(order, device=every.device)])


def _ages(staleness: Tensor) -> list[Tensor]:
    """Which samples lie in which bin of `AGES`; without `pairwise`, which PyTorch 2.4 cannot compile."""
    above = [staleness > edge for edge in AGE_EDGES]
    first = ~above[0]
    return [first, *(low & ~high for low, high in zip(above[:-1], above[1:], strict=True)), above[-1]]  # noqa: RUF007
