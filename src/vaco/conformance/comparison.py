"""The comparison: coefficients of a loss and of a row, sample by sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from vaco.conformance.batches import Batch, broken_batches, hard_batches
from vaco.errors import UserError
from vaco.loss import policy_loss
from vaco.objectives.rules import OWN, Rule, Settings, as_settings, find_rule, rules

Loss = Callable[[Tensor, Batch], Tensor]
"""Of log π [B, T], with gradients, and a batch: 0-d."""
Coefficients = Callable[[Batch], Tensor]
DENOMINATORS = ("samples", "sequences", "sum")
PLAINER = {"clip_asymmetric": "clip"}
"""Rows that at equal numbers are another one, by which a loss is then called."""
TOLERANCE = 2e-4


@dataclass(frozen=True)
class Difference:
    """The first sample on which two coefficients differ."""

    batch: str
    place: tuple[int, ...]
    theirs: float
    row: float
    ratio: float
    advantage: float


@dataclass(frozen=True)
class Report:
    """How a loss compares with a row.

    Attributes:
        rule: the row's name.
        samples: samples compared.
        differing: how many of them differ.
        first: the first of them.
    """

    rule: str
    samples: int
    differing: int
    first: Difference | None

    @property
    def equal(self) -> bool:
        """Whether the loss is the row."""
        return self.differing == 0

    @property
    def share(self) -> float:
        """Share of samples that differ."""
        return self.differing / self.samples

    def __str__(self) -> str:
        if self.first is None:
            return f"equal to '{self.rule}' on {self.samples} samples"
        x = self.first
        return (
            f"differs from '{self.rule}' on {100 * self.share:.1f} % of {self.samples} samples, first in the batch "
            f"'{x.batch}' at {list(x.place)}: c = {x.theirs:.6g}, the row has {x.row:.6g} "
            f"(ratio {x.ratio:.6g}, advantage {x.advantage:.6g})"
        )


def coefficients(loss: Loss, batch: Batch, denominator: str = "samples") -> Tensor:
    """C of every sample, zero where masked: −∂loss/∂log π times what the loss divides by.

    Args:
        loss: the loss.
        batch: where it is evaluated.
        denominator: what it divides by: ``samples``, all that are not masked; ``sequences``, each one's length and
            their number; ``sum``, nothing.

    Raises:
        UserError: the loss is no 0-d tensor that depends on log π.
    """
    if denominator not in DENOMINATORS:
        raise UserError(f"the denominator is '{denominator}', but it is one of {', '.join(DENOMINATORS)}")
    logp = batch.logp.clone().requires_grad_()
    value = loss(logp, batch)
    if not isinstance(value, Tensor) or value.dim() or not value.requires_grad:
        raise UserError("the loss must be a 0-d tensor that carries the gradient of log π: return the reduced loss")
    (gradient,) = torch.autograd.grad(value, logp)
    mask = batch.mask.to(gradient)
    scale: Tensor | float = 1.0
    if denominator == "samples":
        scale = mask.sum()
    elif denominator == "sequences":
        length = mask.sum(-1, keepdim=True)
        scale = length * (length > 0).sum()
    return -gradient * scale * mask


def of_row(rule: str, settings: Settings | None) -> Coefficients:
    """The coefficients of a row of `vaco.rules`."""
    entry = find_rule(rule)

    def found(batch: Batch) -> Tensor:
        def loss(logp: Tensor, x: Batch) -> Tensor:
            return policy_loss(
                logp,
                behaviour_logp=x.behaviour_logp,
                learner_logp=x.learner_logp,
                advantages=x.advantages,
                mask=x.mask,
                staleness=x.staleness,
                rule=entry.name,
                settings=settings,
            )[0]

        return coefficients(loss, batch)

    return found


def compare(
    loss: Loss,
    rule: str,
    settings: Settings | None = None,
    *,
    denominator: str = "samples",
    padded: bool = True,
    learner: bool = True,
    one_advantage: bool = False,
    batches: Sequence[Batch] | None = None,
) -> Report:
    """Compare a loss with a row on the hard batches.

    Args:
        loss: of log π and a batch.
        rule: a name of `vaco.rules`.
        settings: the row's numbers, which are to be the loss's own.
        denominator: what the loss divides by, see `coefficients`.
        padded: whether the loss knows a mask.
        learner: whether it tells β from π_T; False compares on batches where both are one.
        one_advantage: whether it knows one advantage a row, not one a token.
        batches: others than `hard_batches`.
    """
    numbers = as_settings(settings, find_rule(rule))
    hard = hard_batches(numbers, padded=padded, learner=learner, one_advantage=one_advantage)
    chosen = hard if batches is None else batches
    theirs = [coefficients(loss, batch, denominator) for batch in chosen]
    return _report(rule, settings, chosen, theirs)


def closest(
    loss: Loss,
    settings: Settings | None = None,
    *,
    denominator: str = "samples",
    padded: bool = True,
    learner: bool = True,
    one_advantage: bool = False,
) -> list[Report]:
    """A loss beside every row that reads no more than it does, the nearest first; arguments as for `compare`.

    A setting that only one row has, such as ``filter.cap``, counts for the rows that have it.
    """
    # Where π_T is β, rows that read π_T are others' equals, and say nothing.
    rows = {rule.name: rule for rule in rules().values() if learner or not rule.needs_learner}
    numbers = {name: _of_rule(settings, rule) for name, rule in rows.items()}
    chosen = hard_batches(
        as_settings(_of_rule(settings, None)), padded=padded, learner=learner, one_advantage=one_advantage
    )
    theirs = [coefficients(loss, batch, denominator) for batch in chosen]
    found = {name: _report(name, numbers[name], chosen, theirs) for name in rows}
    twins = {name for name, plain in PLAINER.items() if plain in found and found[plain].equal}
    return sorted((found[name] for name in rows if name not in twins), key=lambda report: report.differing)


def _of_rule(settings: Settings | None, rule: Rule | None) -> Settings | None:
    """Settings without those that only other rows have."""
    if settings is None or not isinstance(settings, Mapping):
        return settings
    declared = None if rule is None else rule.settings
    own = () if declared is None else tuple(f"{OWN}{field.name}" for field in fields(declared))
    return {name: value for name, value in settings.items() if not name.startswith(OWN) or name in own}


def _report(rule: str, settings: Settings | None, batches: Sequence[Batch], theirs: Sequence[Tensor]) -> Report:
    row, samples, differing, first = of_row(rule, settings), 0, 0, None
    for batch, given in zip(batches, theirs, strict=True):
        wanted = row(batch)
        wrong = batch.mask & ~torch.isclose(given, wanted, rtol=TOLERANCE, atol=TOLERANCE)
        samples += int(batch.mask.sum())
        differing += int(wrong.sum())
        if first is None and bool(wrong.any()):
            place = tuple(wrong.nonzero()[0].tolist())
            ratio = math.exp(float(batch.logp[place] - batch.behaviour_logp[place]))
            first = Difference(
                batch.name, place, float(given[place]), float(wanted[place]), ratio, float(batch.advantages[place])
            )
    return Report(rule, samples, differing, first)


def robustness(loss: Loss, settings: Settings | None = None) -> dict[str, str]:
    """What a loss makes of broken batches: ``finite``, ``not finite`` (it or any gradient), or the error's name."""
    found = {}
    for name, batch in broken_batches(as_settings(_of_rule(settings, None))).items():
        logp = batch.logp.clone().requires_grad_()
        try:
            value = loss(logp, batch)
            (gradient,) = torch.autograd.grad(value, logp)
            finite = bool(value.isfinite()) and bool(gradient.isfinite().all())
            found[name] = "finite" if finite else "not finite"
        except Exception as error:  # whatever a foreign loss raises is the answer
            found[name] = type(error).__name__
    return found


def assert_matches(
    loss: Loss,
    rule: str,
    settings: Settings | None = None,
    *,
    denominator: str = "samples",
    padded: bool = True,
    learner: bool = True,
    one_advantage: bool = False,
) -> None:
    """Raise an AssertionError that names the first sample, unless the loss is the row; arguments as for `compare`."""
    report = compare(
        loss, rule, settings, denominator=denominator, padded=padded, learner=learner, one_advantage=one_advantage
    )
    if not report.equal:
        raise AssertionError(f"the loss {report}")
