"""Does this run need training? All that decides it.

A run is what it *does*, not how its source reads. Its identity has two parts:

* **settings**: a hash of those that differ from their defaults, so that a new setting with a default costs nothing, and
  of every filter or alignment that comes from outside this package, by name, version and source;
* **training version**: a small integer that moves only when bits move. The golden set (``make golden``) trains short
  runs with the revision that defined the version and with the working tree and compares every bit, so a version that
  should have moved does not pass unnoticed. Source text is recorded in the manifest and compared with nothing.

A run that is wanted needs training if no finished run has both (`RunId`). An unfinished one is continued if both agree,
else given up. When bits are *meant* to change: add a `Version` below, which names the algorithms that it touches. Only
their runs become stale; those of every other algorithm keep the version that touched them last (`version_of`).
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

from vaco.errors import UserError

KindName = Literal["control", "language"]
SCHEMA = 2
"""Of manifests and markers."""


EVALUATION_VERSION = 2
"""Of what `vaco evaluate` measures outside runs, the random policy of normalised scores among it.

Records of version 1 do not say so. There, environment i began with the seed + i, so that neighbouring seeds had nearly
all start states in common.
"""


@dataclass(frozen=True)
class Version:
    """A state of the training code's arithmetic.

    Attributes:
        number: 1, 2, ...
        revision: the commit that defined it, by which the golden set is judged.
        why: what changed, in one sentence; the CHANGELOG has it too.
        touches: filters, alignments, ALIGN+FILTER pairs (of language models: rows) whose bits changed; "*" is all.
    """

    number: int
    revision: str
    why: str
    touches: frozenset[str]


_FIRST = "5a8b335524d792e7672d78a72c492e76c67635fb"
VERSIONS: dict[KindName, tuple[Version, ...]] = {
    "control": (Version(1, _FIRST, "the arithmetic of all runs up to November 2026", frozenset("*")),),
    "language": (Version(1, _FIRST, "the arithmetic of all runs up to November 2026", frozenset("*")),),
}


@dataclass(frozen=True)
class RunId:
    """What a run is: its settings' hash, and the version of the arithmetic that its algorithm has."""

    config_hash: str
    version: int

    def __str__(self) -> str:
        return f"{self.config_hash}-v{self.version}"


def version_of(kind: KindName, parts: Iterable[str], until: int | None = None) -> int:
    """The last training version that changed what an algorithm computes.

    Args:
        kind: which learner.
        parts: the names by which `Version.touches` may mean the algorithm: alignment, filter, pair; or the row.
        until: the training version in a manifest; by default the installed one.

    Raises:
        UserError: `until` is of a later version of this package.
    """
    known, parts = VERSIONS[kind], {"*", *parts}
    if until is not None and not 1 <= until <= known[-1].number:
        raise UserError(
            f"training version {until} is unknown here, where {kind} has versions up to {known[-1].number}: install "
            "the version of this package that made the run"
        )
    return max(v.number for v in known if v.touches & parts and (until is None or v.number <= until))


def config_hash(
    kind: KindName, named: Mapping[str, Any], others: Mapping[str, Any], rules: Iterable[object] = ()
) -> str:
    """Sixteen hexadecimal digits that identify a run's settings.

    Args:
        kind: which learner.
        named: what names a run whatever the defaults are: task, algorithm (as its canonical pair), K, seed, length.
        others: the settings that differ from their defaults.
        rules: the functions that the algorithm is made of; those of other packages count with their source.
    """
    content = {"kind": kind, **named, "settings": dict(sorted(others.items()))}
    if foreign := foreign_rules(rules):
        content["foreign"] = foreign
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()[:16]


def foreign_rules(rules: Iterable[object]) -> list[dict[str, str | None]]:
    """Name, version of the package and digest of the source of every function that is not of this package.

    Raises:
        UserError: the source of one cannot be read.
    """
    return [_foreign(rule) for rule in rules if not _ours(rule)]


def _ours(rule: object) -> bool:
    """Whether a function belongs to this package, whose arithmetic the training version stands for."""
    return getattr(rule, "__module__", "").split(".")[0] == "vaco"


