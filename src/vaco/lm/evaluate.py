"""Accuracy of a language model on held-out problems, greedy and sampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vaco.errors import UserError
from vaco.lm.config import LMConfig
from vaco.lm.model import LoadedModel
from vaco.lm.sample import Responses, generate, response_texts
from vaco.lm.task import Problem, Task


@dataclass(frozen=True)
class Accuracy:
    """Shares of right answers, in [0, 1], and the mean length and the cut share of the greedy responses.

    Attributes:
        greedy: share of right answers, the most probable token each time.
        sampled: share of right answers at temperature 1.
        length: mean length of the greedy responses, tokens.
        cut: share of the greedy responses that were cut at the longest length.
    """

    greedy: float
    sampled: float
    length: float
    cut: float


def verdicts(
    loaded: LoadedModel, task: Task, responses: Responses, problems: Sequence[Problem], cut_responses: str
) -> list[float]:
    """What each response earns: what the task's verifier says, and nothing for one that was cut.

    Other systems: verl judges what is there; TRL can leave cut responses out of the loss, DAPO does, or takes a penalty
    off that grows with length; open-instruct can pay them a fixed penalty.

    Args:
        loaded: whose tokenizer reads them.
        task: verifies.
        responses: to be judged.
        problems: one for every response.
        cut_responses: `no_reward`, or `judged` for what the text earns if taken as complete.
    """
    texts = response_texts(loaded, responses)
    cut = responses.cut(loaded.tokenizer.end_ids).tolist()
    return [
        0.0 if short and cut_responses == "no_reward" else task.verify(text, problem)
        for text, problem, short in zip(texts, problems, cut, strict=True)
    ]


def eval_problems(task: Task, count: int) -> list[Problem]:
    """The first `count` held-out problems.

    Raises:
        UserError: the task has fewer.
    """
    size = task.size("eval")
    if size is not None and count > size:
        raise UserError(f"eval_problems is {count}, but the task '{task.name}' has only {size}: ask for at most {size}")
    return task.problems("eval", range(count))


def accuracy(
    loaded: LoadedModel, task: Task, problems: list[Problem], config: LMConfig, generator: np.random.Generator
) -> Accuracy:
    """Answer every problem once greedily and once by sampling at temperature 1.

    Args:
        loaded: the policy.
        task: verifies.
        problems: what to answer.
        config: how long responses are, and what one earns that was cut.
        generator: of the sampled responses.
    """
    prompts = [problem.prompt for problem in problems]
    shares = []
    length = cut = 0.0
    for source in (None, generator):
        responses = generate(
            loaded, prompts, samples=1, new_tokens=config.new_tokens, generator=source, batch=config.generate_batch
        )
        shares.append(float(np.mean(verdicts(loaded, task, responses, problems, config.cut_responses))))
        if source is None:
            length = float(responses.response_lengths.float().mean())
            cut = float(responses.cut(loaded.tokenizer.end_ids).float().mean())
    return Accuracy(greedy=shares[0], sampled=shares[1], length=length, cut=cut)
