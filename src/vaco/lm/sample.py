"""One generation round: responses of a policy to problems, with the log-probability of every token it chose.

Problems are sorted by length and generated in batches of near-equal length, padded on the left; a group's prompt is
read once and its cache repeated for the group's members; rows that have ended leave the batch. None of this changes
what is sampled: every token is drawn by inverting its distribution at a uniform number that belongs to its row and
place, drawn before generation begins.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaco.errors import UserError
from vaco.lm.model import LoadedModel, require_context


class Abandoned(Exception):  # noqa: N818 (no error: generation was asked to stop)
    """Generation stopped between two batches because it was asked to; nothing was returned."""


@dataclass(frozen=True)
class Responses:
    """Responses to prompts, group by group: row i answers prompt i // G.

    Attributes:
        tokens: [rows, length] int64, prompt, response, padding on the right.
        prompt_lengths: [rows] int64.
        response_lengths: [rows] int64, the end-of-sequence token included if it was written.
        behaviour_logp: [rows, new_tokens] float32, log β of each response token, 0 beyond the response.
    """

    tokens: Tensor
    prompt_lengths: Tensor
    response_lengths: Tensor
    behaviour_logp: Tensor

    @property
    def mask(self) -> Tensor:
        """[rows, new_tokens] bool: the response tokens, the end-of-sequence token included, each once."""
        return torch.arange(self.behaviour_logp.shape[1], device=self.tokens.device) < self.response_lengths[:, None]

    def take(self, rows: Tensor) -> Responses:
        """Some of the rows, trimmed to the longest of them."""
        prompts, lengths = self.prompt_lengths[rows], self.response_lengths[rows]
        length, new = int((prompts + lengths).max()), int(lengths.max())
        return Responses(self.tokens[rows, :length], prompts, lengths, self.behaviour_logp[rows, :new])

    def response_tokens(self, row: int) -> list[int]:
        """The token ids of one response."""
        start = int(self.prompt_lengths[row])
        found: list[int] = self.tokens[row, start : start + int(self.response_lengths[row])].tolist()
        return found

    def cut(self, end_ids: Sequence[int]) -> Tensor:
        """[rows] bool: whether the response was cut at the longest length instead of ending with an end token."""
        last = (self.prompt_lengths + self.response_lengths - 1)[:, None]
        return ~_is_end(self.tokens.gather(1, last)[:, 0], end_ids)


def generate(
    loaded: LoadedModel,
    prompts: Sequence[str],
    *,
    samples: int,
    new_tokens: int,
    generator: np.random.Generator | None,
    batch: int = 512,
    stop: Callable[[], bool] | None = None,
) -> Responses:
    """Generate `samples` responses to every prompt, at temperature 1, or greedily.

    Args:
        loaded: the policy.
        prompts: texts.
        samples: G, responses per prompt.
        new_tokens: longest response, tokens.
        generator: source of randomness; None picks the most probable token.
        batch: most rows generated at once.
        stop: asked before every batch; True abandons the round.

    Returns:
        The responses, G rows a prompt, in the order of the prompts, on the model's device.

    Raises:
        UserError: prompt and response do not fit into the model's context.
        Abandoned: `stop` said so.
    """
    return generate_ids(
        loaded,
        encoded(loaded, prompts),
        samples=samples,
        new_tokens=new_tokens,
        generator=generator,
        batch=batch,
        stop=stop,
    )


def encoded(loaded: LoadedModel, prompts: Sequence[str]) -> list[list[int]]:
    """Texts as the model reads a request, as token ids."""
    return [loaded.tokenizer.encode(loaded.tokenizer.prompt(text)) for text in prompts]


class Noise(Protocol):
    """Where an engine takes its randomness from: a generator of NumPy, or part of what one draws."""

    def random(self, size: tuple[int, int]) -> NDArray[np.float64]:
        """Numbers in [0, 1)."""


def generate_ids(
    loaded: LoadedModel,
    prompts: Sequence[Sequence[int]],
    *,
    samples: int,
    new_tokens: int,
    generator: Noise | None,
    batch: int = 512,
    stop: Callable[[], bool] | None = None,
) -> Responses:
    """`generate` for prompts that are token ids already, as `encoded` gives them."""
    encoded = [list(ids) for ids in prompts]
    longest = max(map(len, encoded))
    require_context(loaded, longest, new_tokens)
    uniforms = None if generator is None else generator.random((len(prompts) * samples, new_tokens))
    order = sorted(range(len(prompts)), key=lambda index: len(encoded[index]))
    groups = max(1, batch // samples)
    device = next(loaded.model.parameters()).device
    rows = len(prompts) * samples
    result = Responses(
        tokens=torch.full((rows, longest + new_tokens), loaded.tokenizer.pad_id, device=device),
        prompt_lengths=torch.tensor([len(encoded[row // samples]) for row in range(rows)], device=device),
        response_lengths=torch.zeros(rows, dtype=torch.int64, device=device),
        behaviour_logp=torch.zeros(rows, new_tokens, device=device),
    )
    was_training = loaded.model.training
    loaded.model.eval()
    try:
        with _weights_cast(loaded):
            for start in range(0, len(order), groups):
                if stop is not None and stop():
                    raise Abandoned
                chunk = order[start : start + groups]
                places = np.array([group * samples + member for group in chunk for member in range(samples)])
                chosen = None if uniforms is None else torch.from_numpy(uniforms[places]).to(device)
                drawn = _generate_batch(loaded, [encoded[group] for group in chunk], samples, new_tokens, chosen)
                _enter(result, drawn, torch.from_numpy(places).to(device))
    except torch.OutOfMemoryError:
        raise UserError(
            f"the GPU's memory was full while {groups * samples:,} responses were generated at once: lower "
            f"generate_batch (now {batch:,}) or new_tokens (now {new_tokens:,}), or use a smaller model"
        ) from None
    finally:
        loaded.model.train(was_training)
    return _trimmed(result)


@contextlib.contextmanager
def _weights_cast(loaded: LoadedModel) -> Iterator[None]:
    """Hold the weights of linear layers in half precision, to which autocast would convert them at every token.

    It keeps what it converted only where gradients are computed. A layer's weight is exchanged, not the tensor's data,
    since an embedding that shares it looks up in float32.
    """
    if loaded.precision == "float32":
        yield
        return
    layers = [module for module in loaded.model.modules() if isinstance(module, torch.nn.Linear)]
    own = [dict(layer._parameters) for layer in layers]
    for layer in layers:
        for name, value in layer._parameters.items():
            if value is not None:
                layer._parameters[name] = torch.nn.Parameter(value.detach().to(torch.bfloat16), requires_grad=False)
    try:
        yield
    finally:
        for layer, parameters in zip(layers, own, strict=True):
            layer._parameters.update(parameters)


@dataclass
class _Drawn:
    """What one batch produced: tokens and log-probabilities [rows, new_tokens], lengths [rows]."""

    prompts: list[list[int]]
    samples: int
    tokens: Tensor
    logp: Tensor
    lengths: Tensor


@torch.inference_mode()
def _generate_batch(
    loaded: LoadedModel, prompts: list[list[int]], samples: int, new_tokens: int, uniforms: Tensor | None
) -> _Drawn:
    """Generate for prompts of similar length; `uniforms` is [rows, new_tokens], None for greedy."""
    from transformers import DynamicCache

    model, tokenizer = loaded.model, loaded.tokenizer
    device = next(model.parameters()).device
    ids, padding = _padded_left(prompts, tokenizer.pad_id, device)
    rows = len(prompts) * samples
    drawn = _Drawn(
        prompts,
        samples,
        torch.full((rows, new_tokens), tokenizer.pad_id, device=device),
        torch.zeros(rows, new_tokens, device=device),
        torch.zeros(rows, dtype=torch.int64, device=device),
    )
    cache = DynamicCache(config=model.config)
    attention = None if not bool(padding.any()) else (~padding).long()
    positions = _positions(attention, ids)
    logits = _forward(model, ids, cache, attention, positions)
    cache.batch_repeat_interleave(samples)
    logits = logits.repeat_interleave(samples, 0)
    attention = None if attention is None else attention.repeat_interleave(samples, 0)
    positions = positions[:, -1:].repeat_interleave(samples, 0)
    live = torch.arange(rows, device=device)
    ended = torch.zeros(rows, dtype=torch.bool, device=device)
    for step in range(new_tokens):
        token, logp = _choose(logits, None if uniforms is None else uniforms[live, step])
        drawn.tokens[live, step], drawn.logp[live, step] = token, logp
        drawn.lengths[live] = step + 1
        if step + 1 == new_tokens:
            break
        ended = ended | _is_end(token, tokenizer.end_ids)
        going = (~ended).nonzero()[:, 0]
        if len(going) == 0:
            break
        # Copying the cache costs about a step, so rows that have ended stay until they are a quarter of the batch.
        if len(going) < 0.75 * len(live):
            cache.batch_select_indices(going)
            live, token, positions, ended = live[going], token[going], positions[going], ended[going]
            attention = None if attention is None else attention[going]
        positions = positions + 1
        if attention is not None:
            attention = torch.cat([attention, attention.new_ones(len(live), 1)], 1)
        logits = _forward(model, token[:, None], cache, attention, positions)
    return _without_tails(drawn, tokenizer.end_ids)


def _is_end(tokens: Tensor, end_ids: Sequence[int]) -> Tensor:
    """Whether tokens are one of those that end a response."""
    return torch.isin(tokens, torch.tensor(end_ids, device=tokens.device))


def _without_tails(drawn: _Drawn, end_ids: Sequence[int]) -> _Drawn:
    """Cut what rows wrote after their end token while they waited to leave the batch."""
    places = torch.arange(drawn.tokens.shape[1], device=drawn.tokens.device)
    ended = _is_end(drawn.tokens, end_ids) & (places < drawn.lengths[:, None])  # padding may look like an end
    first = torch.where(ended.any(1), ended.int().argmax(1) + 1, drawn.lengths)
    drawn.lengths = torch.minimum(drawn.lengths, first)
    drawn.logp[torch.arange(drawn.logp.shape[1], device=first.device) >= drawn.lengths[:, None]] = 0.0
    return drawn


def _forward(model: Any, ids: Tensor, cache: Any, attention: Tensor | None, positions: Tensor) -> Tensor:
    """Logits of the last place, float32."""
    output = model(
        input_ids=ids,
        past_key_values=cache,
        attention_mask=attention,
        position_ids=positions,
        use_cache=True,
        logits_to_keep=1,
    )
    logits: Tensor = output.logits[:, -1].float()
    return logits


def _choose(logits: Tensor, uniforms: Tensor | None) -> tuple[Tensor, Tensor]:
    """A token a row and its log-probability: the first whose cumulative probability exceeds the uniform number."""
    logp = logits.log_softmax(-1)
    if uniforms is None:
        token = logp.argmax(-1)
    else:
        cumulative = logp.double().exp().cumsum(-1)
        token = torch.searchsorted(cumulative, (uniforms * cumulative[:, -1])[:, None], right=True)[:, 0]
        token = token.clamp(max=logits.shape[-1] - 1)
    return token, logp.gather(1, token[:, None])[:, 0]


def _padded_left(prompts: list[list[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Prompts as one tensor [prompts, longest], and where it is padding."""
    longest = max(map(len, prompts))
    rows = [[pad] * (longest - len(ids)) + ids for ids in prompts]
    missing = torch.tensor([longest - len(ids) for ids in prompts], device=device)
    return torch.tensor(rows, device=device), torch.arange(longest, device=device) < missing[:, None]


