"""PyTorch, loaded when it is first used.

The rules of `objectives` are known by name, formula and settings to much that never computes one: the workflow, which
every job of a cluster reads anew, tiers, archives, `vaco algorithms`. Loading PyTorch takes a second and 200 MB or
more, so it waits for the first tensor. From then on `torch` is the module itself, at no further cost.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])


_LOADING = threading.RLock()


class _Later(ModuleType):
    """A module that is executed when an attribute is first asked for, and is an ordinary one from then on.

    The standard library's `LazyLoader` does the same, but in Python 3.13 it recurses for ever when a module deletes an
    attribute of itself while it is executed, as PyTorch does.
    """

    def __getattribute__(self, name: str) -> Any:
        """Execute the module first, unless this thread is at it."""
        spec = ModuleType.__getattribute__(self, "__spec__")
        with _LOADING:
            if type(self) is _Later and not spec.loader_state:
                spec.loader_state = "loading"
                try:
                    spec.loader.exec_module(self)
                finally:
                    spec.loader_state = None
                if type(self) is _Later:  # else it has given itself another class
                    self.__class__ = ModuleType  # type: ignore[assignment]
        return ModuleType.__getattribute__(self, name) if type(self) is _Later else getattr(self, name)


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
    module = importlib.util.module_from_spec(spec)
    module.__class__ = _Later
    sys.modules[name] = module
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
