"""What pydantic finds wrong, in one sentence for people: of a setting of a run, and of a key of a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from vaco.errors import UserError, nearest

Model = TypeVar("Model", bound=BaseModel)

UNKNOWN_KEY = "unknown_key"
_SETTINGS = {"int_type": "a whole number", "float_type": "a number", "finite_number": "a finite number"}
_SETTINGS |= {"bool_type": "true or false", "tuple_type": "a list"}
_KEYS = _SETTINGS | {
    "int_type": "a whole number without a decimal point",
    "string_type": "text",
    "list_type": "a list",
    **dict.fromkeys(("dict_type", "model_type"), "keys and values"),
    "too_short": "at least one entry",
    "string_too_short": "text that is not empty",
    "string_pattern_mismatch": "letters, digits, '-', '_' and '.', since it becomes part of a path",
}
_BOUNDS = {"greater_than_equal": "be at least {ge}", "less_than_equal": "be at most {le}"}
_BOUNDS |= {"greater_than": "exceed {gt}"}


def of_setting(error: ValidationError, fields: Mapping[str, FieldInfo]) -> str:
    """The first mistake in settings, a misspelt name before all others."""
    first = min(error.errors(include_url=False), key=lambda e: e["type"] != "unexpected_keyword_argument")
    kind, value, (name, *inside) = first["type"], first["input"], first["loc"]
    if kind == "unexpected_keyword_argument":
        return f"there is no setting '{name}': {nearest(str(name), fields)}"
    field = fields[str(name)]
    if kind == "literal_error" and isinstance(value, str):
        return f"{name} is '{value}': {nearest(value, get_args(field.annotation))}"
    default = list(field.default) if isinstance(field.default, tuple) else field.default
    if kind in _BOUNDS:
        return f"{name} is {value}, but it must {_bound(first)} (default {default})"
    if inside:
        name, default = f"{name}[{inside[0]}]", default[0]
    return f"{name} is {value!r}, but it must be {_SETTINGS.get(kind, 'a word')} such as {default!r}"


def check(value: object, model: type[Model], where: str) -> Model:
    """Make a model of what a file holds.

    Raises:
        UserError: names the file, the place in it, what was expected and, for a misspelt key, the nearest valid key.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = [(_place(problem), problem) for problem in error.errors(include_url=False)]
        place, first = min(found, key=lambda pair: (len(pair[0]), pair[1]["type"] != UNKNOWN_KEY))
        raise UserError(f"{where}: {_of_key(place, first)}") from None


def _place(problem: ErrorDetails) -> tuple[int | str, ...]:
    """Where in the file: of a missing key the place that it is missing in, of a wrong name what it is a name in."""
    loc = problem["loc"]
    return loc[:-1] if problem["type"] == "missing" else loc[:-2] if loc and loc[-1] == "[key]" else loc


def _of_key(place: tuple[int | str, ...], problem: ErrorDetails) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
    inside = f" in '{path}'" if path else " at the top level"
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == UNKNOWN_KEY:
        return f"unknown key '{context['key']}'{inside}: {context['hint']}"
    if kind == "missing":
        return f"the key '{problem['loc'][-1]}' is missing{inside}: add it"
    shown = json.dumps(problem["input"], default=str, skipkeys=True)
    what = f"'{path}' is " if path else "the file holds "
    what += shown if len(shown) <= 60 else f"{shown[:57]}..."
    expected = _KEYS.get(kind) or context.get("expected") or _bound(problem).removeprefix("be ")
    return f"{what}: expected {expected}" if expected else f"{what}: {problem['msg']}"


def _bound(problem: ErrorDetails) -> str:
    """What a value must do to be in range; empty if it is wrong in another way."""
    limits = {key: f"{x:g}" if isinstance(x, float) else x for key, x in problem.get("ctx", {}).items()}
    return _BOUNDS.get(problem["type"], "").format_map(limits)
