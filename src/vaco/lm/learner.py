"""One gradient step on a minibatch of responses: log-probabilities, ratios, the filter's verdict, backward, AdamW.

No surrogate is differentiated: as in MuJoCo, every response token has a coefficient c from the algorithm's rule, and
the step ascends Σ c log π(token) / number of response tokens. The denominator counts filtered tokens too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vaco.errors import UserError
from vaco.lm.config import LMConfig
from vaco.lm.model import recomputing
from vaco.lm.parallel import ALONE, Group
from vaco.lm.sample import Responses
from vaco.lm.terms import Terms, pieces_by_length, token_logp, token_terms, trimmed_terms
from vaco.lm.weights import trained
from vaco.objectives import regressions
from vaco.objectives import tokens as rules
from vaco.objectives.divergence import effective_sample_size, sampled_total_variation
from vaco.objectives.filters import Samples

LOG_RATIO_LIMIT = 20.0
MOST_SKIPPED = 10
"""Steps on end with a gradient that is not finite, after which training stops."""


@dataclass(frozen=True)
class Round:
    """What a generation round leaves to its gradient steps; rows are grouped by problem.

    Attributes:
        responses: the responses, [rows].
        rewards: 1 for a right answer, else 0, [rows].
        advantages: [rows].
        versions: the update after which each row's behaviour policy was taken, [rows].
        reference_logp: log π_ref of each whole response for TBA, else zeros, [rows].
        order: the problems' order in the minibatches.
        aligned_logp: log β of each response token, evaluated by the learner's own forward pass, [rows, new_tokens];
            None where that is what generation computes, to rounding.
    """

    responses: Responses
    rewards: Tensor
    advantages: Tensor
    versions: Tensor
    reference_logp: Tensor
    order: Tensor
    aligned_logp: Tensor | None = None

    def take(self, rows: Tensor) -> Round:
        """Some of the rows, trimmed to the longest of them; `order` is left as it is."""
        responses = self.responses.take(rows)
        aligned = None if self.aligned_logp is None else self.aligned_logp[rows, : responses.behaviour_logp.shape[1]]
        own = {name: getattr(self, name)[rows] for name in ("rewards", "advantages", "versions", "reference_logp")}
        return replace(self, responses=responses, aligned_logp=aligned, **own)


def group_advantages(rewards: Tensor, kind: str) -> Tensor:
    """Advantages of responses from the rewards of their group.

    Args:
        rewards: [groups, members].
        kind: `grpo` divides the centred rewards by their standard deviation (unbiased, plus 1e-6), `dr_grpo` only
            centres, `rloo` subtracts the mean of the others.

    Returns:
        Same shape; zero for a group whose rewards are all equal.
    """
    centred = rewards - rewards.mean(-1, keepdim=True)
    if kind == "grpo":
        return centred / (rewards.std(-1, keepdim=True) + 1e-6)
    if kind == "rloo":
        return centred * rewards.shape[-1] / (rewards.shape[-1] - 1)
    return centred


def make_optimizer(config: LMConfig, moved: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW as the settings say.

    Args:
        config: the run's configuration.
        moved: what is trained.

    Raises:
        ModuleNotFoundError: the extra `eight-bit` is not installed.
    """
    if config.optimizer == "adamw_8bit":
        # Parameters of fewer than 4,096 numbers keep moments in float32: bitsandbytes' own default.
        from bitsandbytes.optim import AdamW8bit as AdamW
    else:
        from torch.optim import AdamW
    made: torch.optim.Optimizer = AdamW(
        moved, lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.99)
    )
    return made


