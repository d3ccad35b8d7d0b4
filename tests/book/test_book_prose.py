"""No page states a number that was typed by hand, and the rule that says so sees what it must."""

from __future__ import annotations

from pathlib import Path

import pytest
from vacobook import prose

BOOK = Path(__file__).parents[2] / "paper" / "book"
PAGES = sorted(path for path in BOOK.rglob("*.md") if "_build" not in path.parts)
EXCEPTIONS = prose.allowed(BOOK / prose.ALLOWED)


def name(page: Path) -> str:
    return page.relative_to(BOOK).with_suffix("").as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_number_is_typed_into_prose(page: Path) -> None:
    found = prose.unexplained(name(page), page.read_text(encoding="utf-8"), EXCEPTIONS)
    assert not found, (
        "read them from paper/numbers.json with {num}, or say in allowed_numbers.yml why they are no results"
    )


def test_every_exception_is_still_needed() -> None:
    texts = {name(page): page.read_text(encoding="utf-8") for page in PAGES}
    used = {(page, found.text) for page, text in texts.items() for found in prose.numbers(text)}
    for page, entries in EXCEPTIONS.items():
        for number in entries:
            if page == "everywhere":
                assert number in {text for _, text in used}, f"no page has '{number}'"
            else:
                assert (page, number) in used, f"{page} has no '{number}'"


def found(text: str) -> list[str]:
    return [number.text for number in prose.numbers(text)]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("VACO reaches 0.93 here.", ["0.93"]),
        ("It drops 7% of them, or 12 % at worst.", ["7%", "12 %"]),
        ("Of 543 runs, 1,440 are planned, 100M steps each.", ["543", "1,440", "100M"]),
        ("It is faster by 12 percent.", ["12 percent"]),
        ("The difference is −0.4, then +12.5.", ["−0.4", "+12.5"]),
        ("| VACO | 0.93 [0.55, 1.19] |", ["0.93", "0.55", "1.19"]),
        (":::{note}\nIt reached 0.93.\n:::", ["0.93"]),
        ("```{result-figure} desk/aggregate_scores\n:alt: 0.5 of it\n\nIt reached 0.93.\n```", ["0.93"]),
        ("A price of \\$5 and 0.93, or \\$6.", ["0.93"]),
        ("$x$ costs\n\n$5 and 0.93 of it\n\n and $y$", ["0.93"]),
    ],
)
def test_a_typed_number_is_found(text: str, numbers: list[str]) -> None:
    assert found(text) == numbers


@pytest.mark.parametrize(
    "text",
    [
        "It reaches {num}`desk.vaco.lag16.iqm` here, with $\\delta=0.2$ and `delta=0.25`.",
        "$$\nx = 0.93\n$$",
        "```python\nx = 0.93\n```",
        "~~~\n0.93\n~~~",
        "````{note}\n```{code-cell}\nx = 543\n```\n````",
        "---\nexecution_timeout: 120\n---\nText.",
        "## 0.93 in a heading",
        "See arXiv 2603.01365, [this](https://x.org/543) and {cite}`kakade2002approximately`.",
        "Kakade and Langford (2002) as in Achiam et al. 2017; Python 3.11 and MuJoCo 4.0.0.",
        "Three tasks, 5 seeds, 16 actors, K = 64, HalfCheetah-v5, 10 epochs.",
        '<span data-x="0.93"></span> <!-- 0.93 -->',
        "Lemma 3.1 and Theorem 3.2, Figures 3 and 4.",
        "```{result-figure} desk/aggregate_scores\n:alt: a line at 0.5\n:width: 100%\n```",
        "1. first\n2. second",
    ],
)
def test_what_is_no_prose_or_no_result_passes(text: str) -> None:
    assert not found(text)


def test_lines_are_counted_from_one() -> None:
    assert list(prose.numbers("one\n\n$$\nx\n$$\nat 0.5")) == [prose.Found(6, "0.5")]


def test_an_exception_needs_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "allowed.yml"
    path.write_text('page:\n  "0.93":\n')
    with pytest.raises(ValueError, match="needs a reason"):
        prose.allowed(path)
    path.write_text("page:\n  0.93: why\n")
    with pytest.raises(ValueError, match="quoted"):
        prose.allowed(path)
