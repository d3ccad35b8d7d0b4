"""The learner's own model as the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor

from vaco.lm.model import LoadedModel
from vaco.lm.sample import Noise, Responses, generate_ids


class LocalEngine:
    """Generates with the learner's model, in its precision.

    Args:
        loaded: the learner's model.
        batch: most responses generated at once.
    """

    def __init__(self, loaded: LoadedModel, batch: int) -> None:
        self._loaded, self._batch = loaded, batch

    def load(self, version: int, named_parameters: Iterable[tuple[str, Tensor]]) -> None:
        """Nothing: they are the parameters of the learner's model, which is the engine's."""

    def generate(
        self,
        prompt_ids: Sequence[Sequence[int]],
        samples: int,
        new_tokens: int,
        seed: Noise,
        stop: Callable[[], bool] | None = None,
    ) -> Responses:
        """See `Engine.generate`."""
        return generate_ids(
            self._loaded,
            prompt_ids,
            samples=samples,
            new_tokens=new_tokens,
            generator=seed,
            batch=self._batch,
            stop=stop,
        )

    def close(self) -> None:
        """Nothing to let go of."""
