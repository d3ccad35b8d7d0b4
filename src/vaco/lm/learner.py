"""One gradient step on a minibatch of responses: log-probabilities, ratios, the filter's verdict, backward, AdamW.

No surrogate is differentiated: as in MuJoCo, every response token has a coefficient c from the algorithm's rule, and
the step ascends Σ c log π(token) / number of response tokens. The denominator counts filtered tokens too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaco.errors import UserError
from vaco.lm.config import LMConfig
from vaco.lm.sample import Responses
from vaco.objectives import tokens as rules
from vaco.objectives.divergence import effective_sample_size, sampled_total_variation
from vaco.objectives.filters import Samples

LOG_RATIO_LIMIT = 20.0
TOKENS_AT_ONCE = 16_384
"""Tokens of one pass that only evaluates; how many a gradient step takes at once is a setting."""
SMALLEST_PIECE = 24


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
    """

    responses: Responses
    rewards: Tensor
    advantages: Tensor
    versions: Tensor
    reference_logp: Tensor
    order: Tensor


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


class Terms(NamedTuple):
    """What a forward pass says of response tokens; [rows, new_tokens], 0 beyond the response.

    Attributes:
        logp: log π(token | before), with gradients if they are enabled.
        entropy: of π(· | before) over the vocabulary, nats, never with gradients; None if it was not asked for.
    """

    logp: Tensor
    entropy: Tensor | None


def token_logp(model: Any, responses: Responses) -> Tensor:
    """The log-probabilities of `token_terms`."""
    return token_terms(model, responses, entropy=False).logp


def token_terms(model: Any, responses: Responses, entropy: bool = True) -> Terms:
    """Log-probability of every response token under a model, from a fresh forward pass, and the policy's entropy there.

    The output layer is applied to the places that precede a response token, and to no other.

    Args:
        model: a causal language model of `transformers`.
        responses: the responses, padded on the right, which a causal model does not see from the left.
        entropy: whether to compute it.
    """
    mask = responses.mask
    rows, steps = mask.nonzero(as_tuple=True)
    places = responses.prompt_lengths[rows] + steps - 1
    hidden = model.get_decoder()(input_ids=responses.tokens, use_cache=False).last_hidden_state
    logits = model.get_output_embeddings()(hidden[rows, places]).float()
    chosen = responses.tokens[rows, places + 1]
    every = logits.log_softmax(-1)
    empty = torch.zeros(mask.shape, device=every.device)
    logp = empty.index_put((rows, steps), every.gather(1, chosen[:, None])[:, 0])
    if not entropy:
        return Terms(logp, None)
    with torch.no_grad():
        # −∞ · 0 is NaN, but a token of no probability adds nothing.
        values = -(every.exp() * every.clamp(min=torch.finfo(every.dtype).min)).sum(-1)
    return Terms(logp, empty.index_put((rows, steps), values))


def trimmed_terms(model: Any, responses: Responses, entropy: bool = True, at_once: int = TOKENS_AT_ONCE) -> Terms:
    """`token_terms` of all rows, computed in pieces of similar length so that little padding is computed with.

    Gradients, if they are enabled, go through all pieces.
    """
    pieces = pieces_by_length(responses, at_once)
    width = responses.behaviour_logp.shape[1]
    parts = [token_terms(model, responses.take(rows), entropy) for rows in pieces]
    back = torch.argsort(torch.cat(pieces))

    def joined(tensors: Iterable[Tensor | None]) -> Tensor:
        found = [tensor for tensor in tensors if tensor is not None]
        return torch.cat([torch.nn.functional.pad(part, (0, width - part.shape[1])) for part in found])[back]

    return Terms(joined(part.logp for part in parts), joined(part.entropy for part in parts) if entropy else None)


def evaluate_logp(model: Any, responses: Responses, at_once: int = TOKENS_AT_ONCE) -> Tensor:
    """`token_logp` without gradient, in pieces; [rows, new_tokens]."""
    with torch.no_grad():
        return trimmed_terms(model, responses, entropy=False, at_once=at_once).logp


def pieces_by_length(responses: Responses, at_once: int = TOKENS_AT_ONCE) -> list[Tensor]:
    """Rows sorted by length and cut where a piece would hold much padding, or more than `at_once` tokens.

    A piece ends before a row that is a fifth longer than the piece's first, unless the piece is still so small that
    another forward pass would cost more than the padding.
    """
    lengths = responses.prompt_lengths + responses.response_lengths
    order = torch.argsort(lengths, stable=True)
    pieces: list[list[int]] = [[]]
    for row, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        piece = pieces[-1]
        padded = len(piece) >= SMALLEST_PIECE and length > 1.2 * int(lengths[piece[0]])
        if piece and (padded or (len(piece) + 1) * length > at_once):
            pieces.append([])
        pieces[-1].append(row)
    return [torch.tensor(piece, device=order.device) for piece in pieces]