class Learner:
    """The model, its optimizer, and one method that makes a gradient step."""

    def __init__(self, config: LMConfig, model: torch.nn.Module, group: Group = ALONE) -> None:
        """Prepare the optimizer.

        Args:
            config: the run's configuration.
            model: trained in place.
            group: the processes that make each step together.
        """
        self.config, self.model, self.group = config, model, group
        self.moved = [value for _, value in trained(model)]
        self.algorithm, self.settings = config.parsed, config.token_settings
        self.skipped = 0  # steps on end
        self.optimizer = make_optimizer(config, self.moved)

    def step(self, batch: Round, proximal_logp: Tensor | None, update: int) -> dict[str, float]:
        """Make one gradient step.

        Args:
            batch: the minibatch, whole groups.
            proximal_logp: log π_T of every response token, [rows, new_tokens]; None where π_T = β.
            update: gradient steps made before this one, the current policy's version.

        Returns:
            Diagnostics by column name.

        Raises:
            UserError: the gradient was not finite in `MOST_SKIPPED` steps on end, none of which was made.
        """
        responses = batch.responses
        self.optimizer.zero_grad(set_to_none=True)
        tokens = responses.mask.sum().clamp(min=1)
        denominator = tokens
        if self.config.denominator == "constant":
            denominator = tokens.new_tensor(len(batch.rewards) * self.config.new_tokens)
        with recomputing(self.model, self.config.gradient_checkpointing):
            verdict, entropy = self._backward(batch, proximal_logp, update, denominator)
        rate = self.config.learning_rate * min(1.0, (update + 1) / max(1, self.config.warmup_updates))
        norm = torch.nn.utils.clip_grad_norm_(self.moved, self.config.max_grad_norm)
        made = bool(torch.isfinite(norm))
        self.skipped = 0 if made else self.skipped + 1
        if self.skipped >= MOST_SKIPPED:
            raise UserError(
                f"the gradient was not finite in {self.skipped} steps on end, up to update {update + 1}: lower "
                f"learning_rate (now {self.config.learning_rate}) or use a filter that bounds the ratio"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if made:
            self.optimizer.step()
        mean_entropy = float(entropy.sum()) / float(tokens)
        return {
            **verdict.diagnostics,
            "entropy": mean_entropy,
            "grad_norm": float(norm),
            "learning_rate": rate,
            "skipped": float(not made),
        }

    def _backward(
        self, batch: Round, proximal_logp: Tensor | None, update: int, denominator: Tensor
    ) -> tuple[Verdict, Tensor]:
        """Leave the minibatch's gradient in the parameters; its verdict and the entropy of every token.

        Too large a minibatch is cut into pieces. A rule that looks at every response alone then needs one pass; one
        with a statistic of the minibatch needs another without gradient first.
        """
        responses, at_once = batch.responses, self.config.tokens_at_once
        if self.group.size > 1:
            return self._backward_shared(batch, proximal_logp, update, denominator)
        if int(responses.tokens.numel()) <= at_once:
            current, entropy = self._terms(responses)
            verdict = self._coefficients(batch, current.detach(), proximal_logp, update)
            _descend(verdict.coefficient, current, denominator)
            assert entropy is not None
            return verdict, entropy
        pieces = pieces_by_length(responses, at_once)
        if self.algorithm.filter is None or not self.algorithm.filter.alone:
            with torch.no_grad():
                current, entropy = self._terms(responses)
            verdict = self._coefficients(batch, current, proximal_logp, update)
            for rows in pieces:
                part = token_logp(self.model, responses.take(rows), self.config.logits_at_once)
                _descend(verdict.coefficient[rows, : part.shape[1]], part, denominator)
            assert entropy is not None
            return verdict, entropy
        current, entropy = (torch.zeros_like(responses.behaviour_logp) for _ in range(2))
        mean_length = responses.response_lengths.double().mean()
        for rows in pieces:
            piece = batch.take(rows)
            terms = token_terms(self.model, piece.responses, logits_at_once=self.config.logits_at_once)
            width = terms.logp.shape[1]
            near = None if proximal_logp is None else proximal_logp[rows, :width]
            own = self._coefficients(piece, terms.logp.detach(), near, update, mean_length)
            _descend(own.coefficient, terms.logp, denominator)
            current[rows, :width] = terms.logp.detach()
            assert terms.entropy is not None
            entropy[rows, :width] = terms.entropy
        return self._coefficients(batch, current, proximal_logp, update), entropy

    def _terms(self, responses: Responses) -> Terms:
        at_once, logits = self.config.tokens_at_once, self.config.logits_at_once
        return trimmed_terms(self.model, responses, at_once=at_once, logits_at_once=logits)

    def _backward_shared(
        self, batch: Round, proximal_logp: Tensor | None, update: int, denominator: Tensor
    ) -> tuple[Verdict, Tensor]:
        """`_backward` of several processes: each takes its rows through the model, and all judge all rows."""
        responses, group = batch.responses, self.group
        count = len(responses.tokens)
        rows = group.rows(responses.tokens)
        own = responses.take(rows)
        whole = int(own.tokens.numel()) <= self.config.tokens_at_once
        with torch.set_grad_enabled(whole):
            terms = self._terms(own)
        assert terms.entropy is not None
        width = responses.behaviour_logp.shape[1]
        current, entropy = (
            torch.nn.functional.pad(every, (0, width - every.shape[1]))
            for every in (group.together(part, count) for part in (terms.logp.detach(), terms.entropy))
        )
        verdict = self._coefficients(batch, current, proximal_logp, update)
        mine = verdict.coefficient[rows, : terms.logp.shape[1]]
        if whole:
            _descend(mine, terms.logp, denominator)
        else:
            for some in pieces_by_length(own, self.config.tokens_at_once):
                part = token_logp(self.model, own.take(some), self.config.logits_at_once)
                _descend(mine[some, : part.shape[1]], part, denominator)
        group.add_up(value.grad for value in self.moved if value.grad is not None)
        return verdict, entropy

    def _coefficients(
        self,
        batch: Round,
        current: Tensor,
        proximal_logp: Tensor | None,
        update: int,
        mean_length: Tensor | None = None,
    ) -> Verdict:
        """The coefficient of every response token, zero elsewhere, and the minibatch's diagnostics.

        Args:
            batch: the minibatch or a part of it.
            current: log π, [rows, new_tokens].
            proximal_logp: log π_T, same shape; None where π_T = β.
            update: the current policy's version.
            mean_length: of the whole minibatch's responses, tokens; by default of those in `batch`.
        """
        responses, mask = batch.responses, batch.responses.mask
        weights = mask.to(current.dtype)
        log_ratio = (current - responses.behaviour_logp) * weights
        log_learner = torch.zeros_like(log_ratio) if proximal_logp is None else proximal_logp - responses.behaviour_logp
        ratio = log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
        learner_ratio = (log_learner * weights).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
        advantages = batch.advantages[:, None].expand_as(ratio)
        staleness = self._staleness(batch.versions, update)[:, None].expand_as(ratio)
        samples = Samples(ratio=ratio, learner_ratio=learner_ratio, advantages=advantages, weights=weights)
        seen = rules.Tokens(samples, staleness, responses.behaviour_logp)
        lengths = responses.response_lengths[:, None]
        if self.config.level != "token":
            shares = lengths.clamp(min=1) if self.config.level == "sequence" else torch.ones_like(lengths)
            seen = _whole_responses(seen, log_ratio / shares, log_learner * weights / shares)
        if self.algorithm.filter is None:
            coefficient = self._regression(batch, log_ratio.sum(-1), current).to(ratio.dtype)[:, None] * weights
            kept, triggered, moved = mask, False, coefficient != 0
        else:
            verdict = self.algorithm.filter.function(seen, self.settings)
            coefficient = verdict.coefficient.expand_as(weights) * weights
            if self.config.level == "sequence":  # ∇ of a mean over the response's tokens, and a mean over responses
                mean = responses.response_lengths.double().mean() if mean_length is None else mean_length
                coefficient = coefficient * (mean / lengths.clamp(min=1)).to(coefficient.dtype)
            kept, triggered = verdict.kept.expand_as(mask), bool(verdict.triggered)
            moved = advantages != 0
        return Verdict(
            coefficient,
            _diagnose(samples, kept, triggered, staleness, mask, self.config.clip)
            | self._split(batch, samples, proximal_logp is not None)
            | _signal(kept, moved, mask),
        )

    def _split(self, batch: Round, x: Samples, evaluated: bool) -> dict[str, float]:
        """What of the total lag was there before the policy moved away from π_T.

        With β' for β as the learner computes it, ρ − 1 = (β'/β − 1) + (ρ_T − β'/β) + (ρ − ρ_T), token by token: what
        generation and learner compute differently, the backward lag and the forward lag. Of each half the mean|·| is
        measured; by the triangle inequality their sum bounds the total lag.

        Args:
            batch: the minibatch.
            x: its ratios.
            evaluated: whether ρ_T was, rather than set to 1.
        """
        aligned = torch.ones_like(x.ratio)
        if batch.aligned_logp is not None:
            difference = (batch.aligned_logp - batch.responses.behaviour_logp) * batch.responses.mask
            aligned = difference.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
        mismatch = float(sampled_total_variation(aligned, 1.0, x.weights))
        backward = float(sampled_total_variation(x.learner_ratio, aligned, x.weights))
        unknown = not evaluated and self.config.stale
        return {"mismatch": mismatch, "backward_lag": float("nan") if unknown else backward}

    def _staleness(self, versions: Tensor, update: int) -> Tensor:
        """Policy versions from the behaviour policy to the current one.

        In the algorithm's own unit, see `tokens.UNITS`. Where it is rounds or train steps, which are one here, A-3PO
        is the clip of PPO against β at K = 1.
        """
        if self.algorithm.unit == "steps":
            return update - versions
        size = self.config.minibatches
        age = update // size - versions // size
        return age + 1 if self.algorithm.unit == "rounds" else age.clamp(min=1)

    def _regression(self, batch: Round, log_ratio: Tensor, current: Tensor) -> Tensor:
        """Coefficients of whole responses [rows] under TBA or OAPL."""
        groups = (-1, self.config.samples)
        rewards = batch.rewards.reshape(groups)
        if self.algorithm.regression == "oapl":
            value = regressions.oapl_coefficient(rewards, log_ratio.reshape(groups), self.settings.temperature)
        else:
            from_reference = (current.sum(-1) - batch.reference_logp).reshape(groups)
            value = regressions.tba_coefficient(rewards, from_reference, self.settings.temperature)
        return value.reshape(-1)


def _descend(coefficient: Tensor, logp: Tensor, denominator: Tensor) -> None:
    """Add the gradient of −Σ c log π / denominator to the parameters'."""
    loss = -(coefficient * logp).sum() / denominator
    loss.backward()  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Verdict:
    """Coefficients [rows, new_tokens] and diagnostics."""

    coefficient: Tensor
    diagnostics: dict[str, float]


def _whole_responses(x: rules.Tokens, log_ratio: Tensor, log_learner: Tensor) -> rules.Tokens:
    """The same minibatch with one sample a response: the exponential of summed log-ratios, [rows, 1].

    As they are the sum is the product of a response's ratios; divided by its length before, their geometric mean, which
    is GSPO's ratio (arXiv 2507.18071).
    """
    limit = LOG_RATIO_LIMIT
    samples = x.samples._replace(
        ratio=log_ratio.sum(-1, keepdim=True).clamp(-limit, limit).exp(),
        learner_ratio=log_learner.sum(-1, keepdim=True).clamp(-limit, limit).exp(),
        advantages=x.samples.advantages[:, :1],
        weights=torch.ones_like(log_ratio[:, :1]),
    )
    behaviour = (x.behaviour_logp * x.weights).sum(-1, keepdim=True)
    return replace(x, samples=samples, staleness=x.staleness[:, :1], behaviour_logp=behaviour)


def _signal(kept: Tensor, moved: Tensor, mask: Tensor) -> dict[str, float]:
    """How many tokens have a signal at all, and what becomes of these.

    In a group whose rewards are all equal no token can gain or lose a gradient, so that it would only water a share
    down that is to say how much a rule drops.

    Args:
        kept: whether the rule left a token its gradient.
        moved: whether the token has a signal: an advantage, or a coefficient of a regression.
        mask: the response tokens.
    """
    signal = float((moved & mask).sum())
    dropped = float((~kept & moved & mask).sum()) / signal if signal else 0.0
    return {"signal_fraction": signal / max(float(mask.sum()), 1.0), "dropped_signal": dropped}


def _diagnose(
    x: Samples, kept: Tensor, triggered: bool, staleness: Tensor, mask: Tensor, clip: float
) -> dict[str, float]:
    """What is measured at every gradient step, before it is made."""
    weights = mask.to(x.ratio.dtype)
    tokens = float(weights.sum())

    def share(flags: Tensor) -> float:
        return float((flags & mask).sum()) / max(tokens, 1.0)

    outside = ((x.advantages > 0) & (x.ratio > 1.0 + clip)) | ((x.advantages < 0) & (x.ratio < 1.0 - clip))
    log_ratio = x.ratio.log() * weights
    return {
        "total_lag": float(sampled_total_variation(x.ratio, 1.0, weights)),
        "forward_lag": float(sampled_total_variation(x.ratio, x.learner_ratio, weights)),
        "filtered_fraction": share(~kept),
        "clip_fraction": share(outside),
        "triggered": float(triggered),
        "ess": float(effective_sample_size(x.ratio, weights)),
        "kl": float((-log_ratio).sum()) / max(tokens, 1.0),
        "staleness": float((staleness * weights).sum()) / max(tokens, 1.0),
    }
