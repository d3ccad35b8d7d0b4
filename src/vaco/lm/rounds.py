"""A gradient step with the generation round before it: what stands between sampling and the learner."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaco.lm.asynchronous import Source, streams
from vaco.lm.config import LMConfig
from vaco.lm.evaluate import verdicts
from vaco.lm.learner import Round, group_advantages
from vaco.lm.run import Row, Run, Snapshot
from vaco.lm.sample import Abandoned, Noise, Responses, encoded
from vaco.lm.task import Problem
from vaco.lm.terms import evaluate_logp
from vaco.lm.weights import parameters, set_parameters, trained

T = TypeVar("T")

TRAIN_INDICES = 1 << 30
"""Indices that an unlimited task's training problems are drawn from."""


def advance(run: Run, stop: Callable[[], bool] | None = None) -> Row:
    """Make one gradient step, after a generation round if one is due.

    Args:
        run: advances.
        stop: asked between batches of generation; True abandons the round with nothing changed.

    Returns:
        The step's row of ``phases.parquet``.

    Raises:
        UserError: the gradient is not finite.
        Abandoned: `stop` said so.
    """
    started, place = time.perf_counter(), run.update % run.config.minibatches
    if place == 0:
        run.round = generate_round(run, stop)
    generated = time.perf_counter()
    assert run.round is not None
    _evaluate_proximal(run, place)
    recomputed = time.perf_counter()
    batch, proximal = minibatch(run.round, run.proximal, place, run.config)
    diagnostics = run.learner.step(batch, proximal, run.update)
    run.update += 1
    finished = time.perf_counter()
    run.clock.total += finished - started
    row: Row = {
        "update": run.update,
        "round": (run.update - 1) // run.config.minibatches,
        "place": place,
        "wall_seconds": run.clock.total,
        "reward": float(batch.rewards.mean()),
        "responses": len(batch.rewards),
        "tokens": int(batch.responses.response_lengths.sum()),
        "cut_fraction": float(batch.responses.cut(run.loaded.tokenizer.end_ids).float().mean()),
        **diagnostics,
        "generate_seconds": generated - started,
        "recompute_seconds": recomputed - generated,
        "update_seconds": finished - recomputed,
    }
    run.rows.append(row)
    return row


def _evaluate_proximal(run: Run, place: int) -> None:
    """Evaluate the proximal policy where the algorithm's rule reads it and it is not the behaviour policy.

    Decoupled PPO evaluates it every `proximal_updates` steps, on the minibatches until the next time; the other
    rules take it to be the policy at the start of the round, which generated the round unless K > 1. Where generation
    computes in another precision than the learner, no policy that the learner evaluates is the one that generated, and
    every rule has it evaluated.
    """
    config, round_ = run.config, run.round
    assert round_ is not None
    rule = config.parsed
    refresh = config.proximal_updates or config.minibatches
    if rule.recompute and place % refresh == 0:
        if place == 0:
            run.proximal = torch.zeros_like(round_.responses.behaviour_logp)
        rows = rows_of(round_, place, place + refresh, config)
        part = _logp(run, round_.responses.take(rows))
        assert run.proximal is not None
        run.proximal[rows, : part.shape[1]] = part
    elif place == 0 and not rule.recompute:
        needed = not config.exact or (rule.filter is not None and rule.filter.proximal and config.stale)
        if needed and not config.stale:
            run.proximal = round_.aligned_logp
        else:
            run.proximal = _logp(run, round_.responses) if needed else None


def _logp(run: Run, responses: Responses) -> Tensor:
    """Log-probabilities under the weights that the run's model has now."""
    config = run.config
    return evaluate_logp(run.model, responses, config.tokens_at_once, config.logits_at_once, run.group)


def generate_round(run: Run, stop: Callable[[], bool] | None) -> Round:
    """Draw problems, let buffered policies answer them, verify, and estimate advantages.

    Args:
        run: its generators advance, and its buffer receives the current policy.
        stop: asked between batches of generation.

    Raises:
        Abandoned: `stop` said so; generators and buffer are as before.
    """
    if run.source is not None:
        return _taken_round(run, run.source, stop)
    config, generators = run.config, run.generators
    before = {name: generator.bit_generator.state for name, generator in generators.items()}
    held = list(run.buffer)
    run.buffer.push(Snapshot(run.update, run.keep() if config.lag > 1 else None))
    problems = run.task.problems("train", indices(run, run.update, generators["problems"]))
    try:
        responses, versions, aligned = _answer(run, [problem.prompt for problem in problems], stop)
    except Abandoned:
        for name, generator in generators.items():
            generator.bit_generator.state = before[name]
        run.buffer = type(run.buffer)(config.lag)
        for snapshot in held:
            run.buffer.push(snapshot)
        raise
    return _judged(run, problems, responses, versions, aligned, generators["order"])


