"""What a rule from another package brings along: a name, and settings of its own.

Settings are declared by a frozen dataclass of numbers, truth values and words, each with a default, that is given to
`register`. A user sets them as ``filter.NAME`` or ``align.NAME``; the rule finds an instance in ``settings.own``.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from vaco.errors import UserError, nearest

_WORDS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a word"}


def require_new(kind: str, name: str, taken: Iterable[str]) -> None:
    """Refuse a name under which a rule could not be asked for.

    Args:
        kind: what it names, such as ``filter``.
        name: the name; it becomes part of ``ALIGN+FILTER`` and of paths.
        taken: names of other rules.

    Raises:
        UserError: it is in use, or no lower-case identifier.
    """
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise UserError(
            f"a {kind} may not be called '{name}': write lower-case letters, digits and '_', a letter first"
        )
    if name in taken:
        raise UserError(f"there is already a {kind} or an algorithm '{name}': give yours another name")


def require_declaration(declared: type | None, what: str) -> None:
    """Refuse a declaration of settings that is no frozen dataclass of plain values with defaults.

    Raises:
        UserError: it is not.
    """
    if declared is None:
        return
    wanted = f"the settings of {what} must be a frozen dataclass whose fields have numbers, words or truth values as"
    if not (isinstance(declared, type) and dataclasses.is_dataclass(declared)) or not _is_frozen(declared):
        raise UserError(f"{wanted} defaults, but they are {declared!r}")
    for field in dataclasses.fields(declared):
        if type(field.default) not in _WORDS:
            raise UserError(f"{wanted} defaults, but '{field.name}' has none such")


def own_settings(declared: type | None, given: Mapping[str, Any], what: str) -> Any:
    """The instance of a rule's own settings that a user's values make.

    Args:
        declared: the dataclass, None if the rule has no settings of its own.
        given: values by name; the others are at their defaults.
        what: the rule in words, such as ``the filter 'soft_tv'``.

    Returns:
        An instance; None if there is no dataclass.

    Raises:
        UserError: an unknown name, a value of the wrong type, or one that the dataclass refuses.
    """
    if declared is None:
        if given:
            raise UserError(f"{what} has no settings of its own, but {next(iter(given))} was given: leave it out")
        return None
    fields = {field.name: field for field in dataclasses.fields(declared)}
    values = {}
    for name, value in given.items():
        if name not in fields:
            raise UserError(f"{what} has no setting '{name}': {nearest(str(name), fields)}")
        values[name] = _of_type(value, fields[name].default, f"the setting '{name}' of {what}")
    try:
        return declared(**values)
    except (TypeError, ValueError) as error:
        raise UserError(f"{what} refuses its settings: {error}") from error


def differing(own: Any) -> dict[str, Any]:
    """The values of a rule's own settings that are not their defaults, by name; none of None."""
    if own is None:
        return {}
    values = {field.name: (getattr(own, field.name), field.default) for field in dataclasses.fields(own)}
    return {name: value for name, (value, default) in sorted(values.items()) if value != default}


class Noting:
    """Settings that note which of them are read, by a rule that does not say it."""

    def __init__(self, settings: object, noted: set[str], prefix: str = "") -> None:
        self._settings, self._noted, self._prefix = settings, noted, prefix

    def __getattr__(self, name: str) -> object:
        self._noted.add(f"{self._prefix}{name}")
        value = getattr(self._settings, name)
        return Noting(value, self._noted, f"{name}.") if name == "filter" else value


def _is_frozen(declared: type) -> bool:
    return bool(declared.__dataclass_params__.frozen)  # type: ignore[attr-defined]


def _of_type(value: Any, default: Any, what: str) -> Any:
    wanted = type(default)
    if wanted is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if type(value) is wanted and wanted is not float:
        return value
    raise UserError(f"{what} is {value!r}, but it must be {_WORDS[wanted]} such as {default!r}")
