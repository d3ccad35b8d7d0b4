"""What pydantic finds wrong, in one sentence for people: of a setting of a run, and of a key of a file."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from typing import Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from vaco.errors import UserError, nearest
from vaco.runs import words

Model = TypeVar("Model", bound=BaseModel)

UNKNOWN_KEY = "unknown_key"
_SETTINGS = {"int_type": "a whole number", "float_type": "a number", "finite_number": "a finite number"}
_SETTINGS |= {"bool_type": "true or false", "tuple_type": "a list"}
_KEYS = _SETTINGS | {
    "int_type": "a whole number without a decimal point",
    "string_type": "text",
    "list_type": "a list",
    **dict.fromkeys(("dict_type", "model_type"), "keys and values"),
    "string_too_short": "text that is not empty",
    "string_pattern_mismatch": "letters, digits, '-', '_' and '.', since it becomes part of a path",
}
_BOUNDS = {"greater_than_equal": "be at least {ge}", "less_than_equal": "be at most {le}"}
_BOUNDS |= {"greater_than": "exceed {gt}", "too_short": "be a list of at least {min_length}"}


def of_setting(error: ValidationError, fields: Mapping[str, FieldInfo]) -> str:
    """The first mistake in settings, a misspelt name before all others."""
    first = min(error.errors(include_url=False), key=lambda e: e["type"] != "unexpected_keyword_argument")
    kind, value, (name, *inside) = first["type"], first["input"], first["loc"]
    if kind == "unexpected_keyword_argument":
        meanings = {name: str(field.description) for name, field in fields.items()}
        return f"there is no setting '{name}': {words.hint(str(name), fields, meanings)}"
    field = fields[str(name)]
    if kind == "literal_error" and isinstance(value, str):
        return f"{name} is '{value}': {nearest(value, get_args(field.annotation))}"
    default = field.examples[0] if field.examples else field.default
    default = list(default) if isinstance(default, tuple) else default
    if kind in _BOUNDS:
        return f"{name} is {value}, but it must {_bound(first)} (default {default})"
    if inside:
        name, default = f"{name}[{inside[0]}]", default[0] if isinstance(default, list) else default
    return f"{name} is {value!r}, but it must be {_SETTINGS.get(kind, 'a word')} such as {default!r}"


def listing(fields: Mapping[str, FieldInfo], width: int) -> str:
    """All settings for people, one paragraph each: name, meaning, range and default.

    Args:
        fields: of a configuration.
        width: of the text, in characters.
    """
    indent = 2 + max(map(len, fields))
    lines = []
    for name, field in fields.items():
        default = json.dumps(field.default) if not isinstance(field.default, str) else field.default
        facts = [*filter(None, [_range(field)]), f"default {default or 'none'}"]
        text = f"{field.description} ({'; '.join(facts)})"
        lines.append(
            textwrap.fill(
                text, max(width, indent + 20), initial_indent=f"{name:{indent}}", subsequent_indent=" " * indent
            )
        )
    return "\n".join(lines)


def _range(field: FieldInfo) -> str:
    """What a setting may be: its choices, or its bounds; empty if anything of its kind."""
    if get_origin(field.annotation) is Literal:
        return "one of " + ", ".join(map(str, get_args(field.annotation)))
    marks = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    bounds = [
        f"{sign} {getattr(limit, key):g}"
        for limit in field.metadata
        for key, sign in marks.items()
        if hasattr(limit, key)
    ]
    return ", ".join(bounds)


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
