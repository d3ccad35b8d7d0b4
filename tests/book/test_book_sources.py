"""What the pages show exists or has a rule that makes it: figures, numbers, code, the table of contents."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from vacobook import formula, results

from vaco import dag
from vaco.objectives.filters import FILTERS

ROOT = Path(__file__).parents[2]
BOOK = ROOT / "paper" / "book"
FIGURES = ROOT / "paper" / "figures"
PAGES = sorted(path for path in BOOK.rglob("*.md") if "_build" not in path.parts)
# Asks Snakemake itself which rule makes a file; in a process of its own, for it changes the state it runs in.
ASK = """
import json, sys
from pathlib import Path
from snakemake.api import SnakemakeApi
from snakemake.settings.types import ConfigSettings, OutputSettings, ResourceSettings

tier, *files = sys.argv[1:]
with SnakemakeApi(OutputSettings()) as api:
    workflow = api.workflow(
        resource_settings=ResourceSettings(),
        config_settings=ConfigSettings(config={"tier": tier}),
        snakefile=Path("workflow/Snakefile"),
    )._workflow
    if not list(workflow.rules):
        workflow.include(str(Path("workflow/Snakefile").resolve()), overwrite_default_target=True)
    rules = list(workflow.rules)
made = {file: [rule.name for rule in rules if rule.is_producer(file)] for file in files}
print("ANSWER" + json.dumps(made))
"""


def makers(tier: str, files: list[str]) -> dict[str, list[str]]:
    """The rules that make what the repository shows: below build/, from where `make release` copies it."""
    asked = subprocess.run(
        [sys.executable, "-c", ASK, tier, *(f"build/{file}" for file in files)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    (answer,) = [line for line in asked.stdout.splitlines() if line.startswith("ANSWER")] or [asked.stderr]
    found: dict[str, list[str]] = json.loads(answer.removeprefix("ANSWER"))
    return {file.removeprefix("build/"): rules for file, rules in found.items()}


def tier_of(file: str) -> str:
    """The tier in whose configuration Snakemake is asked: that of the file's folder, if there is one."""
    folder = Path(file).parent.name.removeprefix("lm_")  # the language-model tier of the same name comes with it
    return folder if (ROOT / "config" / f"{folder}.yaml").is_file() else "smoke"


def shown() -> list[str]:
    files = {file for page in PAGES for file in results.shown_files(page, FIGURES)}
    # One that is not there yet is not shown: its place holds a notice.
    return sorted(file.relative_to(ROOT).as_posix() for file in files if file.is_file())


def test_every_figure_shown_is_made_by_a_rule() -> None:
    assert len(shown()) > 10, "an empty search would pass everything"
    for tier in sorted({tier_of(file) for file in shown()}):
        files = [file for file in shown() if tier_of(file) == tier]
        made = makers(tier, [*files, "paper/figures/drawn_by_hand.png"])
        assert not made.pop("paper/figures/drawn_by_hand.png")
        assert not [file for file, rules in made.items() if not rules]


def test_every_generated_text_is_in_the_repository() -> None:
    """Its rule has no inputs, so nothing but a person asks for it, and the page would hold a notice for ever."""
    named = [
        file for page in PAGES for file in re.findall(r"^\s*`{3,}\{generated\} (\S+)", page.read_text("utf-8"), re.M)
    ]
    assert len(named) > 1
    assert not [file for file in named if not (ROOT / file).is_file()]
    made = {file: rules for tier in map(tier_of, named) for file, rules in makers(tier, named).items()}
    assert all(made[file] for file in named)


def commands(page: Path) -> Iterator[str]:
    """Every command that a page states for a figure or table: a product's, or one that the page gives itself."""
    text = page.read_text(encoding="utf-8")
    yield from re.findall(r"^\s*:made-by: (.+)$", text, re.MULTILINE)
    for kind, name in re.findall(r"^\s*(?:```|:::+)\{result-(figure|table)\}\s+(\S+)", text, re.MULTILINE):
        product = results.find(ROOT / "paper" / f"{kind}s", name)
        if product.sidecar:
            yield results.command(product)


def test_every_command_beside_a_figure_or_table_is_one_of_a_rule() -> None:
    found = sorted({command for page in PAGES for command in commands(page)})
    assert len(found) > 15
    rules = set(re.findall(r"^rule (\w+):", "\n".join(p.read_text() for p in ROOT.glob("workflow/rules/*.smk")), re.M))
    drawn = yaml.safe_load((ROOT / "workflow/figures.yaml").read_text())
    named = [drawn[kind] for kind in ("figures", "language", "typeset", "demonstrations")] + [
        *drawn["studies"].values(),
        drawn["sweeps"],
        drawn["choices"],
    ]
    rules |= {name for group in named for name in group}  # rules that are named after what they make
    assert not [command for command in found if command.split()[:1] != ["snakemake"] or command.split()[1] not in rules]


