"""What makes two runs the same run, and what makes a run stale: settings, version, and rules from elsewhere."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vaco.archive import Archive
from vaco.errors import UserError
from vaco.lm import config as language
from vaco.lm.config import LMConfig, build_lm
from vaco.lm.kind import KINDS
from vaco.objectives.filters import FILTERS, register
from vaco.objectives.table import ALIASES
from vaco.runs import config as control
from vaco.runs import identity
from vaco.runs.config import RunConfig, build
from vaco.runs.identity import RunId, Version, recorded_id, version_of

RESULTS = Path(__file__).parents[2] / "results"
OTHER: dict[str, Any] = {
    "env": "Hopper-v5", "algorithm": "ppo", "backend": "gymnasium", "minibatches": "trajectories",
    "advantage_normalisation": "none", "trigger": "phase", "hidden": (32,), "rho_bar": 2.0, "c_bar": 0.5,
    "trace_decay": 0.9, "discount": 0.9, "minibatch": 1024, "num_envs": 32, "phase_steps": 256,
    "normaliser_start": "random", "filter_options": "{tau: 1}", "align_options": "{tau: 1}",
    "env_args": ("healthy_reward=2",), "wrappers": ("ClipReward",),
    "value_hidden": (32,), "activation": "relu", "network": "cnn", "device": "cuda",
    "schedule": "fifo:3", "engine": "ray", "pull": "step", "slowness": (2.0,),
    "reuse": (2.0, 1.0), "proximal_decay": 0.9,
}  # fmt: skip
OTHER_LM: dict[str, Any] = {
    "task": "gsm8k", "task_options": "{max_terms: 3}", "model": "smollm2", "model_options": "{layers: 3}",
    "algorithm": "ppo", "minibatches": 2, "advantage": "rloo", "level": "sequence", "warm_target": 0.4,
    "warm_flaw": 0.5, "device": "cuda", "precision": "bfloat16", "updates": 96, "chat_options": "{thinking: true}",
    "date": "2020-02-29", "cut_responses": "judged", "denominator": "constant",
    "filter_options": "{tau: 1}", "problems": "epochs", "engine": "process", "engine_precision": "bfloat16",
    "optimizer": "adamw_8bit",
}  # fmt: skip


def changed(default: Any, others: dict[str, Any], name: str) -> Any:
    value = getattr(default, name)
    return others[name] if name in others else not value if isinstance(value, bool) else value + 1


# --- Settings


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(RunConfig)])
def test_every_setting_at_another_value_is_another_run(name: str) -> None:
    config = build({name: changed(RunConfig(), OTHER, name)})
    assert config.hash != RunConfig().hash and config.place != RunConfig().place


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(LMConfig)])
def test_every_setting_of_a_language_model_at_another_value_is_another_run(name: str) -> None:
    assert build_lm({name: changed(LMConfig(), OTHER_LM, name)}).hash != LMConfig().hash


@pytest.mark.parametrize(
    ("module", "defaults", "make"), [(control, "DEFAULTS", build), (language, "LM_DEFAULTS", build_lm)]
)
def test_a_new_setting_with_a_default_changes_no_hash(
    module: Any, defaults: str, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an upgrade that added `novel`: what `resolved` lists and what the defaults are both have one more."""
    configs = [make({}), make({"seed": 3, "delta": 0.5}), make({"algorithm": "ppo"})]
    before = [config.hash for config in configs]
    resolved = type(configs[0]).resolved
    novel = 7.0
    monkeypatch.setattr(type(configs[0]), "resolved", lambda self: resolved(self) | {"novel": novel})
    with pytest.raises(KeyError):  # the patch is felt
        configs[0].hash  # noqa: B018
    monkeypatch.setitem(getattr(module, defaults), "novel", 7.0)
    assert [config.hash for config in configs] == before
    novel = 8.0
    assert not {config.hash for config in configs} & set(before)


def test_the_place_of_a_default_in_the_list_does_not_matter() -> None:
    given = {"delta": 0.5, "epochs": 3}
    assert build(given).hash == build(dict(reversed(given.items()))).hash == build(given | {"clip": 0.2}).hash


