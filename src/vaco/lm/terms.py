"""What a model says of response tokens: their log-probabilities and the policy's entropy, in pieces for the memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
import torch.utils.checkpoint
from torch import Tensor

from vaco.lm.parallel import ALONE, Group
from vaco.lm.sample import Responses

TOKENS_AT_ONCE = 16_384
"""Tokens of one pass that only evaluates; how many a gradient step takes at once is a setting."""
SMALLEST_PIECE = 24


class Terms(NamedTuple):
    """What a forward pass says of response tokens; [rows, new_tokens], 0 beyond the response.

    Attributes:
        logp: log π(token | before), with gradients if they are enabled.
        entropy: of π(· | before) over the vocabulary, nats, never with gradients; None if it was not asked for.
    """

    logp: Tensor
    entropy: Tensor | None


def token_logp(model: Any, responses: Responses, logits_at_once: int = 0) -> Tensor:
    """The log-probabilities of `token_terms`."""
    return token_terms(model, responses, entropy=False, logits_at_once=logits_at_once).logp


def token_terms(model: Any, responses: Responses, entropy: bool = True, logits_at_once: int = 0) -> Terms:
    """Log-probability of every response token under a model, from a fresh forward pass, and the policy's entropy there.

    The output layer is applied to the places that precede a response token, and to no other.

    Args:
        model: a causal language model of `transformers`.
        responses: the responses, padded on the right, which a causal model does not see from the left.
        entropy: whether to compute it.
        logits_at_once: places that the output layer is applied to at once; 0 is all. Otherwise logits are computed
            again in the backward pass, so that never more than these are held: places × vocabulary × 4 bytes.
    """
    mask = responses.mask
    rows, steps = mask.nonzero(as_tuple=True)
    places = responses.prompt_lengths[rows] + steps - 1
    hidden = model.get_decoder()(input_ids=responses.tokens, use_cache=False).last_hidden_state[rows, places]
    chosen = responses.tokens[rows, places + 1]
    layer = model.get_output_embeddings()
    if logits_at_once:
        cut = zip(*(torch.split(values, logits_at_once) for values in (hidden, chosen)), strict=True)
        parts = [_recomputed(layer, some, tokens, entropy) for some, tokens in cut]
        logp = torch.cat([part[0] for part in parts])
        values = torch.cat([part[1] for part in parts]) if entropy else None
    else:
        logp, values = _of_chosen(layer, hidden, chosen, entropy)
    empty = torch.zeros(mask.shape, device=logp.device)
    return Terms(
        empty.index_put((rows, steps), logp), None if values is None else empty.index_put((rows, steps), values)
    )


def _of_chosen(layer: Any, hidden: Tensor, chosen: Tensor, entropy: bool) -> tuple[Tensor, Any]:
    """Of each place, the chosen token's log-probability and, if asked for, the entropy."""
    every = layer(hidden).float().log_softmax(-1)
    logp = every.gather(1, chosen[:, None])[:, 0]
    if not entropy:
        return logp, None
    with torch.no_grad():
        # −∞ · 0 is NaN, but a token of no probability adds nothing.
        return logp, -(every.exp() * every.clamp(min=torch.finfo(every.dtype).min)).sum(-1)


def _recomputed(layer: Any, hidden: Tensor, chosen: Tensor, entropy: bool) -> tuple[Tensor, Any]:
    """`_of_chosen`, keeping nothing of the size of the vocabulary for the backward pass."""
    found: tuple[Tensor, Any] = torch.utils.checkpoint.checkpoint(
        _of_chosen, layer, hidden, chosen, entropy, use_reentrant=False
    )
    return found


def trimmed_terms(
    model: Any, responses: Responses, entropy: bool = True, at_once: int = TOKENS_AT_ONCE, logits_at_once: int = 0
) -> Terms:
    """`token_terms` of all rows, computed in pieces of similar length so that little padding is computed with.

    Gradients, if they are enabled, go through all pieces.
    """
    pieces = pieces_by_length(responses, at_once)
    width = responses.behaviour_logp.shape[1]
    parts = [token_terms(model, responses.take(rows), entropy, logits_at_once) for rows in pieces]
    back = torch.argsort(torch.cat(pieces))

    def joined(tensors: Iterable[Tensor | None]) -> Tensor:
        found = [tensor for tensor in tensors if tensor is not None]
        return torch.cat([torch.nn.functional.pad(part, (0, width - part.shape[1])) for part in found])[back]

    return Terms(joined(part.logp for part in parts), joined(part.entropy for part in parts) if entropy else None)


def evaluate_logp(
    model: Any, responses: Responses, at_once: int = TOKENS_AT_ONCE, logits_at_once: int = 0, group: Group = ALONE
) -> Tensor:
    """`token_logp` without gradient, in pieces, the rows shared among processes; [rows, new_tokens]."""
    own = responses if group.size == 1 else responses.take(group.rows(responses.tokens))
    with torch.no_grad():
        logp = trimmed_terms(model, own, entropy=False, at_once=at_once, logits_at_once=logits_at_once).logp
    return group.together(logp, len(responses.tokens))


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
