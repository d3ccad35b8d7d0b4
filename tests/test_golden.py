"""The golden set: that it reaches everything, that it sees what changes, and that it names whom a change concerns."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vaco.control.envs import BACKENDS, TASKS
from vaco.lm.config import LM_SETTINGS, build_lm
from vaco.objectives.align import ALIGNMENTS
from vaco.objectives.filters import FILTERS
from vaco.objectives.table import ALIASES, parse
from vaco.objectives.tokens import REGRESSIONS, TOKEN_ALIASES, TOKEN_FILTERS, parse_token_algorithm
from vaco.runs.config import SETTINGS, build, parse_assignment

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))  # last: its theory.py must not hide the package of that name
import golden  # noqa: E402
import golden_cases  # noqa: E402
import golden_compare  # noqa: E402
from golden_cases import CASES, NEW, Case  # noqa: E402

OF = {"control": (SETTINGS, build), "language": (LM_SETTINGS, build_lm)}
BY_NAME = {case.name: case for case in CASES}
PLAIN = [case for case in CASES if case.is_plain]


def configuration(case: Case) -> Any:
    """What the command line makes of a case's settings."""
    told = {**case.settings, **case.told}
    return OF[case.kind][1](dict(parse_assignment(f"{name}={value}") for name, value in told.items()))


def test_every_alignment_with_every_filter_has_a_case() -> None:
    for align in ALIGNMENTS:
        for rule in FILTERS:
            assert f"{align}+{rule}" in golden_cases.PAIRS.values(), (
                f"{align}+{rule} has no golden case: add '{align}' to ALIGNMENTS or '{rule}' to FILTERS in "
                "benchmarks/golden_cases.py"
            )
    for alias, (align, rule) in ALIASES.items():
        assert golden_cases.PAIRS.get(alias) == f"{align}+{rule}", (
            f"the alias '{alias}' is not named by the golden set: add it to ALIASES in benchmarks/golden_cases.py"
        )
    assert all(parse(name).pair == pair for name, pair in golden_cases.PAIRS.items())
    assert {case.algorithm for case in PLAIN if case.kind == "control"} == set(golden_cases.PAIRS)


def test_every_row_of_the_token_table_has_a_case_on_both_levels() -> None:
    others = set(TOKEN_FILTERS) - set(TOKEN_ALIASES.values())
    for row in (*TOKEN_ALIASES, *REGRESSIONS, *others):
        rule = parse_token_algorithm(row).filter
        assert golden_cases.ROWS.get(row) == (rule.name if rule else row), (
            f"the language models' '{row}' has no golden case: add it to ROWS in benchmarks/golden_cases.py"
        )
        for kind in ("row", "level") if rule and rule.name not in golden_cases.TOKENS_ONLY else ("row",):
            assert f"language/{kind}/{row}" in BY_NAME
    assert set(golden_cases.ROWS) == {*TOKEN_ALIASES, *REGRESSIONS, *others}


def test_every_task_has_a_case_on_every_backend() -> None:
    for task in TASKS:
        for backend in BACKENDS:
            assert f"control/task/{task}/{backend}" in BY_NAME, (
                f"{task} has no golden case on the backend '{backend}': add it to TASKS or BACKENDS in "
                "benchmarks/golden_cases.py"
            )


@pytest.mark.parametrize("kind", golden_cases.KINDS)
def test_every_setting_has_a_case_that_changes_it_alone(kind: str) -> None:
    settings, unreachable = OF[kind][0], golden_cases.UNREACHABLE[kind]
    changed = {case.changed for case in CASES if case.kind == kind}
    for name in settings:
        assert name in changed or name in unreachable, (
            f"no golden case changes the {kind} setting '{name}': add a Change of it, with an algorithm that reads it "
            f"and since=NEW, to {kind.upper()}_SETTINGS in benchmarks/golden_cases.py, or say in UNREACHABLE why not"
        )
    assert set(unreachable) <= set(settings)
    for case in CASES:
        if case.kind == kind and case.changed:
            ours, other = configuration(case).resolved(), configuration(BY_NAME[case.against]).resolved()
            assert {name for name in ours if ours[name] != other[name]} == {case.changed}, case.name
    made = [configuration(case) for case in CASES if case.kind == kind]
    for name in set(settings) - set(unreachable):
        assert any(getattr(config, name) != settings[name].default for config in made), (
            f"{name} is always at its default"
        )


def test_cases_are_valid_and_of_all_sorts() -> None:
    assert len(BY_NAME) == len(CASES)
    made = {case: configuration(case) for case in CASES}
    control = [config for case, config in made.items() if case.kind == "control"]
    language = [config for case, config in made.items() if case.kind == "language"]
    assert {config.whole_trajectories for config in control if config.parsed.align.name == "once"} == {True, False}
    assert {config.lag > 1 for config in control} == {config.lag > 1 for config in language} == {True, False}
    assert {config.minibatches > 1 for config in language} == {True, False}
    for kind in golden_cases.KINDS:
        assert [case for case in CASES if case.kind == kind and case.stop_after]
    assert {case.shared_warm_start for case in CASES if case.kind == "language"} == {True, False}
    # The shared file must be of the settings of every run that starts from it.
    shared = build_lm(
        dict(parse_assignment(f"{name}={value}") for name, value in (golden_cases.WARM | golden_cases.TOLD).items())
    )
    assert {made[case].warm_hash for case in CASES if case.shared_warm_start} == {shared.warm_hash}


