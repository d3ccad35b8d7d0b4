"""Things that a user names instead of passing: a function, a class or a wrapper as ``module:name``."""

from __future__ import annotations

import importlib
import shlex
import sys
from pathlib import Path
from typing import Any

import gymnasium

from vaco.errors import UserError, nearest, said
from vaco.runs.config import parse_arguments


def module_of(name: str, what: str) -> Any:
    """Import a module, also one in the current folder.

    Args:
        name: its dotted name.
        what: what it was given as, for the sentence.

    Raises:
        UserError: there is none, or importing it fails.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # last: nothing that is installed is hidden by a file of the same name
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise UserError(
            f"the module '{name}' of {what} cannot be imported ({said(error)}): run from the folder that holds it, "
            "install it, or mend it"
        ) from error


def attribute_of(module: Any, name: str, what: str) -> Any:
    """What a module calls by that name, dots allowed.

    Raises:
        UserError: nothing, or something that cannot be called.
    """
    found = module
    for part in name.split("."):
        if not hasattr(found, part):
            known = [one for one in dir(found) if not one.startswith("_")]
            raise UserError(f"{what}: '{module.__name__}' has no '{name}': {nearest(part, known)}")
        found = getattr(found, part)
    if not callable(found):
        raise UserError(f"{what} is no class or function but {type(found).__name__}: name one that can be called")
    return found


def callable_of(text: str, what: str) -> Any:
    """What ``module:name`` stands for.

    Raises:
        UserError: it is not of that form, or there is no such thing.
    """
    module, sign, name = text.partition(":")
    if not sign or not module or not name:
        raise UserError(f"{what} is '{text}', but module:name was expected, such as my_package.environments:make")
    return attribute_of(module_of(module, what), name, what)


def wrapped(env: gymnasium.Env[Any, Any], text: str) -> gymnasium.Env[Any, Any]:
    """Put a wrapper around an environment.

    Args:
        env: the environment.
        text: ``module:Class``, or the name of a class of `gymnasium.wrappers`; then ``NAME=VALUE`` arguments, values as
            YAML, separated by blanks.

    Raises:
        UserError: there is no such wrapper, it refuses, or what it makes is no environment.
    """
    what = f"the wrapper '{text}'"
    try:
        name, *given = shlex.split(text)
    except ValueError:
        raise UserError(f"{what} cannot be read: write module:Class NAME=VALUE, in quotes") from None
    kind = callable_of(name, what) if ":" in name else attribute_of(gymnasium.wrappers, name, what)
    try:
        made = kind(env, **parse_arguments(given, f"--wrapper {name}"))
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what} refuses ({said(error)}): see what it expects, and give its arguments") from error
    if not isinstance(made, gymnasium.Env):
        raise UserError(f"{what} makes no environment but {type(made).__name__}: give a gymnasium.Wrapper")
    return made