@pytest.mark.parametrize("alias", ALIASES)
def test_an_alias_is_the_run_of_its_pair(alias: str) -> None:
    settings = {"minibatches": "auto", "seed": 2}
    one, other = build(settings | {"algorithm": alias}), build(settings | {"algorithm": "+".join(ALIASES[alias])})
    assert one.run_id == other.run_id and one.place == other.place


def test_kinds_share_no_hash_and_settings_are_not_confused() -> None:
    named = {"algorithm": "x", "seed": 0}
    hashes = {
        identity.config_hash("control", named, {}),
        identity.config_hash("language", named, {}),
        identity.config_hash("control", named, {"delta": 0.5}),
        identity.config_hash("control", named | {"delta": 0.5}, {}),
    }
    assert len(hashes) == 4 and all(len(found) == 16 for found in hashes)
    with pytest.raises(ValueError, match="JSON"):
        identity.config_hash("control", named, {"delta": float("nan")})


# --- Versions


def versions(monkeypatch: pytest.MonkeyPatch, kind: Any, *touched: set[str]) -> None:
    """Further versions, each of which touches some algorithms."""
    more = [Version(i, "f" * 40, "a test", frozenset(names)) for i, names in enumerate(touched, 2)]
    monkeypatch.setitem(identity.VERSIONS, kind, (*identity.VERSIONS[kind][:1], *more))


ALGORITHMS = ("ppo", "vaco", "impala", "spo", "geppo", "continuous+clip", "once+clip")


@pytest.mark.parametrize(
    ("touches", "stale"),
    [
        ({"clip"}, {"ppo", "continuous+clip", "once+clip"}),  # a filter
        ({"once"}, {"vaco", "geppo", "once+clip"}),  # an alignment
        ({"once+tv"}, {"vaco"}),  # a pair
        ({"none+clip", "spo"}, {"ppo", "spo"}),
        ({"*"}, set(ALGORITHMS)),
        ({"vaco"}, set()),  # an alias is no name here: `touches` speaks of rows
    ],
)
def test_a_second_version_makes_stale_what_it_names(
    touches: set[str], stale: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: build({"algorithm": name}).run_id for name in ALGORITHMS}
    assert {found.version for found in before.values()} == {1}
    versions(monkeypatch, "control", touches)
    after = {name: build({"algorithm": name}).run_id for name in ALGORITHMS}
    assert {name for name in ALGORITHMS if after[name] != before[name]} == stale
    assert {after[name].version for name in stale} <= {2}
    assert all(after[name].config_hash == before[name].config_hash for name in ALGORITHMS)
    assert build_lm({}).run_id.version == 1  # the other learner


def test_a_row_of_language_models_becomes_stale_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {name: build_lm({"algorithm": name}) for name in ("vaco", "ppo", "cispo")}
    versions(monkeypatch, "language", {rows["cispo"].parsed.row})
    assert {name: config.run_id.version for name, config in rows.items()} == {"vaco": 1, "ppo": 1, "cispo": 2}
    assert build({}).run_id.version == 1


def test_an_algorithm_keeps_the_version_that_touched_it_last(monkeypatch: pytest.MonkeyPatch) -> None:
    versions(monkeypatch, "control", {"once+tv"}, {"clip"}, {"other"})
    assert version_of("control", ("once", "tv", "once+tv")) == 2
    assert version_of("control", ("none", "clip", "none+clip")) == 3
    assert version_of("control", ("none", "spo", "none+spo")) == 1
    # What a run of the installed version 2 would have been.
    assert version_of("control", ("none", "clip", "none+clip"), until=2) == 1


@pytest.mark.parametrize("until", [0, 2, 99])
def test_an_unknown_version_is_refused(until: int) -> None:
    with pytest.raises(UserError, match=f"training version {until} is unknown here.* up to 1: install") as caught:
        version_of("control", (), until=until)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["control", "language"])
def test_versions_are_numbered_and_say_why(kind: Any) -> None:
    found = identity.VERSIONS[kind]
    assert [version.number for version in found] == list(range(1, len(found) + 1))
    assert all(version.why and version.touches and len(version.revision) == 40 for version in found)
    assert found[0].touches == {"*"}


