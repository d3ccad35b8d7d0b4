"""The JSON schema of a tier file, and its complaints in sentences for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn, cast

import jsonschema

from vaco.errors import UserError, nearest

_PATH_NAME = "^[A-Za-z0-9][A-Za-z0-9._-]*$"
_NAMES = {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1, "uniqueItems": True}
_CAPACITIES = {
    "type": "array",
    "items": {"type": "integer", "minimum": 1},
    "minItems": 1,
    "uniqueItems": True,
}
_SEEDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "uniqueItems": True}
_SETTINGS = {
    "type": "object",
    # The run configuration checks names, types and ranges; here only what no setting can be is refused.
    "additionalProperties": {"type": ["string", "number", "boolean", "array"]},
}
_GRID = {"environments": _NAMES, "algorithms": _NAMES, "capacities": _CAPACITIES, "seeds": _SEEDS}


def _closed(properties: dict[str, Any], required: Sequence[str] = ()) -> dict[str, Any]:
    """An object schema that rejects every key it does not name."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


TIER_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "A tier: environments, algorithms, capacities, seeds, steps, evaluation grid",
    **_closed(
        {
            "tier": {"type": "string", "pattern": _PATH_NAME},
            "description": {"type": "string"},
            **_GRID,
            "steps": {"type": "integer", "minimum": 1},
            "evaluation": _closed(
                {
                    "points": {"type": "integer", "minimum": 1},
                    "episodes": {"type": "integer", "minimum": 1},
                },
                ("points", "episodes"),
            ),
            "training": _SETTINGS,
            "overrides": {"type": "object", "additionalProperties": _SETTINGS},
            "variants": {
                "type": "object",
                "propertyNames": {"pattern": _PATH_NAME},
                "additionalProperties": _closed(
                    {"algorithm": {"type": "string"}, "training": _SETTINGS}, ("algorithm", "training")
                ),
            },
            "studies": {
                "type": "object",
                "propertyNames": {"pattern": _PATH_NAME},
                "additionalProperties": _closed(_GRID),
            },
            "reference": _closed(
                {
                    "episodes": {"type": "integer", "minimum": 2},
                    "seed": {"type": "integer", "minimum": 0},
                },
                ("episodes", "seed"),
            ),
        },
        (
            "tier",
            "description",
            "environments",
            "algorithms",
            "capacities",
            "seeds",
            "steps",
            "evaluation",
            "reference",
        ),
    ),
}


def _is_whole(checker: object, value: object) -> bool:
    """Whether a value is an integer: to JSON Schema 1.0 is one too, but `--steps 1000000.0` is refused by the run."""
    return isinstance(value, int) and not isinstance(value, bool)


_Validator = jsonschema.validators.extend(  # type: ignore[no-untyped-call]  # jsonschema's stubs leave it bare
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_whole),
)


def check(value: object, schema: dict[str, Any], where: str) -> None:
    """Validate against a JSON schema and say in one sentence what is wrong.

    Raises:
        UserError: names the file, the place in it, what was expected and, for a misspelt key, the nearest valid key.
    """
    errors = _Validator(schema).iter_errors(value)
    first = min(errors, key=lambda e: (len(e.absolute_path), str(e.message)), default=None)
    if first is not None:
        _explain(first, where)


def _explain(error: jsonschema.ValidationError, where: str) -> NoReturn:
    """Turn jsonschema's account of an error into a sentence for people."""
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path).lstrip(".")
    inside = f" in '{place}'" if place else " at the top level"
    schema = cast(dict[str, Any], error.schema)
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        valid = set(schema.get("properties", {}))
        unknown = sorted(str(key) for key in error.instance if key not in valid)[0]
        raise UserError(f"{where}: unknown key '{unknown}'{inside}: {nearest(unknown, valid)}") from None
    if error.validator == "required" and isinstance(error.instance, dict):
        missing = next(key for key in schema["required"] if key not in error.instance)
        raise UserError(f"{where}: the key '{missing}' is missing{inside}: add it") from None
    shown = json.dumps(error.instance, default=str)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    reason = _reason(str(error.validator), error.validator_value) or error.message
    what = f"'{place}' is {shown}" if place else f"the file holds {shown}"
    raise UserError(f"{where}: {what}: {reason}") from None


def _reason(rule: str, value: Any) -> str | None:
    """What a rule of the schema expects, or None for a rule without words of its own."""
    match rule:
        case "type":
            return f"expected {_kinds(value)}"
        case "minimum":
            return f"expected at least {value}"
        case "minItems":
            return "expected at least one entry"
        case "uniqueItems":
            return "every entry may be listed once only"
        case "pattern":
            return "expected letters, digits, '-', '_' and '.', since it becomes part of a path"
        case _:
            return None


def _kinds(kinds: object) -> str:
    words = {
        "object": "keys and values",
        "array": "a list",
        "integer": "a whole number without a decimal point",
        "string": "text",
    }
    words["boolean"] = "true or false"
    listed = [kinds] if isinstance(kinds, str) else list(cast(Iterable[str], kinds))
    return " or ".join(words.get(str(kind), f"a {kind}") for kind in listed)
