"""Engines: what generates responses. They are given weights and prompts and return responses with log β of each token.

`local` is the learner itself. `process` is a process of its own with a precision of its own, so that on a processor,
too, what generates computes other probabilities than what learns. `vllm` is a server of that name, spoken to over HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from torch import Tensor

from vaco.lm.config import LMConfig
from vaco.lm.model import LoadedModel, Spec
from vaco.lm.sample import Noise, Responses

NAMES = ("local", "process", "vllm")


class Engine(Protocol):
    """What generates. One is used by one run, from one thread."""

    def load(self, version: int, named_parameters: Iterable[tuple[str, Tensor]]) -> None:
        """Generate with these weights from now on.

        Args:
            version: the policy's, the update after which it was taken; an engine may know it already.
            named_parameters: what the learner trains, by name, float32; read at once.

        Raises:
            UserError: the engine could not take them.
        """

    def generate(
        self,
        prompt_ids: Sequence[Sequence[int]],
        samples: int,
        new_tokens: int,
        seed: Noise,
        stop: Callable[[], bool] | None = None,
    ) -> Responses:
        """Answer every prompt `samples` times at temperature 1.

        Args:
            prompt_ids: token ids of each prompt.
            samples: G, responses a prompt.
            new_tokens: longest response, tokens.
            seed: all randomness comes from it.
            stop: asked now and then; True abandons the round.

        Returns:
            G rows a prompt, in the prompts' order, with the log-probabilities that the engine itself computed.

        Raises:
            UserError: the engine failed.
            Abandoned: `stop` said so.
        """

    def close(self) -> None:
        """Let go of what the engine holds; it may be used again after `load`."""


def make_engine(config: LMConfig, loaded: LoadedModel, spec: Spec) -> Engine:
    """The engine that a configuration asks for.

    Args:
        config: its `engine`.
        loaded: the learner's model.
        spec: how to load that model again, elsewhere.
    """
    if config.engine == "process":
        from vaco.lm.engines.process import ProcessEngine

        return ProcessEngine(spec, loaded, config)
    if config.engine == "vllm":
        from vaco.lm.engines.vllm import VllmEngine

        return VllmEngine(loaded, config)
    from vaco.lm.engines.local import LocalEngine

    return LocalEngine(loaded, config.generate_batch)
