"""What the pages of the repository speak of exists: links, paths, make targets, commands with their flags, rules."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from vaco.cli import build_parser

ROOT = Path(__file__).parents[1]
NAMES = (
    *("README.md", "CONTRIBUTING.md", "REPRODUCIBILITY.md", "SECURITY.md"),
    *("config/README.md", "profiles/README.md", "profiles/slurm/README.md"),
)
PAGES = {name: (ROOT / name).read_text() for name in NAMES}
TARGETS = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
# Paths that a reader has only after running something, or writes.
MADE = re.compile(r"results/(runs|paper)|benchmarks/out|runs/example|<|[*]|NAME|TIER")
# Flags of `vaco theory`, which has a parser of its own.
OWN_PARSER = {"theory"}


def code(text: str) -> str:
    """Only what is set as code: blocks and spans."""
    blocks = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return "\n".join([*blocks, *spans])


def links(text: str) -> set[str]:
    return {link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith(("http://", "https://"))}


def anchors(path: Path) -> set[str]:
    """The headings of a page as GitHub links to them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (action,) = (one for one in parser._actions if isinstance(one, argparse._SubParsersAction))
    return dict(action.choices)


def calls(text: str) -> Iterator[list[str]]:
    """The words of every call of `vaco` in a page's code, up to the end of the call."""
    for line in code(text).replace("\\\n", " ").splitlines():
        if found := re.match(r"(?:\$ )?vaco +([a-z-][^#|;]*)", line):
            yield found[1].split()


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    for link in sorted(links(PAGES[name])):
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.resolve().is_relative_to(ROOT), f"{link} leads out of the repository"
        assert target.exists(), f"{name}: {link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{name}: {link}: there is no such heading"


@pytest.mark.parametrize("name", NAMES)
def test_paths_in_code_exist(name: str) -> None:
    """Anything set as code that starts like a folder of the repository."""
    folders = "src|tests|scripts|profiles|config|paper|results|workflow|benchmarks|theory"
    for path in set(re.findall(rf"(?<![\w/.-])((?:{folders})/[\w./*<>-]*[\w/>*])", code(PAGES[name]))):
        assert MADE.search(path) or (ROOT / path).exists(), f"{name}: there is no {path}"


@pytest.mark.parametrize("name", NAMES)
def test_make_targets_exist(name: str) -> None:
    for target in set(re.findall(r"\bmake ([a-z][a-z0-9-]*)", code(PAGES[name]))):
        assert target in TARGETS, f"{name}: there is no `make {target}`"


@pytest.mark.parametrize("name", NAMES)
def test_commands_and_flags_exist(name: str) -> None:
    for words in calls(PAGES[name]):
        parser = build_parser()
        while words and not words[0].startswith("-"):
            try:
                known = commands(parser)
            except ValueError:  # its words are arguments, not commands
                break
            assert words[0] in known, f"{name}: there is no command {words[0]} of {parser.prog}"
            own, parser = words[0] in OWN_PARSER, known[words[0]]
            words = words[1:]
            if own:
                break
        else:
            own = False
        flags = {flag for action in parser._actions for flag in action.option_strings}
        for word in words:
            if word.startswith("--") and not own:
                assert word.split("=")[0] in flags, f"{name}: {parser.prog} has no {word}"


@pytest.mark.parametrize("name", NAMES)
def test_snakemake_targets_exist(name: str) -> None:
    texts = "\n".join(path.read_text() for path in [*(ROOT / "workflow").rglob("*.smk"), ROOT / "workflow/Snakefile"])
    rules = set(re.findall(r"^\s*rule (\w+):", texts, re.MULTILINE))
    rules |= set(re.findall(r"^use rule \w+ as (\w+)", texts, re.MULTILINE))
    drawn = (ROOT / "workflow/figures.yaml").read_text()  # figures and tables have rules that are named after them
    rules |= set(re.findall(r"^ +(\w+): \[", drawn, re.MULTILINE))
    assert {"all_figures", "train", "aggregate_scores", "hyperparameters"} <= rules
    for line in code(PAGES[name]).splitlines():
        for call in re.findall(r"\bsnakemake((?: +[\w./=:-]+)*)", line):
            words = call.split()
            while words and (words[0].startswith("-") or "=" in words[0]):
                takes_one = words[0] in ("--config", "--profile", "--workflow-profile", "--cores")
                words = words[2 if takes_one else 1 :]
            if words and re.fullmatch(r"[a-z]\w*", words[0]):
                assert words[0] in rules, f"{name}: there is no rule {words[0]}"


def after_config(text: str) -> Iterator[tuple[str, str]]:
    """Every call of Snakemake with --config, and each word behind it that Snakemake would not read as a setting."""
    for call, words in re.findall(r"(\bsnakemake[^`#\n]*?--config((?: +[\w./=:-]+)*))", text):
        for word in words.split():
            if word.startswith("-"):
                break
            if "=" not in word:
                yield call, word


def test_targets_come_before_config() -> None:
    """`snakemake --config tier=desk aggregate_scores` is refused: all that follows --config must be a setting."""
    pages = [*PAGES.values(), *(path.read_text() for path in (ROOT / "paper/book").rglob("*.md"))]
    codes = [code(text) for text in pages]
    assert sum(text.count("--config") for text in codes) > 10
    assert not [found for text in codes for found in after_config(text)]
    assert list(after_config("snakemake --cores 2 --config tier=desk aggregate_scores -n")) == [
        ("snakemake --cores 2 --config tier=desk aggregate_scores -n", "aggregate_scores")
    ]


def test_what_is_checked_would_be_noticed() -> None:
    """The readers above find what the pages have; an empty search would pass every test."""
    everything = "\n".join(PAGES.values())
    assert len(links(everything)) > 40 and len(list(calls(everything))) > 15
    assert {"reproduce", "test", "test-slurm", "book"} <= set(re.findall(r"\bmake ([a-z][a-z0-9-]*)", code(everything)))
    assert "where-to-go" in anchors(ROOT / "README.md") and "lm" in commands(build_parser())


def test_the_two_commands_come_first() -> None:
    before = PAGES["README.md"].split("make reproduce")[0]
    assert "make test" in PAGES["README.md"].split("make reproduce")[1][:200]
    badges = re.compile(r"^\[!\[.*\n", re.MULTILINE)
    assert len(badges.sub("", before).splitlines()) < 15
    # Of the results one, and one of what a policy does.
    assert badges.sub("", PAGES["README.md"]).count("![") == 2 and "![" not in badges.sub("", before)


def test_no_page_fetches_an_image_or_names_this_machine() -> None:
    for name, text in PAGES.items():
        assert not re.search(r"!\[[^\]]*\]\(http|<img", text), f"{name} fetches an image"
        assert not re.search(r"/work/|/tmp/(?!vaco-slurm)|/root/|/home/", text), f"{name} holds a path of a machine"
