"""PyTorch, loaded when it is first used.

The rules of `objectives` are known by name, formula and settings to much that never computes one: the workflow, which
every job of a cluster reads anew, tiers, archives, `vaco algorithms`. Loading PyTorch takes a second and 200 MB or
more, so it waits for the first tensor. From then on `torch` is the module itself, at no further cost.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])


def load_later(name: str) -> ModuleType:
    """A module that is loaded when an attribute of it is first asked for; the module itself where it is loaded already.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


if TYPE_CHECKING:
    import torch
else:
    torch = load_later("torch")


def no_grad(function: Function) -> Function:
    """`torch.no_grad` as a decorator, which as such would load PyTorch where a function is defined."""

    @wraps(function)
    def detached(*arguments: Any, **options: Any) -> Any:
        with torch.no_grad():
            return function(*arguments, **options)

    return cast(Function, detached)


__all__ = ["load_later", "no_grad", "torch"]
