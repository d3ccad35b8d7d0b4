"""A generation round and its cutting into minibatches: what stands between sampling and the gradient steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaco.lm.config import LMConfig
from vaco.lm.learner import Round, evaluate_logp, group_advantages
from vaco.lm.sample import Abandoned, Responses, generate, response_texts
from vaco.lm.warm import parameters, set_parameters

if TYPE_CHECKING:
    from vaco.lm.train import Run

T = TypeVar("T")

TRAIN_INDICES = 1 << 30
"""Indices that an unlimited task's training problems are drawn from."""


@dataclass(frozen=True)
class Snapshot:
    """A behaviour policy: the update after which it was taken, and its weights (None: the model's own)."""

    version: int
    weights: dict[str, NDArray[Any]] | None


def generate_round(run: Run, stop: Callable[[], bool] | None) -> Round:
    """Draw problems, let buffered policies answer them, verify, and estimate advantages.

    Args:
        run: its generators advance, and its buffer receives the current policy.
        stop: asked between batches of generation.

    Raises:
        Abandoned: `stop` said so; generators and buffer are as before.
    """
    config, generators = run.config, run.generators
    before = {name: generator.bit_generator.state for name, generator in generators.items()}
    held = list(run.buffer)
    run.buffer.push(Snapshot(run.update, parameters(run.model) if config.lag > 1 else None))
    size = run.task.size("train") or TRAIN_INDICES
    indices = generators["problems"].integers(size, size=config.round_prompts).tolist()
    problems = run.task.problems("train", indices)
    prompts = [problem.prompt for problem in problems]
    try:
        responses, versions = _answer(run, prompts, stop)
    except Abandoned:
        for name, generator in generators.items():
            generator.bit_generator.state = before[name]
        run.buffer = type(run.buffer)(config.lag)
        for snapshot in held:
            run.buffer.push(snapshot)
        raise
    texts = response_texts(run.loaded, responses)
    verdicts = [run.task.verify(text, problems[row // config.samples]) for row, text in enumerate(texts)]
    rewards = torch.tensor(verdicts, device=responses.tokens.device)
    advantages = group_advantages(rewards.reshape(-1, config.samples), config.advantage).reshape(-1)
    reference = torch.zeros_like(rewards)
    if config.parsed.regression == "tba":
        reference = with_weights(
            run, run.reference, lambda: evaluate_logp(run.model, responses, config.tokens_at_once)
        ).sum(-1)
    order = torch.from_numpy(generators["order"].permutation(config.round_prompts)).to(rewards.device)
    return Round(responses, rewards, advantages, versions, reference, order)


def _answer(run: Run, prompts: list[str], stop: Callable[[], bool] | None) -> tuple[Responses, Tensor]:
    """Responses of the assigned behaviour policies, in the prompts' order, and the policies' versions by row."""
    config = run.config
    snapshots, _ = run.buffer.assign(len(prompts), run.generators["assignment"])
    versions = np.array([snapshot.version for snapshot in snapshots])
    parts: list[tuple[NDArray[Any], Responses]] = []
    for version in np.unique(versions):
        places = np.flatnonzero(versions == version)
        snapshot = snapshots[int(places[0])]

        def answer(places: NDArray[Any] = places) -> Responses:
            return generate(
                run.loaded,
                [prompts[place] for place in places],
                samples=config.samples,
                new_tokens=config.new_tokens,
                generator=run.generators["noise"],
                stop=stop,
            )

        own = snapshot.weights is None or version == run.update
        parts.append((places, answer() if own else with_weights(run, snapshot.weights or {}, answer)))
    device = parts[0][1].tokens.device
    by_row = torch.from_numpy(versions).repeat_interleave(config.samples).to(device)
    return _merged(parts, config.samples), by_row


def _merged(parts: list[tuple[NDArray[Any], Responses]], samples: int) -> Responses:
    """Put the responses of several policies into one, in the order of the prompts."""
    if len(parts) == 1:
        return parts[0][1]
    rows = sum(len(part.tokens) for _, part in parts)
    length, new = (max(getattr(p, n).shape[1] for _, p in parts) for n in ("tokens", "behaviour_logp"))
    first = parts[0][1]
    merged = Responses(
        tokens=first.tokens.new_zeros(rows, length),
        prompt_lengths=first.prompt_lengths.new_zeros(rows),
        response_lengths=first.response_lengths.new_zeros(rows),
        behaviour_logp=first.behaviour_logp.new_zeros(rows, new),
    )
    for places, part in parts:
        where = torch.from_numpy((places[:, None] * samples + np.arange(samples)).reshape(-1))
        merged.tokens[where, : part.tokens.shape[1]] = part.tokens
        merged.prompt_lengths[where] = part.prompt_lengths
        merged.response_lengths[where] = part.response_lengths
        merged.behaviour_logp[where, : part.behaviour_logp.shape[1]] = part.behaviour_logp
    return merged


def with_weights(run: Run, weights: dict[str, NDArray[Any]], action: Callable[[], T]) -> T:
    """Do something with other weights in the run's model, and put its own back."""
    own = parameters(run.model)
    set_parameters(run.model, weights)
    try:
        return action()
    finally:
        set_parameters(run.model, own)


def rows_of(round_: Round, first: int, last: int, config: LMConfig) -> Tensor:
    """The rows of the minibatches `first` to `last` − 1 of a round, whole groups together."""
    groups = round_.order[first * config.prompts : last * config.prompts]
    members = torch.arange(config.samples, device=groups.device)
    return (groups[:, None] * config.samples + members).reshape(-1)


def minibatch(round_: Round, proximal: Tensor | None, place: int, config: LMConfig) -> tuple[Round, Tensor | None]:
    """One minibatch of a round, and the proximal policy's log-probabilities of it."""
    rows = rows_of(round_, place, place + 1, config)
    responses = round_.responses.take(rows)
    part = Round(
        responses=responses,
        rewards=round_.rewards[rows],
        advantages=round_.advantages[rows],
        versions=round_.versions[rows],
        reference_logp=round_.reference_logp[rows],
        order=torch.arange(config.prompts, device=rows.device),
    )
    return part, None if proximal is None else proximal[rows, : responses.behaviour_logp.shape[1]]
