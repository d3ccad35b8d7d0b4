"""`paper/numbers.json`: every number that stands in prose, read from the file that holds it.

`python -m vaco.report.prose.numbers --tables build/results/desk/tables --studies build/results/tuned/tables
--language build/results/lm_desk/tables --theory results/theory --benchmarks benchmarks/results
--out build/paper/numbers.json`

A flat object, key → {"value", "text", "source"}: the number itself, the number as prose shows it, and the file it comes
from. What has not been measured has the value null and the text "not yet measured".

To add numbers, write a function from the content of a file to (key, value, format) triples, and enter it with its file
in `THEORY`, `BENCHMARKS` or, for a table of the tier, in `TABLES`; for a tier of one study, in `of_study`. A value that
is a string stands as it is; the format is that of `format()`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vaco.command import Parser, run_command
from vaco.errors import UserError
from vaco.paths import path_flag
from vaco.report.figures import specification, tuned
from vaco.report.prose.lm_numbers import from_language
from vaco.report.prose.readings_numbers import from_readings
from vaco.report.prose.run_numbers import from_runs
from vaco.report.prose.tier_numbers import (
    Found,
    from_aggregates,
    from_contributions,
    from_factorial,
    from_improvement,
    from_losses,
    from_sensitivity,
    from_separation,
    from_summary,
    from_task_scores,
)
from vaco.report.prose.tuned_numbers import from_comparison
from vaco.report.tables.read import Tables

UNKNOWN = "not yet measured"
Number = dict[str, Any]
Reader = Callable[[Any], Found]
TABLES: dict[str, tuple[Callable[[Tables], Found], ...]] = {
    "summary.json": (from_summary,),
    "scores.parquet": (from_contributions,),
    "aggregates.parquet": (from_aggregates, from_factorial, from_sensitivity),
    "task_scores.parquet": (from_task_scores, from_losses),
    "improvement.parquet": (from_improvement,),
    "separation.parquet": (from_separation,),
    "runs.parquet": (from_runs,),
}


def number(value: Any, form: str, source: str) -> Number:
    """One entry.

    Args:
        value: a number, a text, or None; NaN and infinities count as None.
        form: format specification of a number.
        source: path of the file it was read from, relative to the root of the repository.
    """
    if isinstance(value, float) and not math.isfinite(value):
        value = None
    value = value.item() if hasattr(value, "item") else value
    text = UNKNOWN if value is None else str(value) if isinstance(value, str) else f"{value:{form}}"
    # A typographic minus, as the rest of the prose has, also in the interval of a difference that is positive.
    return {"value": value, "text": text.replace("-", "−") if text[:1] in ("-", "+") else text, "source": source}


def from_checks(content: Any) -> Found:
    """Checks in floating point: how many, on how many instances, violated how often."""
    checks = content["checks"]
    yield "checks.count", len(checks), "d"
    yield "checks.instances", content["instances"], ",d"
    yield "checks.comparisons", sum(check["instances"] for check in checks), ",d"
    yield "checks.violations", sum(check["violations"] for check in checks), "d"
    yield "checks.undecided", sum(check["undecided"] for check in checks), "d"
    for kind in ("identity", "inequality"):
        yield f"checks.{kind}", sum(check["kind"] == kind for check in checks), "d"


def from_controls(content: Any) -> Found:
    """Controls, statements made wrong on purpose, and how many failed as they must."""
    yield "controls.count", len(content["controls"]), "d"
    yield "controls.failed", sum(bool(control["failed"]) for control in content["controls"]), "d"


def from_exact(content: Any) -> Found:
    """Checks and controls in exact arithmetic."""
    checks = content["checks"]
    yield "exact.count", len(checks), "d"
    yield "exact.comparisons", sum(check["instances"] for check in checks), ",d"
    yield "exact.violations", sum(check["violations"] for check in checks), "d"
    yield "exact.controls", len(content["controls"]), "d"
    yield "exact.controls_failed", sum(bool(control["failed"]) for control in content["controls"]), "d"
    yield "exact.attained", sum(bool(case["equal"]) for case in content["attained"]), "d"


def from_tightness(content: Any) -> Found:
    """How near to its bound the worst case found comes."""
    checks = content["checks"]
    yield "tightness.count", len(checks), "d"
    yield "tightness.attained", sum(check["verdict"] == "attained" for check in checks), "d"
    for check in checks:
        yield f"tightness.{check['name']}", check["best"], ".4f"


def from_symbolic(content: Any) -> Found:
    """Derivations by computer algebra."""
    yield "symbolic.count", len(content["checks"]), "d"
    yield "symbolic.violations", sum(check["violations"] for check in content["checks"]), "d"


def from_throughput(content: Any) -> Found:
    """Speeds, ratios, and what alignment costs."""
    machine = content["machine"]
    yield "machine", machine["processor"], ""
    for name, speed in content["speeds"].items():
        yield f"throughput.{_key(name)}", speed["median"], ",.0f"
    for name, ratio in content["ratios"].items():
        yield f"ratio.{_key(name)}", ratio, "+.1%" if "cost of" in name else ".2f"
    for part in ("align_ms", "phase_ms"):
        for name, milliseconds in content[part].items():
            yield f"{part}.{name}", milliseconds, ".2f"
    for name, memory in content["memory"].items():
        yield f"memory.{name}.mb", memory["MB"], ".0f"
        yield f"memory.{name}.phases", memory["phases"], ".0f"


def from_faults(content: Any) -> Found:
    """Faults injected, and what became of the runs."""
    results = [case["result"] for case in content["cases"]]
    yield "faults.injected", content["injected"], "d"
    yield "faults.kinds", len({case["kind"] for case in content["cases"]}), "d"
    yield "faults.skipped", content["skipped"], "d"
    yield "faults.silent", content["silent_differences_or_losses"], "d"
    for result in sorted(set(results)):
        yield f"faults.result.{result}", results.count(result), "d"


def from_optimisations(content: Any) -> Found:
    """Our time over the plain way's, for every optimisation."""
    for name, pair in content.items():
        yield f"optimisation.{_key(name.split(':')[0])}", pair["ratio"], ".2f"
        yield f"optimisation.{_key(name.split(':')[0])}.speedup", 1.0 / pair["ratio"], ".1f"


