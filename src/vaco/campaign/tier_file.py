"""What a tier's file and ``config/config.yaml`` may hold, as pydantic models; `vaco.runs.explain.check` reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from vaco.errors import UserError, nearest
from vaco.runs import explain, words
from vaco.runs.config import BATCHED_TASKS
from vaco.runs.explain import UNKNOWN_KEY
from vaco.yaml_file import parse_yaml, read_yaml

Item = TypeVar("Item")


class Closed(BaseModel):
    """Keys and values of a file: no other keys, and no value that is taken for another type."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _name_the_nearest(cls, values: Any) -> Any:
        for key in values if isinstance(values, dict) else ():
            if key not in cls.model_fields:
                hint = words.hint(str(key), cls.model_fields)
                raise PydanticCustomError(UNKNOWN_KEY, "unknown key '{key}': {hint}", {"key": key, "hint": hint})
        return values


def _once(values: list[Item]) -> list[Item]:
    if len(set(values)) < len(values):
        raise PydanticCustomError("twice", "every entry may be listed once only")
    return values


PathName = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$")]
_TASK = re.compile(r"(?:[\w.]+:)?(?:[\w-]+/)?[\w.-]+-v\d+|[\w.]+:[A-Za-z_][\w.]*")
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


class Sweep(Closed):
    """Variants of an algorithm that differ in one setting: NAME and values 0.1, 0.2 make NAME0.1 and NAME0.2."""

    algorithm: str
    knob: str
    values: Annotated[list[float], Field(min_length=2), AfterValidator(_once)]
    training: TrainingSettings = Field(default={})

    def variants(self, name: str) -> dict[str, Variant]:
        """The variants by their names, in the order of the values."""
        return {
            f"{name}{value:g}": Variant(algorithm=self.algorithm, training=self.training | {self.knob: value})
            for value in self.values
        }


class Study(Closed):
    """A further grid; a list that it leaves out is the tier's."""

    environments: Names = Field(default=[])
    algorithms: Names = Field(default=[])
    capacities: Counts = Field(default=[])
    seeds: Seeds = Field(default=[])


class TierFile(Closed):
    """A tier of runs in environments of Gymnasium."""

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
    sweeps: dict[PathName, Sweep] = Field(default={})
    studies: dict[PathName, Study] = Field(default={})

    def expanded(self) -> TierFile:
        """The same file with every sweep written out: its variants, and in every list its name as theirs."""
        swept = {name: sweep.variants(name) for name, sweep in self.sweeps.items()}

        def names(written: list[str]) -> list[str]:
            return [one for name in written for one in swept.get(name, [name])]

        variants = {name: variant for each in swept.values() for name, variant in each.items()}
        studies = {
            name: study.model_copy(update={"algorithms": names(study.algorithms)})
            for name, study in self.studies.items()
        }
        return self.model_copy(
            update={"algorithms": names(self.algorithms), "variants": variants | self.variants, "studies": studies}
        )


class Bootstrap(Closed):
    """Resamples of the intervals' bootstrap, and its seed."""

    repetitions: int = Field(default=2000, ge=100)
    seed: int = Field(default=0, ge=0)


class WorkflowConfig(Closed):
    """``config/config.yaml``: what to make; the comments there say what each key means."""

    tier: str = "desk"
    lm_tier: str = "auto"
    runs: Literal["published", "missing", "all"] = "published"
    container: str = "none"
    bootstrap: Bootstrap = Bootstrap()


def check_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Check what Snakemake read from config/config.yaml and the command line, and fill in the defaults.

    Raises:
        UserError: a key or a value is wrong, with one sentence that says where it stands and what was expected.
    """
    file = Path("config/config.yaml")
    if file.is_file():
        # By itself: Snakemake takes the last of keys given twice, and a file is not blamed for the command line.
        explain.check(read_yaml(file), WorkflowConfig, str(file))
    return explain.check(_typed(dict(config)), WorkflowConfig, "--config").model_dump()


def _typed(value: Any) -> Any:
    """Words of the command line, read as the file would have them."""
    if isinstance(value, dict):
        return {key: _typed(part) for key, part in value.items()}
    return parse_yaml(value, f"the configuration's '{value}'") if isinstance(value, str) and value else value


def check_task(env: str, where: str) -> None:
    """Refuse what is no environment's name, or a known one misspelt; whether there is such a task, Gymnasium knows.

    Of tasks that Gymnasium alone steps a run cannot save the state: resumed, it begins new episodes, and says so.

    Args:
        env: the name.
        where: the file, for the sentence.

    Raises:
        UserError: it is none.
    """
    base = env.partition("-v")[0]
    close = get_close_matches(base, {task.partition("-v")[0] for task in BATCHED_TASKS}, n=1, cutoff=0.8)
    if env not in BATCHED_TASKS and close and ":" not in env:
        raise UserError(f"{where}: there is no task '{env}': {nearest(env, BATCHED_TASKS)}")
    if not _TASK.fullmatch(env):
        raise UserError(
            f"{where}: '{env}' names no environment: write a Gymnasium task with its version, such as CartPole-v1, "
            "module:Task-v0, or module:callable"
        )