def test_the_working_tree_has_its_own_bits(tmp_path: Path) -> None:
    """Two cases, from end to end; the tree is a copy of HEAD, so that uncommitted work does not fail here."""
    archive = subprocess.run(["git", "-C", ROOT, "archive", "HEAD", "src"], capture_output=True, check=False)
    if archive.returncode or not (ROOT / ".git").exists():
        pytest.skip("not a git repository")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(tmp_path / "tree")
    before = subprocess.check_output(["git", "-C", ROOT, "worktree", "list"])
    command = [sys.executable, "benchmarks/golden.py", "--base", "HEAD", "--kind", "control", "--only", "pair/none+spo"]
    done = subprocess.run(
        [*command, "--tree", tmp_path / "tree"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("golden: 2 cases, the same bits, ")
    assert subprocess.check_output(["git", "-C", ROOT, "worktree", "list"]) == before


def test_without_the_base_it_is_skipped_and_can_be_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(golden, "ROOT", tmp_path)  # an unpacked archive, or a clone without that commit
    assert golden.main([]) == 0
    said = capsys.readouterr().out
    assert said.startswith("SKIPPED: ") and said.count("\n") == 1 and golden.defining_revision("control") in said
    assert golden.main(["--require"]) == 2
    assert golden.main(["--base", "HEAD"]) == 2
    assert golden.main(["--only", "no such case"]) == 2


def test_a_case_is_compared_with_the_later_of_its_own_and_the_defining_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> str:
        author = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        return subprocess.check_output(["git", "-C", tmp_path, *author, *words], text=True).strip()

    git("init", "--quiet")
    commits = []
    for _ in range(3):
        git("commit", "--quiet", "--allow-empty", "--message", "A commit")
        commits.append(git("rev-parse", "HEAD"))
    monkeypatch.setattr(golden, "ROOT", tmp_path)
    monkeypatch.setattr(golden, "defining_revision", lambda kind: commits[1])
    own = {since: Case("control/x", "control", {"algorithm": "vaco"}, since=since) for since in (None, NEW, *commits)}
    found = {since: golden.base_of(case, None) for since, case in own.items()}
    assert found == {
        None: commits[1],
        NEW: None,
        commits[0]: commits[1],
        commits[1]: commits[1],
        commits[2]: commits[2],
    }
    assert golden.base_of(own[commits[2]], commits[0]) == commits[0]
    with pytest.raises(golden.UnknownRevisionError):
        golden.base_of(Case("control/x", "control", {"algorithm": "vaco"}, since="0" * 40), None)


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"a": [1.0, np.nan], "b": [0.0, 2.0], "new": [0.0, 0.0]}, ""),
        ({"a": [1.0, np.nan]}, "lacks b"),
        ({"a": [1.0, np.nan], "b": [-0.0, 2.0]}, "b, row 0: was np.float64(0.0), is np.float64(-0.0)"),
        ({"a": [1.0, 3.0], "b": [0.0, 2.5]}, "a, row 1: was np.float64(nan), is np.float64(3.0), and 1 more"),
        ({"a": [1.0, np.nan], "b": [0, 2]}, "b was float64 [2], is int64 [2]"),
        ({"a": [1.0, np.nan], "b": [0.0]}, "b was float64 [2], is float64 [1]"),
    ],
)
def test_what_a_difference_is(tree: dict[str, list[float]], said: str) -> None:
    base = {"a": np.array([1.0, np.nan]), "b": np.array([0.0, 2.0])}
    assert golden_compare.difference(base, {name: np.array(column) for name, column in tree.items()}) == said


def test_the_report_names_the_algorithms_first(capsys: pytest.CaptureFixture[str]) -> None:
    names = ("control/pair/once+tv", "control/setting/seed=1", "control/setting/clip=0.1/ppo", "language/row/a3po")
    findings = [golden_compare.Finding(BY_NAME[name], "evals.parquet", "lacks mean") for name in names]
    verdict = golden_compare.Verdict(findings, ["evals.parquet: new"], ["control/setting/later=1"], [])
    assert golden_compare.report(verdict, "9 cases", 3.0) == 1
    assert capsys.readouterr().out.splitlines() == [
        "TOUCHED, control: vaco (once+tv)",
        "TOUCHED, control: ppo (none+clip), only in setting/clip=0.1/ppo",
        "TOUCHED, language models: a3po (staleness_clip)",
        *(f"  {name}  evals.parquet: lacks mean" for name in names),
        "only in the working tree, which is allowed: evals.parquet: new",
        "not compared yet, 'since' is not known: control/setting/later=1",
        "golden: 4 of 9 cases differ, 3 s; see 'The golden set' in CONTRIBUTING.md",
    ]


