"""Several processes as one learner: each generates and differentiates a share of the rows, and all make the same step.

``torchrun --nproc-per-node 2 -m vaco lm train ...`` starts them; `here` finds them by the variables that it sets. Every
process holds the whole model and the whole round. Rows are dealt out, what was computed of them is put together, and
whatever is decided is decided by every process from the same numbers, so that the losses are those of one process, but
for the order of sums. Only the first writes files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed

from vaco.lm.sample import Noise, Responses


@dataclass(frozen=True)
class Group:
    """The processes of a run.

    Attributes:
        rank: which this one is.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def share(self, count: int) -> NDArray[np.int64]:
        """Which of `count` things are this process's: every size-th."""
        return np.arange(self.rank, count, self.size)

    def rows(self, like: Tensor) -> Tensor:
        """Which rows of a tensor are this process's, as a tensor beside it."""
        return torch.from_numpy(self.share(len(like))).to(like.device)

    def agree(self, said: bool) -> bool:
        """Whether any process says so."""
        if self.size == 1:
            return said
        flag = torch.tensor(float(said), device=_device())
        distributed.all_reduce(flag, distributed.ReduceOp.MAX)
        return bool(flag)

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over the processes."""
        for tensor in tensors if self.size > 1 else ():
            distributed.all_reduce(tensor)

    def take_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by the first process's."""
        for tensor in tensors if self.size > 1 else ():
            distributed.broadcast(tensor, 0)

    def together(self, own: Tensor, count: int) -> Tensor:
        """Rows of all processes.

        Args:
            own: rows `share(count)`, [own rows, width]; the width is this process's.
            count: rows of all.

        Returns:
            [count, widest], zeros where a row's process had none.
        """
        if self.size == 1:
            return own
        width = torch.tensor(own.shape[1], device=_device())
        distributed.all_reduce(width, distributed.ReduceOp.MAX)
        most = -(-count // self.size)
        padded = own.new_zeros(most, int(width))
        padded[: own.shape[0], : own.shape[1]] = own
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        distributed.all_gather(parts, padded.contiguous())
        # Row i of part r is row i · size + r of all.
        return torch.stack(parts, 1).reshape(most * self.size, int(width))[:count]

    def generate(
        self,
        answer: Callable[[Sequence[Sequence[int]], Noise], Responses],
        prompts: Sequence[Sequence[int]],
        seed: Noise,
    ) -> Responses:
        """Responses to all prompts, of which each process answers its share.

        Args:
            answer: to some prompts, with uniform numbers for them.
            prompts: token ids of each.
            seed: the same in every process, and it advances alike.
        """
        if self.size == 1 or len(prompts) < self.size:  # too few to share: everyone answers them
            return answer(prompts, seed)
        own = self.share(len(prompts))
        found = answer([prompts[place] for place in own], _Part(seed, len(prompts), own))
        samples = len(found.tokens) // len(own)
        count = len(prompts)

        def put(values: Tensor) -> Tensor:
            """By prompts first, since they were dealt out, then by rows."""
            wide = values.reshape(len(values), -1)
            width = torch.tensor(wide.shape[1], device=_device())
            distributed.all_reduce(width, distributed.ReduceOp.MAX)
            padded = torch.nn.functional.pad(wide, (0, int(width) - wide.shape[1]))
            merged = self.together(padded.reshape(len(own), -1), count).reshape(count * samples, int(width))
            return merged.reshape(-1) if values.dim() == 1 else merged

        return Responses(
            put(found.tokens), put(found.prompt_lengths), put(found.response_lengths), put(found.behaviour_logp)
        )


class _Part:
    """Of what a generator draws for every row, the rows of some prompts."""

    def __init__(self, seed: Noise, prompts: int, own: NDArray[np.int64]) -> None:
        self._seed, self._prompts, self._own = seed, prompts, own

    def random(self, size: tuple[int, int]) -> NDArray[np.float64]:
        samples = size[0] // len(self._own)
        every = self._seed.random((self._prompts * samples, size[1]))
        return every.reshape(self._prompts, samples, size[1])[self._own].reshape(size)


ALONE = Group()


def _device() -> torch.device:
    return torch.device("cuda" if distributed.get_backend() == "nccl" else "cpu")


@contextmanager
def here(device: str) -> Iterator[Group]:
    """The processes that torchrun started, or this one alone.

    Args:
        device: of the model; on 'cuda' each process takes the GPU of its own number.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        yield ALONE
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield Group(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