def _foreign(rule: Any) -> dict[str, str | None]:
    """A function from elsewhere: its qualified name, its distribution with version, a hash of its module's source."""
    function = inspect.unwrap(rule)
    module = inspect.getmodule(function)
    try:
        source = inspect.getsource(module or function)
    except (OSError, TypeError):
        raise UserError(
            f"the rule {rule.__qualname__} has no source that can be read, so its runs could not be told from those of "
            "another: define it in a file"
        ) from None
    package = function.__module__.split(".")[0]
    owners = _distributions().get(package, [])
    return {
        "name": f"{function.__module__}.{function.__qualname__}",
        "package": owners[0] if owners else None,
        "version": metadata.version(owners[0]) if owners else None,
        "source": hashlib.sha256(source.encode()).hexdigest()[:16],
    }


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    """Which distributions an importable name is of; takes half a second to find out."""
    return metadata.packages_distributions()


def recorded_id(record: Mapping[str, Any], rebuild: Callable[[Mapping[str, Any]], Any]) -> RunId | None:
    """What a manifest, or the marker of an unfinished run, says that its run is.

    Args:
        record: of schema 2, which states both parts; or of schema 1, from before there were versions, which states all
            settings and a hash of source text. The golden set found the sources of the tracked runs equal to version 1.
        rebuild: makes a configuration of settings.

    Returns:
        The identity; None if the record names none that is known here.
    """
    if record.get("schema") == SCHEMA:
        settings, version = record.get("config_hash"), record.get("training_version")
        return RunId(settings, version) if isinstance(settings, str) and isinstance(version, int) else None
    if record.get("source_hash") not in SOURCES_OF_VERSION_1:
        return None
    try:
        return RunId(rebuild(record["config"]).hash, 1)
    except (UserError, KeyError, TypeError, AttributeError):
        return None


SOURCES_OF_VERSION_1 = frozenset(
    {
        "e7f38c2e087f18636570c9748d21448a4a6e0e2020c7dc291b85718235586eb9",  # continuous+clip
        "7ca4ecb06a2240e5ce19098338488dbe780155b4cdea133596c755c8042324e9",  # continuous+decoupled_clip
        "08c5e3a880465263f2c9ebf4c7e865acf5bb7ae671385caef8084ec8952c3224",  # continuous+tv
        "f5fafdb2b215aa8e08112b5c8320a01a096f8ee8b8c2f76883b50ad696878129",  # continuous+tv_total
        "dbd9d7f31139a643d327d374f2b7e35e7d214c6e58b25802e8c888dcc84f2629",  # decoupled
        "b3341ad49d744297373f97707cad8e85394987bf0bfb8a48d91f049f595e51ac",  # geppo
        "f47128141279f67436207a807326b6ec01307fb3034e4e06ad4c820b7726a9d2",  # impala
        "d9481553541ba3142cda8bdeb265ae626a827d728defa24d649f6d358b19711c",  # language models
        "562b4b98df2ff768519878054e0f5ae596c2e540fffd7540cb31fc5049244a40",  # none+proximal_clip
        "c3dbf2b4941c0dd4d0c60a61596adabee673824b1a787b79aef400cadebfa6d7",  # none+spo_proximal
        "909ac70c0e771e14faa86ad0e41173a950a3956054c5595ac723bc2e9a44922f",  # none+tv
        "c3ca3d8925caea4c7cf194816628e38cb4e3e2e89132fa3819140968e26900f5",  # none+tv_total
        "33881bb803c0bad3545ae99b6269c1d7f688eef11b72e414da540cc81e9a9ae4",  # once+clip
        "d57be6e621124601c19ca45db3dedf2b0ddcfd8692a3da96e0a9449f3873844a",  # once+decoupled_clip
        "041a1797e30a00bcb2dbb786fbfa68cb5d20d87e8b3c40888161cac70bc9851e",  # once+tv_total
        "29590186f607a4fffac26154ba981be1d0522d0f246e84b8f7810cefb06b441a",  # ppo
        "ef3784588a3766982adb4b8a239635e1ad42211015c442ebef8f7c3969afb031",  # ppo_kl
        "5ac8f0ce47dcb8d3dee733a22bf13e1d36faa88111fafafb1f8146601000e61e",  # spo
        "39f4c74be12503ad25b7562c785fa8939672f60d46b62db86864eb00b3a7dde4",  # vaco
    }
)
"""Source hashes of the runs that were made before training versions: one an algorithm, and one for language models."""
