"""What a tier's file and ``config/config.yaml`` may hold, as pydantic models; `vaco.runs.explain.check` reads them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from vaco.errors import nearest
from vaco.runs.explain import UNKNOWN_KEY

Item = TypeVar("Item")


class Closed(BaseModel):
    """Keys and values of a file: no other keys, and no value that is taken for another type."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _name_the_nearest(cls, values: Any) -> Any:
        for key in values if isinstance(values, dict) else ():
            if key not in cls.model_fields:
                hint = nearest(str(key), cls.model_fields)
                raise PydanticCustomError(UNKNOWN_KEY, "unknown key '{key}': {hint}", {"key": key, "hint": hint})
        return values


def _once(values: list[Item]) -> list[Item]:
    if len(set(values)) < len(values):
        raise PydanticCustomError("twice", "every entry may be listed once only")
    return values


PathName = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Positive = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Names = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1), AfterValidator(_once)]
Counts = Annotated[list[Positive], Field(min_length=1), AfterValidator(_once)]
Seeds = Annotated[list[Natural], Field(min_length=1), AfterValidator(_once)]
TrainingSettings = dict[str, Any]
"""Names, types and ranges are checked by the configuration of the runs that have them."""


class Evaluation(Closed):
    """When runs are evaluated, and for how long."""

    points: Positive
    episodes: Positive


class Reference(Closed):
    """The random policy that scores are relative to."""

    episodes: Annotated[int, Field(ge=2)]
    seed: Natural


class Variant(Closed):
    """An algorithm with settings of its own."""

    algorithm: str
    training: TrainingSettings


class Study(Closed):
    """A further grid; a list that it leaves out is the tier's."""

    environments: Names = Field(default=[])
    algorithms: Names = Field(default=[])
    capacities: Counts = Field(default=[])
    seeds: Seeds = Field(default=[])


class TierFile(Closed):
    """A tier of MuJoCo runs."""

    tier: PathName
    description: str
    environments: Names
    algorithms: Names
    capacities: Counts
    seeds: Seeds
    steps: Positive
    evaluation: Evaluation
    reference: Reference
    training: TrainingSettings = Field(default={})
    overrides: dict[str, TrainingSettings] = Field(default={})
    variants: dict[PathName, Variant] = Field(default={})
    studies: dict[PathName, Study] = Field(default={})


class Bootstrap(Closed):
    """Resamples of the intervals' bootstrap, and its seed."""

    repetitions: int = Field(default=2000, ge=100)
    seed: int = Field(default=0, ge=0)


class WorkflowConfig(Closed):
    """``config/config.yaml``: what to make; the comments there say what each key means."""

    tier: str
    lm_tier: str = "auto"
    runs: Literal["published", "missing", "all"] = "published"
    bootstrap: Bootstrap = Bootstrap()
