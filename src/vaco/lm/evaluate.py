"""Accuracy of a language model on held-out problems, greedy and sampled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vaco.errors import UserError
from vaco.lm.model import LoadedModel
from vaco.lm.sample import generate, response_texts
from vaco.lm.task import Problem, Task


@dataclass(frozen=True)
class Accuracy:
    """Shares of right answers, in [0, 1], and the mean length of the greedy responses, tokens."""

    greedy: float
    sampled: float
    length: float


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
    loaded: LoadedModel, task: Task, problems: list[Problem], new_tokens: int, generator: np.random.Generator
) -> Accuracy:
    """Answer every problem once greedily and once by sampling at temperature 1.

    Args:
        loaded: the policy.
        task: verifies.
        problems: what to answer.
        new_tokens: longest response, tokens.
        generator: of the sampled responses.
    """
    prompts = [problem.prompt for problem in problems]
    shares = []
    length = 0.0
    for source in (None, generator):
        responses = generate(loaded, prompts, samples=1, new_tokens=new_tokens, generator=source)
        texts = response_texts(loaded, responses)
        verdicts = [task.verify(text, problem) for text, problem in zip(texts, problems, strict=True)]
        shares.append(float(np.mean(verdicts)))
        if source is None:
            length = float(responses.response_lengths.float().mean())
    return Accuracy(greedy=shares[0], sampled=shares[1], length=length)
