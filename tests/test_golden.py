"""The golden set reaches all that decides a run's bits, and names whom a difference touches."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import golden  # noqa: E402
import golden_cases as cases  # noqa: E402

from vaco.control.envs import TASKS  # noqa: E402
from vaco.lm.config import LM_SETTINGS, build_lm  # noqa: E402
from vaco.objectives.align import ALIGNMENTS  # noqa: E402
from vaco.objectives.filters import FILTERS  # noqa: E402
from vaco.objectives.table import ALIASES, parse  # noqa: E402
from vaco.objectives.tokens import REGRESSIONS, TOKEN_ALIASES, TOKEN_FILTERS, parse_token_algorithm  # noqa: E402
from vaco.runs.config import SETTINGS, build, parse_assignment  # noqa: E402
from vaco.runs.identity import VERSIONS  # noqa: E402


def as_typed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as the command line reads them."""
    return dict(parse_assignment(f"{name}={value}") for name, value in settings.items())


def of(kind: str) -> list[cases.Case]:
    return [case for case in cases.CASES if case.kind == kind]


def test_every_pair_task_and_backend_has_a_case() -> None:
    pairs = {f"{align}+{rule}" for align in ALIGNMENTS for rule in FILTERS}
    assert {parse(c.algorithm).pair for c in of("control") if c.is_plain} == pairs, "add the filter to FILTERS there"
    assert {parse(alias).pair: alias for alias in ALIASES} == cases.ALIASES
    names = {case.name for case in cases.CASES}
    assert {f"control/task/{env}/{backend}" for env in TASKS for backend in ("batched", "gymnasium")} <= names
    assert len(names) == len(cases.CASES)


def test_every_row_of_the_token_table_has_a_case() -> None:
    rows = {*TOKEN_ALIASES, *REGRESSIONS, *(set(TOKEN_FILTERS) - set(TOKEN_ALIASES.values()))}
    assert {case.algorithm for case in of("language") if case.is_plain} == rows, "add the row to ROWS there"


@pytest.mark.parametrize(("kind", "settings"), [("control", SETTINGS), ("language", LM_SETTINGS)])
def test_every_setting_has_a_case_or_a_reason(kind: str, settings: dict[str, object]) -> None:
    changed = {case.changed for case in of(kind)} - {""}
    missing = set(settings) - changed - set(cases.UNREACHABLE[kind])
    assert not missing, f"add a line to the settings of {kind} in golden_cases.py for {missing}"
    known = {case.name: case for case in cases.CASES}
    for case in of(kind):
        if case.changed:
            other = known[case.against]
            make = build if kind == "control" else build_lm
            ours, theirs = (make(as_typed(found.settings)) for found in (case, other))
            assert getattr(ours, case.changed) != getattr(theirs, case.changed), case.name


def test_interrupted_runs_are_among_them_and_their_commits_exist() -> None:
    assert {case.kind for case in cases.CASES if case.stop_after} == {"control", "language"}
    for kind, versions in VERSIONS.items():
        assert golden.defining_revision(kind) == versions[-1].revision and len(versions[-1].revision) == 40
        assert [version.number for version in versions] == list(range(1, len(versions) + 1))


def test_a_rule_for_tokens_is_parsed_as_it_is_listed() -> None:
    for name, rule in cases.ROWS.items():
        row = parse_token_algorithm(name)
        assert rule == (row.filter.name if row.filter else row.regression)


def command(*words: str, tree: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/golden.py"), "--tree", str(tree), *words],
        capture_output=True,
        text=True,
    )


def history() -> bool:
    return golden.git("cat-file", "-e", f"{VERSIONS['control'][-1].revision}^{{commit}}") is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "old", "new", "touched", "spared"),
    [
        (
            "objectives/filters.py",
            "    below = (x.advantages < 0) & (x.ratio < 1.0 - settings.clip)",
            "    below = (x.advantages < 0) & (x.ratio < 1.0 + settings.clip)",
            ("ppo (none+clip)", "once+clip", "continuous+clip"),
            ("proximal_clip", "decoupled", "tv", "spo"),
        ),
        (
            "objectives/filters.py",
            "    return _drop_outward(x, x.ratio - x.learner_ratio, settings.delta)",
            "    return _drop_outward(x, x.learner_ratio - x.ratio, settings.delta)",
            ("vaco (once+tv)", "none+tv", "continuous+tv"),
            ("tv_total", "tv_proximal", "clip", "spo"),
        ),
    ],
    ids=["clip", "tv"],
)
def test_one_sign_flipped_in_one_filter_names_the_algorithms_that_it_touches_and_no_others(
    path: str, old: str, new: str, touched: tuple[str, ...], spared: tuple[str, ...], tmp_path: Path
) -> None:
    if not history():
        pytest.skip("the history does not reach back to the revision that defined the training version")
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    file = tmp_path / "src/vaco" / path
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))
    done = command("--kind", "control", "--only", "pair/", tree=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("TOUCHED")]
    named = line.removeprefix("TOUCHED, control: ").split("; ")
    assert sorted(named) == sorted(touched)
    assert not [name for name in named if name.rstrip(")").split("+")[-1] in spared]


@pytest.mark.slow
def test_without_the_history_it_says_so(tmp_path: Path) -> None:
    for part in ("benchmarks", "src"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__", "out"))
    words = [sys.executable, str(tmp_path / "benchmarks/golden.py"), "--only", "pair/once+tv"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("SKIPPED: the revision") and done.stdout.count("\n") == 1
    assert subprocess.run([*words, "--require"], capture_output=True).returncode == 2