def from_language_benchmark(content: Any) -> Found:
    """Tokens a second, and how much faster than the plain way."""
    for name, ratio in content["ratios"].items():
        yield f"language.ratio.{name}", ratio, ".2f"
        for side, speed in content["tokens_per_second"][name].items():
            yield f"language.{name}.{side}", speed["median"], ",.0f"


def from_language_cost(content: Any) -> Found:
    """Peak memory of SmolLM2's gradient step, gigabytes, and seconds of whole steps of A-3PO and decoupled PPO."""
    for name, case in content["memory"].items():
        yield f"language_memory.{_key(name)}", case["peak_gb"], ".1f"
    for name, seconds in content["steps"]["seconds"].items():
        yield f"language_step.{name}", seconds, ".2f"
    yield "language_step.saved", content["steps"]["saved_seconds"], ".2f"
    yield (
        "language_step.saved_share",
        content["steps"]["saved_seconds"] / content["steps"]["seconds"]["decoupled"],
        ".0%",
    )


def from_env_processes(content: Any) -> Found:
    """Speed with environments in further processes, relative to without."""
    for task, ratio in content["ratio"].items():
        yield f"env_processes.{_key(task)}", ratio, ".2f"


def _key(name: str) -> str:
    """A name as words of a key: lower case, `-v5` dropped, everything else than letters and digits to one of `._`."""
    name = name.lower().replace("-v5", "").replace(" / ", "_over_").replace("/", ".")
    return "_".join("".join(letter if letter.isalnum() or letter in "._" else " " for letter in name).split())


THEORY: dict[str, Reader] = {
    "checks.json": from_checks,
    "controls.json": from_controls,
    "exact.json": from_exact,
    "tightness.json": from_tightness,
    "symbolic.json": from_symbolic,
}


BENCHMARKS: dict[str, Reader] = {
    "throughput.json": from_throughput,
    "faults.json": from_faults,
    "optimisations.json": from_optimisations,
    "language.json": from_language_benchmark,
    "language_cost.json": from_language_cost,
    "env_processes.json": from_env_processes,
}


def of_files(prefix: str, folder: Path, readers: dict[str, Reader]) -> Iterator[tuple[str, Number]]:
    """The numbers of JSON files; one that is not there contributes a single entry that says so."""
    for name, reader in readers.items():
        path = folder / name
        if not path.is_file():
            yield f"{prefix}.{Path(name).stem}", number(None, "", path.as_posix())
            continue
        for key, value, form in reader(json.loads(path.read_text(encoding="utf-8"))):
            yield f"{prefix}.{key}", number(value, form, path.as_posix())