def without_waiting(page: Path) -> str:
    """The page without passages that wait for a file that is not there."""

    def waits(match: re.Match[str]) -> str:
        files = [needed for needed in match.group(1).split() if "/" in needed]
        return match.group(2) if all((ROOT / file).exists() for file in files) else ""

    return re.sub(r"^:::\{computed\} (.*?)\n(.*?)^:::$", waits, page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def test_every_number_shown_is_among_the_generated_ones() -> None:
    known = results.load_numbers(ROOT)
    if known is None:
        pytest.skip("paper/numbers.json has not been computed")
    used = {key for page in PAGES for key in results.keys(without_waiting(page))}
    assert len(used) > 10
    assert not used - set(known)


def test_what_the_findings_conclude_of_the_contributions_is_what_the_numbers_say() -> None:
    """The one conclusion in words: the centre of the trust region is what counts at the largest capacity."""
    known = results.load_numbers(ROOT)
    if known is None or "desk.contributions.clear" not in known:
        pytest.skip("the study has not been computed")
    ahead = set(known["desk.contributions.clear"]["text"].split(", "))
    moved, tv = (
        {f"{align}+{rule} over {align}+clip" for align in ("none", "once")} for rule in ("decoupled_clip", "tv")
    )
    assert ahead == moved | tv | {"once+clip over none+clip"}


def entries(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        yield from (str(value) for key, value in part.items() if key in ("file", "root"))
        for value in part.values():
            yield from entries(value)
    elif isinstance(part, list):
        for item in part:
            yield from entries(item)


def test_the_table_of_contents_lists_every_page_once() -> None:
    listed = sorted(entries(yaml.safe_load((BOOK / "_toc.yml").read_text())))
    assert listed == sorted(page.relative_to(BOOK).with_suffix("").as_posix() for page in PAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(BOOK).as_posix())
def test_every_image_has_a_description(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(
        r"^\s*(?:```|:::+)\{(?:result-figure|figure|image)\}[^\n]*\n((?:\s*:[\w-]+:.*\n)*)", text, re.M
    ):
        assert re.search(r":alt:\s*\S", match.group(1)), match.group(0)
    assert not re.search(r"!\[\]\(", text)


def imported(page: Path) -> Iterator[tuple[str, str]]:
    """Module and name of everything that the cells of a page import from this repository."""
    for cell in re.findall(r"^```\{code-cell\}[^\n]*\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        for node in ast.walk(ast.parse(re.sub(r"^:.*$", "", cell, flags=re.MULTILINE))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ("vaco", "theory"):
                yield from ((node.module, alias.name) for alias in node.names)


def exists(module: str, name: str) -> bool:
    """Whether a module can be imported and has the name, as an attribute or as a module within."""
    try:
        found = importlib.import_module(module)
        return hasattr(found, name) or bool(importlib.import_module(f"{module}.{name}"))
    except ModuleNotFoundError:
        return False


def test_what_the_cells_import_exists() -> None:
    """A quick guard: a moved name is noticed here, and not only when somebody builds the book."""
    found = [(page.name, *pair) for page in PAGES for pair in imported(page)]
    assert len(found) > 40 and not exists("vaco.report.tables.plan", "nothing")
    assert not [(page, module, name) for page, module, name in found if not exists(module, name)]


@pytest.mark.parametrize("rule", FILTERS.values(), ids=lambda rule: rule.name)
def test_every_formula_can_be_typeset(rule: object) -> None:
    text = formula.latex(rule.formula)  # type: ignore[attr-defined]
    assert text.isascii() and text.count("[") == text.count("]")


@pytest.mark.parametrize("strange", ["c = ξA", "c = ρA if lucky"])
def test_a_formula_with_an_unknown_sign_is_refused(strange: str) -> None:
    with pytest.raises(ValueError, match="no LaTeX"):
        formula.latex(strange)


def test_nothing_names_this_machine() -> None:
    """A page, or a text that a rule wrote, must not carry a path of the machine that made it."""
    texts = [*PAGES, *(ROOT / "paper" / "tables").rglob("*.txt"), *FIGURES.rglob("*.json")]
    assert not [path for path in texts if re.search(r"(?<![\w.])/(tmp|home|root|work)/", path.read_text("utf-8"))]


def test_the_book_is_built_again_when_a_file_changes_that_a_page_takes_in() -> None:
    """The rule `book` has what is released as its input; whatever a page names lies below one of these folders."""
    assert "dag.released()" in (ROOT / "workflow/rules/book.smk").read_text()
    listed = inspect.getsource(dag.released).split("for top in (")[1].split("):")[0]
    places = [*re.findall(r'"([^"]+)"', listed), dag.RESULTS]
    assert "RESULTS" in listed
    assert len(places) > 3
    taken = set()
    for page in PAGES:
        text = page.read_text()
        for path in re.findall(r"\{(?:include|literalinclude)\} (\S+)", text):
            taken.add((page.parent / path).resolve().relative_to(ROOT).as_posix())
        taken |= set(re.findall(r"\{(?:computed|generated)\} ([\w./-]+/[\w./-]+)", text))
        taken |= set(re.findall(r"^:source: (\S+/\S+)", text, re.MULTILINE))
    assert "benchmarks/results/faults.md" in taken and "results/lm_desk/archive/archive.json" in taken
    taken |= {f"results/{tier}/archive/SHA256SUMS" for tier in ("desk", "lm_desk")}  # provenance boxes
    outside = [path for path in taken if not any(path == place or path.startswith(f"{place}/") for place in places)]
    assert not outside
