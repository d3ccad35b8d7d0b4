"""What the settings of runs and of tasks share: frozen, checked by pydantic, and read as YAML gives them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import (
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo

from vaco.errors import UserError
from vaco.objectives.own import differing
from vaco.runs import explain
from vaco.yaml_file import parse_yaml

OWN = {"filter": "filter_options", "align": "align_options"}
"""Settings that only one rule has: how their names begin, and the setting of a run that holds them all."""


def gathered(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in which ``filter.NAME`` and ``align.NAME``, and mappings of them, are put into the one that holds them.

    Raises:
        UserError: what holds them is no mapping.
    """
    found = {str(name): value for name, value in settings.items()}
    for prefix, holder in OWN.items():
        single = {name: value for name, value in found.items() if name.startswith(f"{prefix}.")}
        given = [found[name] for name in (holder, prefix) if name in found]
        if not single and all(isinstance(value, str) for value in given):
            continue
        together: dict[str, Any] = {}
        for value in given:
            together |= mapping_of(holder, value)
        together |= {name.partition(".")[2]: value for name, value in single.items()}
        found = {name: value for name, value in found.items() if name not in single and name != prefix}
        found[holder] = json.dumps(together, sort_keys=True)
    return found


def holder_of(name: str) -> str:
    """The setting of a run that a name belongs to: itself, or what holds all settings of one rule."""
    prefix, dot, _ = name.partition(".")
    return OWN.get(prefix, name) if dot or prefix in OWN else name


def mapping_of(name: str, value: Any) -> dict[str, Any]:
    """Settings that are written on one line, or are a mapping already.

    Raises:
        UserError: they are no mapping.
    """
    content = parse_yaml(value, f"the value of {name}") if isinstance(value, str) else value
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{name} is '{value}', but it must be a mapping such as '{{max_terms: 3}}'")
    return dict(content)


def settled(others: Mapping[str, Any], **own: Any) -> dict[str, Any]:
    """Settings for an identity: of those that only one rule has, by value what differs from their defaults.

    Args:
        others: the settings that differ from their defaults.
        own: by the name of what holds them, the instances that they make; None where no rule declares any.
    """
    found = {name: value for name, value in others.items() if own.get(name) is None}
    return found | {name: values for name, instance in own.items() if (values := differing(instance))}


def setting(default: Any, meaning: str, **bounds: Any) -> Any:
    """A field with its default, the sentence that tables print of it, and its bounds as `pydantic.Field` has them."""
    return Field(default, description=meaning, **bounds)


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid", allow_inf_nan=False))
class Settings:
    """Base of all settings: a dataclass whose fields have defaults.

    Raises:
        UserError: on construction, for an unknown name, or a value of the wrong type or out of range, with one
            sentence that says how to mend it.
    """

    @classmethod
    def fields(cls) -> dict[str, FieldInfo]:
        """Every setting, with its `default` and its `description`."""
        return cls.__pydantic_fields__  # type: ignore[attr-defined,no-any-return]

    def resolved(self) -> dict[str, Any]:
        """Every setting as JSON-ready values."""
        values = {name: getattr(self, name) for name in self.fields()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @field_validator("*", mode="before")
    @classmethod
    def _as_written(cls, value: Any, info: ValidationInfo) -> Any:
        """Take what YAML has another type for but means the same: 1e6 for a million and 3e-4, words to it, or lists."""
        kind = type(cls.fields()[str(info.field_name)].default)
        try:
            if kind is int and type(value) in (int, float, str):
                # Of a word, digits alone are exact only without the detour.
                number = value if type(value) is not str else int(value) if value.isdecimal() else float(value)
                return int(number) if float(number).is_integer() else value
            if kind is float and type(value) in (int, str):
                return float(value)
        except ValueError:
            return value
        except OverflowError:
            raise UserError(f"{info.field_name} is a number too large for any run: write one of fewer digits") from None
        return tuple(value) if kind is tuple and isinstance(value, list) else value

    @model_validator(mode="wrap")
    @classmethod
    def _in_words(cls, values: Any, handler: ModelWrapValidatorHandler[Any]) -> Any:
        try:
            return handler(values)
        except ValidationError as error:
            raise UserError(explain.of_setting(error, cls.fields())) from None