def _positions(attention: Tensor | None, ids: Tensor) -> Tensor:
    """The place of every token in its own text, padding not counted."""
    if attention is None:
        return torch.arange(ids.shape[1], device=ids.device).repeat(len(ids), 1)
    return (attention.cumsum(1) - 1).clamp(min=0)


def _enter(result: Responses, drawn: _Drawn, places: Tensor) -> None:
    """Write a batch into the rows of the round that it belongs to."""
    width = drawn.tokens.shape[1]
    mask = torch.arange(width, device=places.device) < drawn.lengths[:, None]
    result.response_lengths[places] = drawn.lengths
    result.behaviour_logp[places] = torch.where(mask, drawn.logp, 0.0)
    for group, ids in enumerate(drawn.prompts):
        rows = places[group * drawn.samples : (group + 1) * drawn.samples]
        members = slice(group * drawn.samples, (group + 1) * drawn.samples)
        result.tokens[rows, : len(ids)] = torch.tensor(ids, device=places.device)
        kept = torch.where(mask[members], drawn.tokens[members], result.tokens[rows, len(ids) : len(ids) + width])
        result.tokens[rows, len(ids) : len(ids) + width] = kept


def _trimmed(responses: Responses) -> Responses:
    """Drop the columns that are padding in every row."""
    length = int((responses.prompt_lengths + responses.response_lengths).max())
    new = int(responses.response_lengths.max())
    return replace(
        responses,
        tokens=responses.tokens[:, :length].clone(),
        behaviour_logp=responses.behaviour_logp[:, :new].clone(),
    )


def response_texts(loaded: LoadedModel, responses: Responses) -> list[str]:
    """What the responses say, without the token that ends them."""
    tokens, starts = responses.tokens.tolist(), responses.prompt_lengths.tolist()
    ends = (
        responses.prompt_lengths + responses.response_lengths - (~responses.cut(loaded.tokenizer.end_ids)).long()
    ).tolist()
    return [loaded.tokenizer.decode(row[start:end]) for row, start, end in zip(tokens, starts, ends, strict=True)]


def as_arrays(responses: Responses) -> dict[str, NDArray[Any]]:
    """The responses as NumPy arrays, for a checkpoint."""
    names = ("tokens", "prompt_lengths", "response_lengths", "behaviour_logp")
    return {name: getattr(responses, name).cpu().numpy() for name in names}


def from_arrays(arrays: dict[str, NDArray[Any]], device: torch.device) -> Responses:
    """The inverse of `as_arrays`."""
    return Responses(**{name: torch.from_numpy(value).to(device) for name, value in arrays.items()})
