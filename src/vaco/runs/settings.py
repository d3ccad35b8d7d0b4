"""What the settings of runs and of tasks share: frozen, checked by pydantic, and read as YAML gives them."""

from __future__ import annotations

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
from vaco.runs import explain


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
        """Take what YAML has another type for but means the same: 1e6 for a million, 3e-4 as a word, lists."""
        kind = type(cls.fields()[str(info.field_name)].default)
        try:
            if kind is int and type(value) in (int, float):
                return int(value) if float(value).is_integer() else value
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
