"""Align: how the advantage is estimated when the data come from an older policy.

Three choices, the rows of `ALIGNMENTS`:

* ``none``: GAE, as if the behaviour policy were the learner;
* ``once``: V-trace towards the learner π_T, computed before the phase's first gradient step and then frozen (VACO);
* ``continuous``: V-trace towards the current policy π, recomputed at every gradient step (IMPALA).

All three are one backward recursion (`vtrace`) with different ratios: 1, ρ_T, or ρ.

Time runs along the first axis. ``next_values[t]`` is the value of the true successor of step t, also where the
episode was cut by a time limit, so termination and truncation differ in exactly one place: a *terminated* step does
not bootstrap, a *truncated* one does, and the recursion crosses neither. *Dead* steps (the step on which a vector
environment resets and ignores the action) have zero advantage, and must get weight zero in every mean.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from vaco.objectives.pytorch import no_grad, torch

if TYPE_CHECKING:
    from torch import Tensor

from vaco.objectives.own import require_declaration, require_new


class Aligned(NamedTuple):
    """Advantages and value targets, both of shape [T, ...] and without gradient."""

    advantages: Tensor
    value_targets: Tensor


class Alignment(NamedTuple):
    """One way to estimate advantages."""

    name: str
    target: str | None  # the policy aligned to: None (as if on-policy), "learner" or "current"
    every_update: bool  # recomputed at every gradient step
    formula: str
    function: Callable[..., Aligned] | None = None  # of another package, in place of `vtrace`
    settings: type | None = None  # the frozen dataclass of settings that only this one has

    def estimate(self, own: Any, **given: Any) -> Aligned:
        """Advantages and value targets of whole trajectories.

        Args:
            own: an instance of `settings`, None if there are none.
            given: as for `vtrace`, `advantage_decay` apart.
        """
        if self.function is None:
            return vtrace(**given)
        return self.function(**given) if self.settings is None else self.function(**given, own=own)


ALIGNMENTS = {
    "none": Alignment("none", None, False, "A: GAE(λ), as if β were π_T"),
    "once": Alignment("once", "learner", False, "A: V-trace(λ) towards π_T, frozen for the phase"),
    "continuous": Alignment("continuous", "current", True, "A: V-trace(λ) towards π, at every update"),
}


def register(
    name: str, formula: str, *, target: Literal["learner", "current"] | None = "learner", settings: type | None = None
) -> Callable[[Callable[..., Aligned]], Callable[..., Aligned]]:
    """Enter a function in `ALIGNMENTS` under a name, with its formula for the table.

    Args:
        name: as written in ``ALIGN+FILTER``.
        formula: what the table prints of it.
        target: the policy whose ratio π_target/β the function is given: the learner, once a phase; the current one, at
            every gradient step; or None, for which the ratio is None.
        settings: a frozen dataclass of settings that only this alignment has, given to the function as ``own``.

    Returns:
        A decorator of functions that take the keywords of `vtrace` (`advantage_decay` apart) and return `Aligned`.

    Raises:
        UserError: the name is in use or no lower-case identifier, or `settings` is no frozen dataclass of plain values.
    """
    require_new("alignment", name, ALIGNMENTS)
    require_declaration(settings, f"the alignment '{name}'")

    def enter(function: Callable[..., Aligned]) -> Callable[..., Aligned]:
        @wraps(function)
        def detached(**given: Any) -> Aligned:
            with torch.no_grad():
                return function(**given)

        ALIGNMENTS[name] = Alignment(name, target, target == "current", formula, detached, settings)
        return detached

    return enter


def linear_recurrence(terms: Tensor, decays: Tensor) -> Tensor:
    """Solve x_t = terms_t + decays_t · x_{t+1} backwards in time, with x_T = 0.

    The maps x ↦ terms + decays·x compose associatively, so doubling the span log₂ T times (Hillis and Steele 1986)
    replaces T small steps by a few over the whole array; the sums are the recursion's own, in another order.

    Args:
        terms: shape [T, ...].
        decays: shape [T, ...].

    Returns:
        Shape [T, ...].
    """
    solution, reach, span = terms.clone(), decays.clone(), 1
    while span < len(terms):
        solution[:-span] += reach[:-span] * solution[span:]
        reach[:-span] = reach[:-span] * reach[span:]
        span *= 2
    return solution


@no_grad
def vtrace(
    *,
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    dead: Tensor | None = None,
    ratio: Tensor | None = None,
    discount: float,
    trace_decay: float,
    rho_bar: float = 1.0,
    c_bar: float = 1.0,
    advantage_decay: float | None = None,
) -> Aligned:
    """V-trace targets and advantages (Espeholt et al. 2018, Eq. 1, with λ), GAE(λ) when `ratio` is None.

    With ρ̄_t = min(ρ̄, ρ_t), c̄_t = min(c̄, ρ_t) and δ_t = r_t + γV(s_{t+1}) − V(s_t), the correction
    x_t = v_t − V(s_t) obeys x_t = ρ̄_t δ_t + γλ c̄_t x_{t+1}; then

        v_t = V(s_t) + x_t,        A_t = δ_t + γ·κ·x_{t+1},        κ = advantage_decay.

    κ = λ (the default) is the "GAE-V-trace" of GePPO (Queeney et al. 2021) and VACO's one-shot realignment: A_t is not
    itself multiplied by ρ_t, because an advantage is conditional on its action, and it equals GAE(λ) on-policy. κ = 1
    is IMPALA's r_t + γv_{t+1} − V(s_t). Neither carries the leading ρ̄_t of IMPALA's policy gradient: that factor
    belongs to the filter (`filters.truncated`).

    Args:
        rewards: r_t, shape [T, ...].
        values: V(s_t), shape [T, ...].
        next_values: V(s_{t+1}) of the true successor, shape [T, ...]; ignored where terminated.
        terminated: bool [T, ...], the episode ended in a terminal state: no bootstrap.
        truncated: bool [T, ...], the episode was cut: bootstrap, but do not look past it.
        dead: bool [T, ...], reset steps that are no transitions; None if there are none.
        ratio: target policy over behaviour policy, shape [T, ...]; None means on-policy: 1 everywhere, not truncated.
        discount: γ in [0, 1].
        trace_decay: λ in [0, 1].
        rho_bar: truncation ρ̄ of the temporal-difference weight.
        c_bar: truncation c̄ ≤ ρ̄ of the trace.
        advantage_decay: κ; None means λ.

    Returns:
        Advantages A and value targets v, shape [T, ...]; at dead steps A = 0 and v = V.

    Raises:
        ValueError: shapes differ, or c̄ > ρ̄, for which V-trace is no contraction (ALGORITHMS B.f).
    """
    given = (rewards, values, next_values, terminated, truncated, dead, ratio)
    shapes = {tuple(x.shape) for x in given if x is not None}
    if len(shapes) > 1:
        raise ValueError(f"rewards, values, flags and ratios must share one shape, got {sorted(shapes)}")
    if c_bar > rho_bar:
        raise ValueError(f"V-trace needs c_bar <= rho_bar, got c_bar={c_bar} and rho_bar={rho_bar}")
    live = torch.ones_like(terminated) if dead is None else ~dead
    crosses = live & ~terminated & ~truncated  # whether the recursion may look past step t
    # Selected, not multiplied by 0 or 1: what is ignored may be NaN.
    successors = torch.where(terminated, 0.0, next_values)
    deltas = torch.where(live, rewards + discount * successors - values, 0.0)
    rho = trace = torch.ones_like(deltas)
    if ratio is not None:
        rho, trace = (torch.where(live, ratio, 0.0).clamp(max=limit) for limit in (rho_bar, c_bar))
    decays = (discount * trace_decay) * torch.where(crosses, trace, 0.0)
    corrections = linear_recurrence(rho * deltas, decays)
    following = torch.zeros_like(corrections)
    following[:-1] = corrections[1:]
    kappa = trace_decay if advantage_decay is None else advantage_decay
    advantages = deltas + (discount * kappa) * torch.where(crosses, following, 0.0)
    return Aligned(advantages, torch.where(live, values + corrections, values))


def gae(
    *,
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    dead: Tensor | None = None,
    discount: float,
    trace_decay: float,
) -> Aligned:
    """Generalised advantage estimation (Schulman et al. 2016, Eq. 16): V-trace with every ratio equal to 1.

    Args:
        rewards: r_t, shape [T, ...].
        values: V(s_t), shape [T, ...].
        next_values: V(s_{t+1}) of the true successor, shape [T, ...].
        terminated: bool [T, ...].
        truncated: bool [T, ...].
        dead: bool [T, ...] or None.
        discount: γ.
        trace_decay: λ.

    Returns:
        Advantages and the λ-returns v = V + A.

    Raises:
        ValueError: shapes differ.
    """
    return vtrace(
        rewards=rewards,
        values=values,
        next_values=next_values,
        terminated=terminated,
        truncated=truncated,
        dead=dead,
        discount=discount,
        trace_decay=trace_decay,
    )


def standardise(advantages: Tensor, weights: Tensor | None = None) -> Tensor:
    """Centre advantages and scale them to unit variance over the live samples.

    Centring can change an advantage's sign, and with it the filter's verdict, so it is done once, before the filter,
    over one set of samples (ALGORITHMS 4.3 lists the order as undetermined).

    Args:
        advantages: any shape.
        weights: same shape, 1 for live and 0 for dead samples; None means all are live.

    Returns:
        Same shape; dead samples are zero.
    """
    if weights is None:
        weights = torch.ones_like(advantages)
    total = weights.sum().clamp(min=1.0)
    mean = (weights * advantages).sum() / total
    centred = weights * (advantages - mean)
    # Equal advantages leave only rounding errors, which must not be blown up to unit variance.
    floor = (10.0 * torch.finfo(advantages.dtype).eps * mean.abs()).clamp(min=1e-8)
    deviation = ((centred**2).sum() / total).sqrt()
    return torch.where(deviation > floor, centred / deviation.clamp(min=1e-30), torch.zeros_like(centred))


def scale(advantages: Tensor, weights: Tensor | None = None) -> Tensor:
    """Divide advantages by their standard deviation over the live samples, without centring.

    No advantage changes its sign, so the filters' verdicts are those of the raw advantages.

    Args:
        advantages: any shape.
        weights: same shape, 1 for live and 0 for dead samples; None means all are live.

    Returns:
        Same shape; dead samples are zero, and all are where the live ones are equal.
    """
    live = torch.ones_like(advantages) if weights is None else weights
    return _normalise(advantages, live, live, centre=False)


def standardise_under(advantages: Tensor, ratio: Tensor, weights: Tensor | None = None) -> Tensor:
    """Centre and scale advantages by their mean and standard deviation under the policy of `ratio`.

    With w = weight · ratio, m = Σ wA / Σ w and s² = Σ w (A − m)² / Σ w, the result is (A − m)/s. With ratio ρ_T these
    are the moments under π_T of advantages sampled from β, self-normalised: an advantage of π_T has mean zero under
    π_T, not under β.

    Args:
        advantages: any shape.
        ratio: same shape, non-negative.
        weights: same shape, 1 for live and 0 for dead samples; None means all are live.

    Returns:
        Same shape; dead samples are zero.
    """
    live = torch.ones_like(advantages) if weights is None else weights
    return _normalise(advantages, live, torch.where(live > 0, live * ratio, 0.0), centre=True)


def _normalise(advantages: Tensor, live: Tensor, measure: Tensor, centre: bool) -> Tensor:
    """(A − m)/s, or A/s without centring, with mean m and standard deviation s under `measure`; zero where not live."""
    total = measure.sum()
    total = torch.where(total > 0, total, torch.ones_like(total))
    mean = (measure * advantages).sum() / total
    deviation = ((measure * (advantages - mean) ** 2).sum() / total).sqrt()
    # As in `standardise`: equal advantages leave only rounding errors.
    floor = (10.0 * torch.finfo(advantages.dtype).eps * mean.abs()).clamp(min=1e-8)
    scaled = live * (advantages - mean if centre else advantages) / deviation.clamp(min=1e-30)
    return torch.where(deviation > floor, scaled, torch.zeros_like(scaled))