@pytest.mark.parametrize("strict", [True, False])
def test_a_run_that_a_revision_cannot_make(strict: bool, tmp_path: Path) -> None:
    """Of the base given by hand it is said; of the defining one, or of the working tree, it is a difference."""
    cases = [BY_NAME["control/pair/once+tv"], BY_NAME["control/pair/none+clip"]]
    codes = {"base": (2, 0), "tree": (0, 1)}
    for side, pair in codes.items():
        (tmp_path / side).mkdir()
        outcomes = {case.name: (code, f"{side} said no") for case, code in zip(cases, pair, strict=True)}
        (tmp_path / side / "outcomes.json").write_text(json.dumps(outcomes))
    verdict = golden_compare.Verdict([], [], [], [])
    golden_compare.judge(cases, tmp_path / "base", tmp_path / "tree", verdict, strict=strict)
    assert [finding.what for finding in verdict.findings] == ["base said no"] * strict + ["tree said no"]
    assert verdict.incomparable == ([] if strict else ["control/pair/once+tv: the base said: base said no"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole set, trained once by the working tree, two processes at a time."""
    place = tmp_path_factory.mktemp("golden")
    jobs = [
        golden.Job(kind, ROOT / "src", place / kind, tuple(case for case in CASES if case.kind == kind))
        for kind in golden_cases.KINDS
    ]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(golden.Job.train, jobs))
    for kind in golden_cases.KINDS:
        outcomes = json.loads((place / kind / "outcomes.json").read_text())
        assert {name: said for name, (code, said) in outcomes.items() if code} == {}
    return place


def bits(trained: Path, name: str) -> bytes:
    """What a run left, clocks apart."""
    folder = trained / BY_NAME[name].kind / name
    columns = [golden_compare.read(folder / file) for file in (*golden_compare.TABLES, golden_compare.POLICY)]
    # Sorted: a language run that was resumed writes its columns in another order.
    return b"".join(column.tobytes() for table in columns for _, column in sorted(table.items()))


@pytest.mark.slow
def test_every_case_shows_what_it_is_there_for(trained: Path) -> None:
    for case in CASES:
        if case.changed:
            assert bits(trained, case.name) != bits(trained, case.against), f"{case.name} changes nothing"
    for kind in golden_cases.KINDS:
        longer = {case.algorithm: bits(trained, case.name) for case in CASES if case.name.startswith(f"{kind}/longer/")}
        plain = {
            (bits(trained, case.name), longer.get(case.algorithm)): case.name for case in PLAIN if case.kind == kind
        }
        twice = [case.name for case in PLAIN if case.kind == kind and case.name not in plain.values()]
        assert not twice, f"nothing tells them from others: {twice}"
        assert not {short for short, long in plain if long} & {short for short, long in plain if not long}
        for case in CASES:
            if case.kind == kind and case.stop_after and configuration(case) == configuration(plain_of(case)):
                assert bits(trained, case.name) == bits(trained, plain_of(case).name), f"{case.name} resumes otherwise"


def plain_of(case: Case) -> Case:
    """The plain case of a case's algorithm."""
    return next(other for other in PLAIN if (other.kind, other.algorithm) == (case.kind, case.algorithm))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "file", "was", "becomes", "concerns"),
    [
        (
            *("control", "filters.py", "_drop_outward(x, x.ratio - 1.0,", "_drop_outward(x, 1.0 - x.ratio,"),
            lambda name: golden_cases.PAIRS[name].endswith("+tv_total"),
        ),
        (
            "control",
            "align.py",
            '"learner", False',
            "None, False",
            lambda name: golden_cases.PAIRS[name].startswith("once+"),
        ),
        (
            *("language", "tokens.py", "1.0 + settings.clip_high", "1.0 - settings.clip_high"),
            lambda name: golden_cases.ROWS[name] == "truncated_high",
        ),
    ],
    ids=["a filter", "an alignment", "a token rule"],
)
def test_a_change_names_the_algorithms_that_it_touches_and_no_others(
    kind: str, file: str, was: str, becomes: str, concerns: Callable[[str], bool], trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    module = tmp_path / "src/vaco/objectives" / file
    assert module.read_text().count(was) == 1
    module.write_text(module.read_text().replace(was, becomes))
    cases = tuple(case for case in PLAIN if case.kind == kind)
    golden.Job(kind, tmp_path / "src", tmp_path / "runs", cases).train()
    verdict = golden_compare.Verdict([], [], [], [])
    golden_compare.judge(cases, trained / kind, tmp_path / "runs", verdict, strict=True)
    expected = "; ".join(golden_compare.title(case) for case in cases if concerns(case.algorithm))
    words = "control" if kind == "control" else "language models"
    assert golden_compare.touched(verdict.findings) == [f"TOUCHED, {words}: {expected}"]