class Learner:
    """The model, its optimizer, and one method that makes a gradient step."""

    def __init__(self, config: LMConfig, model: torch.nn.Module) -> None:
        """Prepare the optimizer.

        Args:
            config: the run's configuration.
            model: trained in place.
        """
        self.config, self.model = config, model
        self.algorithm, self.settings = config.parsed, config.token_settings
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.99)
        )

    def step(self, batch: Round, proximal_logp: Tensor | None, update: int) -> dict[str, float]:
        """Make one gradient step.

        Args:
            batch: the minibatch, whole groups.
            proximal_logp: log π_T of every response token, [rows, new_tokens]; None where π_T = β.
            update: gradient steps made before this one, the current policy's version.

        Returns:
            Diagnostics by column name.

        Raises:
            UserError: loss or gradient is not finite; the model is then not to be saved.
        """
        responses, mask = batch.responses, batch.responses.mask
        at_once = self.config.tokens_at_once
        whole = int(responses.tokens.numel()) <= at_once
        with torch.set_grad_enabled(whole):
            current, entropy = trimmed_terms(self.model, responses, at_once=at_once)
        verdict = self._coefficients(batch, current.detach(), proximal_logp, update)
        denominator = mask.sum().clamp(min=1)
        self.optimizer.zero_grad(set_to_none=True)
        if whole:
            loss = -(verdict.coefficient * current).sum() / denominator
            loss.backward()  # type: ignore[no-untyped-call]
        else:
            for rows in pieces_by_length(responses, at_once):
                part = token_logp(self.model, responses.take(rows))
                coefficient = verdict.coefficient[rows, : part.shape[1]]
                (-(coefficient * part).sum() / denominator).backward()  # type: ignore[no-untyped-call]
        rate = self.config.learning_rate * min(1.0, (update + 1) / max(1, self.config.warmup_updates))
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm)
        if not bool(torch.isfinite(norm)):
            raise UserError(
                f"the gradient is not finite at update {update + 1}: lower learning_rate (now "
                f"{self.config.learning_rate}) or use a filter that bounds the ratio"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        assert entropy is not None
        mean_entropy = float(entropy.sum()) / float(denominator)
        return {**verdict.diagnostics, "entropy": mean_entropy, "grad_norm": float(norm), "learning_rate": rate}

    def _coefficients(self, batch: Round, current: Tensor, proximal_logp: Tensor | None, update: int) -> Verdict:
        """The coefficient of every response token, zero elsewhere, and the minibatch's diagnostics."""
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
        if self.config.level == "sequence":
            seen = _whole_responses(seen, log_ratio, log_learner * weights)
        if self.algorithm.filter is None:
            coefficient = self._regression(batch, log_ratio.sum(-1), current).to(ratio.dtype)[:, None] * weights
            kept, triggered = mask, False
        else:
            verdict = self.algorithm.filter.function(seen, self.settings)
            coefficient = verdict.coefficient.expand_as(weights) * weights
            kept, triggered = verdict.kept.expand_as(mask), bool(verdict.triggered)
        return Verdict(coefficient, _diagnose(samples, kept, triggered, staleness, mask, self.config.clip))

    def _staleness(self, versions: Tensor, update: int) -> Tensor:
        """Policy versions from the behaviour policy to the current one.

        In gradient steps, or in rounds: then the current round counts as one, since the policy that it trains is one
        version beyond the one that opened it. At K = 1 that makes A-3PO the clip of PPO against β.
        """
        if not self.algorithm.by_rounds:
            return update - versions
        size = self.config.minibatches
        return 1 + update // size - versions // size

    def _regression(self, batch: Round, log_ratio: Tensor, current: Tensor) -> Tensor:
        """Coefficients of whole responses [rows] under TBA or OAPL."""
        groups = (-1, self.config.samples)
        rewards = batch.rewards.reshape(groups)
        if self.algorithm.regression == "oapl":
            value = rules.oapl_coefficient(rewards, log_ratio.reshape(groups), self.settings.temperature)
        else:
            from_reference = (current.sum(-1) - batch.reference_logp).reshape(groups)
            value = rules.tba_coefficient(rewards, from_reference, self.settings.temperature)
        return value.reshape(-1)


@dataclass(frozen=True)
class Verdict:
    """Coefficients [rows, new_tokens] and diagnostics."""

    coefficient: Tensor
    diagnostics: dict[str, float]


def _whole_responses(x: rules.Tokens, log_ratio: Tensor, log_learner: Tensor) -> rules.Tokens:
    """The same minibatch with one sample a response: products of ratios, [rows, 1]."""
    limit = LOG_RATIO_LIMIT
    samples = x.samples._replace(
        ratio=log_ratio.sum(-1, keepdim=True).clamp(-limit, limit).exp(),
        learner_ratio=log_learner.sum(-1, keepdim=True).clamp(-limit, limit).exp(),
        advantages=x.samples.advantages[:, :1],
        weights=torch.ones_like(log_ratio[:, :1]),
    )
    behaviour = (x.behaviour_logp * x.weights).sum(-1, keepdim=True)
    return replace(x, samples=samples, staleness=x.staleness[:, :1], behaviour_logp=behaviour)


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