def _taken_round(run: Run, source: Source, stop: Callable[[], bool] | None) -> Round:
    """The next round of what generates beside training, or of its record; see `generate_round`."""
    config, number = run.config, run.update // run.config.minibatches
    source.publish(run.update, parameters(run.model))
    made = source.next(number, stop)
    own = streams(config.seed, number)
    problems = run.task.problems("train", indices(run, run.update, own["problems"]))
    aligned = None
    if not config.exact:
        aligned = with_weights(run, made.weights, lambda: _logp(run, made.responses))
    versions = torch.full((len(made.responses.tokens),), made.version, device=made.responses.tokens.device)
    return _judged(run, problems, made.responses, versions, aligned, own["order"])


def asked(run: Run, number: int) -> tuple[list[list[int]], np.random.Generator]:
    """What a round of a run with generators asks, as token ids, and the source of its noise."""
    own = streams(run.config.seed, number)
    problems = run.task.problems("train", indices(run, number * run.config.minibatches, own["problems"]))
    return encoded(run.loaded, [problem.prompt for problem in problems]), own["noise"]


def _judged(
    run: Run,
    problems: Sequence[Problem],
    responses: Responses,
    versions: Tensor,
    aligned: Tensor | None,
    source: np.random.Generator,
) -> Round:
    """Verify the responses to problems, and estimate advantages; a source draws the order of the minibatches."""
    config = run.config
    each = [problem for problem in problems for _ in range(config.samples)]
    earned = verdicts(run.loaded, run.task, responses, each, config.cut_responses)
    rewards = torch.tensor(earned, device=responses.tokens.device)
    advantages = group_advantages(rewards.reshape(-1, config.samples), config.advantage).reshape(-1)
    reference = torch.zeros_like(rewards)
    if config.parsed.regression == "tba":
        reference = with_weights(run, run.reference, lambda: _logp(run, responses)).sum(-1)
    order = torch.from_numpy(source.permutation(config.round_prompts)).to(rewards.device)
    return Round(responses, rewards, advantages, versions, reference, order, aligned)


def indices(run: Run, update: int, source: np.random.Generator) -> list[int]:
    """Which problems the round asks that begins after so many updates, drawn from a source."""
    config, size = run.config, run.task.size("train")
    if config.problems == "independent":
        drawn = source.integers(size or TRAIN_INDICES, size=config.round_prompts)
        return [int(index) for index in drawn]
    assert size is not None
    places = range(update * config.prompts, update * config.prompts + config.round_prompts)
    orders = {epoch: epoch_order(config.seed, epoch, size) for epoch in {place // size for place in places}}
    return [int(orders[place // size][place % size]) for place in places]


def epoch_order(seed: int, epoch: int, size: int) -> NDArray[np.int64]:
    """The order in which an epoch asks a task's problems, each once; no state, so that a run resumes anywhere."""
    return np.random.default_rng(np.random.SeedSequence((seed, 3, epoch))).permutation(size)


def _answer(run: Run, prompts: list[str], stop: Callable[[], bool] | None) -> tuple[Responses, Tensor, Tensor | None]:
    """Responses of the assigned behaviour policies, in the prompts' order, the policies' versions by row, and log β.

    The last is None unless the learner computes other probabilities than generation; see `Round.aligned_logp`.
    """
    config = run.config
    snapshots, _ = run.buffer.assign(len(prompts), run.generators["assignment"])
    versions = np.array([snapshot.version for snapshot in snapshots])
    parts: list[tuple[NDArray[Any], Responses]] = []
    aligned: list[tuple[NDArray[Any], Responses]] = []
    for version in np.unique(versions):
        places = np.flatnonzero(versions == version)
        snapshot = snapshots[int(places[0])]

        def ask(ids: Sequence[Sequence[int]], seed: Noise) -> Responses:
            return run.engine.generate(ids, config.samples, config.new_tokens, seed, stop)

        def answer(places: NDArray[Any] = places, version: int = int(version)) -> Responses:
            if config.engine != "vllm" or run.group.first:  # there is one server
                run.engine.load(version, trained(run.model))
            run.group.agree(False)
            ids = encoded(run.loaded, [prompts[place] for place in places])
            found = run.group.generate(ask, ids, run.generators["noise"])
            if not config.exact:
                aligned.append((places, replace(found, behaviour_logp=_logp(run, found))))
            return found

        own = snapshot.weights is None or version == run.update
        parts.append((places, answer() if own else with_weights(run, snapshot.arrays, answer)))
    device = parts[0][1].tokens.device
    by_row = torch.from_numpy(versions).repeat_interleave(config.samples).to(device)
    return _merged(parts, config.samples), by_row, _merged(aligned, config.samples).behaviour_logp if aligned else None


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


def with_weights(run: Run, weights: Mapping[str, NDArray[Any]], action: Callable[[], T]) -> T:
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
    part = replace(round_.take(rows), order=torch.arange(config.prompts, device=rows.device))
    return part, None if proximal is None else proximal[rows, : part.responses.behaviour_logp.shape[1]]
