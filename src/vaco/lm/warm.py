"""The supervised warm start: worked solutions until a stated accuracy, so that RL has both room and signal.

All runs of a comparison start from the same weights, so they are a file that the workflow makes once. A run without
that file makes the weights itself, to the same bits.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from vaco.errors import UserError
from vaco.lm.config import LMConfig
from vaco.lm.evaluate import verdicts
from vaco.lm.model import LoadedModel, recomputing
from vaco.lm.sample import Responses, generate
from vaco.lm.task import Problem, Task
from vaco.lm.terms import pieces_by_length, token_logp
from vaco.lm.weights import Lazy, set_parameters, trained
from vaco.runs import checkpoint
from vaco.runs.progress import Progress

CHECK_EVERY = 50
CHECK_PROBLEMS = 512
FIRST_CHECK_INDEX = 1 << 30  # training problems beyond those that a warm start or RL draws

_NUMBER = re.compile(r"-?\d+")


def with_flaws(solution: str, chance: float, generator: np.random.Generator) -> str:
    """A worked solution by a teacher who, at each step, is one too high with a given chance and goes on from there.

    The numbers before the last are taken for the results of the steps and the last for the answer, as `chain_sum`
    writes them. A model that imitates this teacher knows the right step and a wrong one for every problem, so that RL
    has something to choose from.

    Args:
        solution: such as ``46,41#41``.
        chance: of an error in a step.
        generator: of the errors.
    """
    places = list(_NUMBER.finditer(solution))
    if len(places) < 2:
        return solution
    errors = np.cumsum(generator.random(len(places) - 1) < chance)
    values = [int(place.group()) + int(error) for place, error in zip(places[:-1], errors, strict=True)]
    values.append(int(places[-1].group()) + int(errors[-1]))
    parts, end = [], 0
    for place, value in zip(places, values, strict=True):
        parts += [solution[end : place.start()], str(value)]
        end = place.end()
    return "".join([*parts, solution[end:]])


def worked_batch(loaded: LoadedModel, problems: list[Problem]) -> Responses:
    """Worked solutions in the form of responses, ended by the end-of-sequence token.

    Raises:
        UserError: the task has no worked solutions.
    """
    rows = []
    for problem in problems:
        if problem.solution is None:
            raise UserError("the task has no worked solutions to start from: set warm_target to 0, or choose another")
        tokenizer = loaded.tokenizer
        rows.append(
            (
                tokenizer.encode(tokenizer.prompt(problem.prompt)),
                [*tokenizer.encode(problem.solution), tokenizer.eos_id],
            )
        )
    width = max(len(prompt) + len(solution) for prompt, solution in rows)
    pad = loaded.tokenizer.pad_id
    tokens = [prompt + solution + [pad] * (width - len(prompt) - len(solution)) for prompt, solution in rows]
    device = next(loaded.model.parameters()).device
    lengths = torch.tensor([len(solution) for _, solution in rows], device=device)
    return Responses(
        tokens=torch.tensor(tokens, device=device),
        prompt_lengths=torch.tensor([len(prompt) for prompt, _ in rows], device=device),
        response_lengths=lengths,
        behaviour_logp=torch.zeros(len(rows), int(lengths.max()), device=device),
    )


def warm_start(config: LMConfig, loaded: LoadedModel, task: Task, *, quiet: bool = True) -> dict[str, float]:
    """Train on worked solutions until the sampled accuracy on fresh training problems reaches the target.

    The problems of the check are training problems, of indices that nothing else draws; where a task has few texts,
    the same texts are trained on too. Held-out problems decide nothing.

    Args:
        config: its `warm_` settings.
        loaded: trained in place.
        task: must have worked solutions.
        quiet: show no progress.

    Returns:
        Gradient steps made and the accuracy reached.

    Raises:
        UserError: no worked solutions, or the target was not reached within `warm_updates`.
    """
    generator = np.random.default_rng(np.random.SeedSequence((0, 77)))
    moved = [value for _, value in trained(loaded.model)]
    optimizer = torch.optim.AdamW(moved, lr=config.warm_learning_rate, weight_decay=0.01)
    size = task.size("train")
    limit = FIRST_CHECK_INDEX if size is None else size
    checks = range(FIRST_CHECK_INDEX, FIRST_CHECK_INDEX + CHECK_PROBLEMS) if size is None else range(min(size, 512))
    held = task.problems("train", checks)
    reached = 0.0
    with Progress(f"warm start of {config.model}", config.warm_updates, quiet=quiet) as progress:
        for update in range(1, config.warm_updates + 1):
            problems = task.problems("train", generator.integers(limit, size=config.warm_batch).tolist())
            if config.warm_flaw > 0:
                problems = [_by_flawed_teacher(problem, config.warm_flaw, generator) for problem in problems]
            optimizer.zero_grad(set_to_none=True)
            with recomputing(loaded.model, config.gradient_checkpointing):
                loss = _imitate(loaded, worked_batch(loaded, problems), config.tokens_at_once, config.logits_at_once)
            for group in optimizer.param_groups:
                group["lr"] = config.warm_learning_rate * min(1.0, update / 100)
            torch.nn.utils.clip_grad_norm_(moved, 1.0)
            optimizer.step()
            if update % CHECK_EVERY == 0:
                reached = _sampled_accuracy(config, loaded, task, held)
                if reached >= config.warm_target and update >= config.warm_least:
                    return {"warm_updates": float(update), "warm_accuracy": reached}
            progress.advance(1, {"loss": f"{loss:.3f}", "accuracy": f"{reached:.3f}"})
    raise UserError(
        f"the warm start reached an accuracy of {reached:.3f} in {config.warm_updates} updates, below warm_target = "
        f"{config.warm_target}: raise warm_updates, or make the task easier"
    )


def _imitate(loaded: LoadedModel, batch: Responses, at_once: int, logits_at_once: int = 0) -> float:
    """Leave the gradient of the mean negative log-likelihood in the parameters, in pieces if there are many tokens.

    Raises:
        UserError: the GPU's memory was full.
    """
    total, tokens = 0.0, batch.mask.sum()
    whole = int(batch.tokens.numel()) <= at_once
    try:
        for part in [batch] if whole else [batch.take(rows) for rows in pieces_by_length(batch, at_once)]:
            loss = -token_logp(loaded.model, part, logits_at_once).sum() / tokens
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
    except torch.OutOfMemoryError:
        raise UserError(
            f"the GPU's memory was full in the warm start: lower tokens_at_once (now {at_once:,})"
        ) from None
    return total


def _by_flawed_teacher(problem: Problem, chance: float, generator: np.random.Generator) -> Problem:
    if problem.solution is None:
        return problem
    return replace(problem, solution=with_flaws(problem.solution, chance, generator))


def _sampled_accuracy(config: LMConfig, loaded: LoadedModel, task: Task, problems: list[Problem]) -> float:
    prompts = [problem.prompt for problem in problems]
    source = np.random.default_rng(np.random.SeedSequence((0, 78)))
    responses = generate(
        loaded, prompts, samples=1, new_tokens=config.new_tokens, generator=source, batch=config.generate_batch
    )
    return float(np.mean(verdicts(loaded, task, responses, problems, config.cut_responses)))


def save_warm_start(path: Path, config: LMConfig, loaded: LoadedModel, facts: dict[str, float]) -> None:
    """Write the weights with their identity.

    Raises:
        UserError: the file cannot be written.
    """
    from vaco.runs import atomic

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise atomic.write_error(path, error) from error
    meta = {"warm_hash": config.warm_hash, **facts}
    with atomic.writing(path) as stream:
        checkpoint.write(stream, Lazy(dict(trained(loaded.model))), meta)


def load_warm_start(path: Path, config: LMConfig, loaded: LoadedModel) -> dict[str, float]:
    """Load weights that `save_warm_start` wrote for the same settings.

    Returns:
        The facts stored with them.

    Raises:
        UserError: missing, damaged, or of other settings.
    """
    arrays, meta = checkpoint.read(path)
    if not isinstance(meta, dict) or meta.get("warm_hash") != config.warm_hash:
        raise UserError(
            f"{path} is a warm start of other settings of task, model or warm-up: make one with 'vaco lm warm' and the "
            "settings of this run"
        )
    set_parameters(loaded.model, arrays)
    return {key: float(value) for key, value in meta.items() if key != "warm_hash"}
