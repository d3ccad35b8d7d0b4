"""The runs of two revisions side by side, and whom a difference concerns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import safetensors.numpy
from golden_cases import PAIRS, ROWS, Case, Preparation
from numpy.typing import NDArray

TABLES = ("phases.parquet", "evals.parquet")
POLICY = "policy.safetensors"
CLOCK = "seconds"
"""How the names of columns end that hold wall-clock times."""

Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Finding:
    """A difference: in which case, in which file and what it is."""

    case: Case
    file: str
    what: str


@dataclass
class Verdict:
    """What a comparison found.

    Attributes:
        findings: differences.
        new_columns: files and columns that only the working tree has.
        waiting: names of cases that no commit can be compared with yet.
        incomparable: names of cases that the base revision cannot train, and why.
    """

    findings: list[Finding]
    new_columns: list[str]
    waiting: list[str]
    incomparable: list[str]


def judge(cases: Iterable[Case], base: Path, tree: Path, verdict: Verdict, *, strict: bool) -> None:
    """Compare cases that both revisions have trained, and enter what differs.

    Args:
        cases: the cases.
        base: where the base revision's runs are.
        tree: where the working tree's runs are.
        verdict: receives what is found.
        strict: whether a case that the base cannot train is a difference.
    """
    ours, theirs = (json.loads((place / "outcomes.json").read_text(encoding="utf-8")) for place in (tree, base))
    for case in cases:
        names = [Preparation().name, case.name] if case.shared_warm_start else [case.name]
        refused = next((theirs[name][1] for name in names if theirs[name][0]), None)
        broken = next((ours[name][1] for name in names if ours[name][0]), None)
        if refused is not None and not strict:
            verdict.incomparable.append(f"{case.name}: the base said: {refused}")
        elif refused is not None:
            verdict.findings.append(Finding(case, "no run of the base, which said", refused))
        elif broken is not None:
            verdict.findings.append(Finding(case, "no run of the working tree, which said", broken))
        else:
            _folders(case, base / case.name, tree / case.name, verdict)


def _folders(case: Case, base: Path, tree: Path, verdict: Verdict) -> None:
    """Compare the files of two runs."""
    for file in (*TABLES, POLICY):
        if not (base / file).exists() or not (tree / file).exists():
            verdict.findings.append(Finding(case, file, "is missing on one side"))
            continue
        left, right = read(base / file), read(tree / file)
        verdict.new_columns.extend(f"{file}: {name}" for name in right if name not in left)
        if what := difference(left, right):
            verdict.findings.append(Finding(case, file, what))


def read(path: Path) -> dict[str, NDArray[Any]]:
    """The columns of a table or the tensors of a policy, clocks left out."""
    if path.suffix == ".safetensors":
        return _flat(safetensors.numpy.load_file(path))
    table = pq.read_table(path)
    return {name: np.array(table[name].to_numpy()) for name in table.column_names if not name.endswith(CLOCK)}


def _flat(tensors: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The tensors of a policy; those of tanh networks as the one vector that they were before they had names."""
    alike = {name.replace("critic", "actor") for name in tensors if name.startswith("critic.")}
    if "actor.0.weight" not in tensors or alike != {name for name in tensors if name.startswith("actor.")}:
        return tensors
    layers = sorted(int(name.split(".")[1]) for name in tensors if name.startswith("actor.") and name.endswith("bias"))
    parts = []
    for layer in layers[:-1]:
        parts += [tensors[f"{network}.{layer}.weight"].T.ravel() for network in ("actor", "critic")]
        parts += [tensors[f"{network}.{layer}.bias"] for network in ("actor", "critic")]
    for network in ("actor", "critic"):
        parts += [tensors[f"{network}.{layers[-1]}.weight"].T.ravel(), tensors[f"{network}.{layers[-1]}.bias"]]
    parts.append(tensors["log_std"])
    rest = {name: array for name, array in tensors.items() if name.startswith("observation_")}
    return {"parameters": np.concatenate(parts), **rest}