def of_tier(folder: Path) -> Iterator[tuple[str, Number]]:
    """The numbers of a tier's tables; without tables a single entry says so."""
    if not (folder / "summary.json").is_file():
        yield f"{folder.parent.name}.runs.finished", number(None, "", (folder / "summary.json").as_posix())
        return
    tables = Tables(folder)
    for name, readers in TABLES.items():
        for reader in readers:
            for key, value, form in reader(tables):
                yield f"{tables.summary['tier']}.{key}", number(value, form, (folder / name).as_posix())


def of_study(folder: Path) -> Iterator[tuple[str, Number]]:
    """The numbers of a tier that is one study: tuned methods, or readings.

    Args:
        folder: its tables; without them a single entry says so.

    Raises:
        UserError: the tier has neither study.
    """
    source = folder / "scores.parquet"
    if not source.is_file():
        yield f"{folder.parent.name}.runs", number(None, "", source.as_posix())
        return
    tables = Tables(folder)
    readers = {tuned.STUDY: from_comparison, specification.STUDY: from_readings}
    study = next((name for name in readers if name in tables.summary["grids"]), None)
    if study is None:
        raise UserError(
            f"the tier of {folder} has no study with numbers of its own: give one with a study named "
            f"{' or '.join(repr(name) for name in readers)}"
        )
    for key, value, form in readers[study](tables):
        yield f"{folder.parent.name}.{key}", number(value, form, source.as_posix())


def of_language(folder: Path) -> Iterator[tuple[str, Number]]:
    """The numbers of a language-model tier's tables; without tables a single entry says so.

    Keys begin with `lm`, those of another tier than the desk's with what follows that in its name: `smollm`.
    """
    tier = folder.parent.name
    begin = "lm" if tier == "lm_desk" else tier.removeprefix("lm_")
    if not (folder / "summary.json").is_file():
        yield f"{begin}.scale.runs", number(None, "", (folder / "summary.json").as_posix())
        return
    for key, value, form in from_language(Tables(folder)):
        name = "updates.parquet" if key.endswith((".dropped", ".fires", ".lag")) or ".cost." in key else "evals.parquet"
        source = "summary.json" if ".scale." in key else name
        yield key.replace("lm", begin, 1), number(value, form, (folder / source).as_posix())


def collect(found: Iterable[tuple[str, Number]]) -> dict[str, Number]:
    """All entries by key, sorted.

    Raises:
        UserError: two sources use one key.
    """
    entries: dict[str, Number] = {}
    for key, entry in found:
        if key in entries:
            raise UserError(
                f"the number '{key}' comes from {entries[key]['source']} and from {entry['source']}: rename one of them"
            )
        entries[key] = entry
    return dict(sorted(entries.items()))


def _line(entry: Number) -> str:
    return json.dumps(entry, ensure_ascii=False, allow_nan=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the module's docstring."""
    parser = Parser(prog="python -m vaco.report.prose.numbers", description="Collect numbers for prose.")
    parser.add_argument(
        "--tables", type=path_flag, action="append", default=[], help="build/results/<tier>/tables; may be repeated"
    )
    parser.add_argument(
        "--studies", type=path_flag, nargs="*", default=[], help="build/results/<tier>/tables of tiers of one study"
    )
    parser.add_argument("--theory", type=path_flag, help="results/theory")
    parser.add_argument("--benchmarks", type=path_flag, help="benchmarks/results")
    parser.add_argument(
        "--language", type=path_flag, nargs="*", default=[], help="build/results/<lm_tier>/tables, of several tiers"
    )
    parser.add_argument("--out", type=path_flag, required=True, help="the file to write")
    given = parser.parse_args(arguments)
    found: list[tuple[str, Number]] = []
    for folder in given.tables:
        found += of_tier(folder)
    for folder in given.studies:
        found += of_study(folder)
    for folder in given.language:
        found += of_language(folder)
    if given.theory:
        found += of_files("theory", given.theory, THEORY)
    if given.benchmarks:
        found += of_files("benchmark", given.benchmarks, BENCHMARKS)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{json.dumps(key)}: {_line(entry)}" for key, entry in collect(found).items()]
    given.out.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    run_command(main)