# --- Rules of other packages

RULE = """
import torch
from vaco.objectives.filters import Filtered
SCALE = 1.0
def novel(x, settings):
    nothing = x.ratio.new_full((), float("nan"))
    return Filtered(SCALE * x.ratio * x.advantages, x.ratio > 0, nothing, nothing > 0)
"""


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module of another package, on the search path; what it registers is forgotten afterwards."""
    path = tmp_path / "foreign_rules.py"
    path.write_text(RULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "foreign_rules", raising=False)
    known = dict(FILTERS)
    yield path
    sys.modules.pop("foreign_rules", None)
    FILTERS.clear()
    FILTERS.update(known)


def loaded() -> str:
    """Import the module as a new process would, register its rule, and give the hash of a run of it."""
    sys.modules.pop("foreign_rules", None)
    FILTERS.pop("novel", None)
    importlib.invalidate_caches()
    register("novel", "c = ρA")(importlib.import_module("foreign_rules").novel)
    return build({"algorithm": "once+novel"}).hash


def test_a_rule_from_elsewhere_counts_with_its_name_and_source(elsewhere: Path) -> None:
    before = loaded()
    assert loaded() == before
    record = identity._foreign(FILTERS["novel"].function)
    assert record["name"] == "foreign_rules.novel" and record["version"] is None and len(str(record["source"])) == 16
    # The whole module counts, for its functions may use what stands beside them.
    elsewhere.write_text(RULE.replace("SCALE = 1.0", "SCALE = 1.25"))
    edited = loaded()
    assert edited != before
    elsewhere.write_text(RULE)
    assert loaded() == before
    # Runs of this package's own rules have nothing of it.
    FILTERS.pop("novel")
    assert build({"algorithm": "once+tv"}).hash == RunConfig().hash


def test_a_rule_without_source_is_refused(elsewhere: Path) -> None:
    space: dict[str, Any] = {"__name__": "nowhere"}
    exec(compile(RULE, "<typed>", "exec"), space)
    register("novel", "c = ρA")(space["novel"])
    with pytest.raises(UserError, match=r"the rule novel has no source that can be read.* define it in a file"):
        build({"algorithm": "once+novel"}).hash  # noqa: B018


# --- Records


@pytest.mark.parametrize(("tier", "runs"), [("desk", 615), ("lm_desk", 117)])
def test_the_tracked_runs_are_recognised(tier: str, runs: int) -> None:
    """Most are of schema 1, which has no version but names the source."""
    archive = Archive(RESULTS / tier / "archive")
    (kind,) = [kind for kind in KINDS if kind.name == archive.kind]
    assert len(archive.entries) == runs
    for run, entry in archive.entries.items():
        manifest = dict(entry.manifest)
        assert str(recorded_id(manifest, kind.rebuild)) == run
        assert manifest["schema"] == 1
        assert recorded_id(manifest | {"source_hash": "0" * 64}, kind.rebuild) is None
        assert recorded_id(manifest | {"schema": 3}, kind.rebuild) is not None  # by its source, whatever else it says


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"schema": 2},
        {"schema": 2, "config_hash": "x"},
        {"schema": 2, "config_hash": "x", "training_version": "1"},
        {"schema": 2, "config_hash": 1, "training_version": 1},
        {"schema": 1, "source_hash": None},
        {"schema": 1, "source_hash": min(identity.SOURCES_OF_VERSION_1)},
        {"schema": 1, "source_hash": min(identity.SOURCES_OF_VERSION_1), "config": []},
        {"schema": 1, "source_hash": min(identity.SOURCES_OF_VERSION_1), "config": {"epochs": 0}},
    ],
)
def test_a_record_that_names_no_run_is_none(record: dict[str, Any]) -> None:
    assert recorded_id(record, build) is None


def test_a_record_of_today_is_taken_at_its_word() -> None:
    """Its settings may be of a version with other defaults, so they are not hashed again."""
    assert recorded_id({"schema": 2, "config_hash": "x", "training_version": 9, "config": {}}, build) == RunId("x", 9)
    assert str(RunId("x", 9)) == "x-v9"