def difference(base: Columns, tree: Columns) -> str:
    """What tells two tables or policies apart, the earliest row first; empty if nothing that the base has does."""
    lacking = [name for name in base if name not in tree]
    if lacking:
        return f"lacks {', '.join(lacking)}"
    unlike = [(_first_row(base[name], tree[name]), name) for name in base if not same_bits(base[name], tree[name])]
    if not unlike:
        return ""
    row, name = min(unlike, key=lambda pair: pair[0])
    more = f", and {len(unlike) - 1} more" if len(unlike) > 1 else ""
    left, right = base[name], tree[name]
    if left.dtype != right.dtype or left.shape != right.shape:
        return f"{name} was {left.dtype} {list(left.shape)}, is {right.dtype} {list(right.shape)}{more}"
    was, now = (array.reshape(-1)[row] for array in (left, right))
    return f"{name}, row {row}: was {was!r}, is {now!r}{more}"


def same_bits(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Equality of type, shape and every bit."""
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def _first_row(one: NDArray[Any], other: NDArray[Any]) -> int:
    """The first row, or entry of a tensor, whose bits differ; -1 for other types or shapes."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return -1
    size = one.dtype.itemsize
    left, right = (np.frombuffer(array.tobytes(), np.uint8).reshape(-1, size) for array in (one, other))
    return int(np.flatnonzero((left != right).any(1))[0])


def title(case: Case) -> str:
    """An algorithm as people call it, with its pair or its rule: ``vaco (once+tv)``, ``a3po (staleness_clip)``."""
    if case.kind == "control":
        pair = PAIRS[case.algorithm]
        return pair if pair == case.algorithm else f"{case.algorithm} ({pair})"
    rule = ROWS[case.algorithm]
    return case.algorithm if rule == case.algorithm else f"{case.algorithm} ({rule})"


def touched(findings: Sequence[Finding]) -> list[str]:
    """The lines that name the algorithms concerned.

    An algorithm whose plain case differs is touched. One of which only special cases differ is touched there only: it
    stands for every algorithm in that setting, on that simulator, or resumed.
    """
    lines = []
    for kind, words in (("control", "control"), ("language", "language models")):
        cases = list(dict.fromkeys(finding.case for finding in findings if finding.case.kind == kind))
        plain = list(dict.fromkeys(title(case) for case in cases if case.is_plain))
        if plain:
            lines.append(f"TOUCHED, {words}: {'; '.join(plain)}")
        others: dict[str, list[str]] = {}
        for case in cases:
            if title(case) not in plain:
                others.setdefault(title(case), []).append(case.name.split("/", 1)[1])
        lines += [f"TOUCHED, {words}: {name}, only in {', '.join(names)}" for name, names in others.items()]
    return lines


def report(verdict: Verdict, compared: str, seconds: float) -> int:
    """Print what was found.

    Args:
        verdict: what was found.
        compared: how many cases, in words.
        seconds: that it took.

    Returns:
        The exit code.
    """
    for line in touched(verdict.findings):
        print(line)
    for finding in verdict.findings:
        print(f"  {finding.case.name}  {finding.file}: {finding.what}")
    if verdict.new_columns:
        print(f"only in the working tree, which is allowed: {', '.join(dict.fromkeys(verdict.new_columns))}")
    for name in verdict.waiting:
        print(f"not compared yet, 'since' is not known: {name}")
    for line in verdict.incomparable:
        print(f"not comparable: {line}")
    if verdict.findings:
        cases = len({finding.case.name for finding in verdict.findings})
        print(f"golden: {cases} of {compared} differ, {seconds:.0f} s; see 'The golden set' in CONTRIBUTING.md")
        return 1
    print(f"golden: {compared}, the same bits, {seconds:.0f} s")
    return 0
