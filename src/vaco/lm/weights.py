"""Weights by name: what a run trains, out of a model and into it, without a second copy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from vaco.errors import UserError

Arrays = dict[str, NDArray[Any]]


class Lazy(Mapping[str, NDArray[Any]]):
    """Tensors and arrays by name, each as an array when it is asked for: on a processor its own memory, no copy."""

    def __init__(self, values: Mapping[str, Tensor | NDArray[Any]]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> NDArray[Any]:
        value = self._values[name]
        if not isinstance(value, Tensor):
            return value
        value = value.detach()
        return (value.float() if value.dtype == torch.bfloat16 else value).cpu().numpy()

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def trained(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """The parameters that gradients change, by name, each once (tied weights are one)."""
    return ((name, value) for name, value in model.named_parameters() if value.requires_grad)


def parameters(model: torch.nn.Module) -> Arrays:
    """A copy of what `trained` names."""
    return {name: value.copy() for name, value in Lazy(dict(trained(model))).items()}


def set_parameters(model: torch.nn.Module, arrays: Mapping[str, NDArray[Any]]) -> None:
    """The inverse of `parameters`.

    Raises:
        UserError: the weights are of a model of other shape.
    """
    own = dict(trained(model))
    if set(own) != set(arrays) or any(tuple(own[n].shape) != arrays[n].shape for n in own):
        raise UserError("the weights are of a model of another shape: use the settings of the run that made them")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(torch.from_numpy(arrays[name]))
