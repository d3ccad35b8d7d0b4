"""The graph of the workflow's rules: read as Snakemake prints it, and drawn so that every arrow points down."""

from __future__ import annotations

import itertools
import random
import re
from pathlib import Path
from xml.etree import ElementTree

from vacobook import rulegraph

ROOT = Path(__file__).parents[2]
Edges = list[tuple[str, str]]


def graph(seed: int) -> tuple[list[str], Edges]:
    """Ten rules, each of which may wait for those before it."""
    draw = random.Random(seed)
    names = [f"rule{number}" for number in range(10)]
    return names, [pair for pair in itertools.combinations(names, 2) if draw.random() < 0.25]


def reaches(edges: Edges, start: str, end: str) -> bool:
    return any(a == start and (b == end or reaches(edges, b, end)) for a, b in edges)


def test_only_what_follows_from_other_edges_is_left_out() -> None:
    for seed in range(20):
        _, edges = graph(seed)
        kept = rulegraph.reduced(edges)
        for edge in edges:
            others = [other for other in edges if other != edge]
            assert (edge in kept) == (not reaches(others, *edge)), (seed, edge)


def test_every_arrow_points_down_and_rules_stand_as_low_as_they_can() -> None:
    for seed in range(20):
        names, edges = graph(seed)
        rows = rulegraph.layers(names, edges)
        level = {name: index for index, row in enumerate(rows) for name in row}
        assert sorted(level) == sorted(names)
        for name in names:
            below = [level[end] for start, end in edges if start == name]
            assert level[name] == min(below, default=len(rows)) - 1, (seed, name)


def test_sweeps_leave_fewer_crossings_than_they_find() -> None:
    before = after = 0
    for seed in range(20):
        names, edges = graph(seed)
        rows = rulegraph.layers(names, edges)
        after += rulegraph.crossings(rows, edges)
        before += rulegraph.crossings([sorted(row) for row in rows], edges)
    assert after < 0.8 * before
    assert rulegraph.crossings([["a", "b"], ["c", "d"]], [("a", "d"), ("b", "c"), ("a", "c")]) == 1


def test_snakemake_s_own_graph_is_drawn() -> None:
    names, edges = rulegraph.parse(rulegraph.ask(ROOT, ["all_figures", "theory"]))
    assert {("train", "archive"), ("archive", "tables_of_tier"), ("tables_of_tier", "figure")} <= set(edges)
    assert {("warm_start", "lm_train"), ("theory_numbers", "theory_figures"), ("figure", "all_figures")} <= set(edges)
    kept = rulegraph.reduced(edges)
    rows = rulegraph.layers(names, kept)
    drawn = rulegraph.svg(rows, kept)
    assert drawn == rulegraph.svg(rulegraph.layers(names, kept), kept)
    assert sorted(text.text or "" for text in ElementTree.fromstring(drawn).iter("text")) == names
    assert float(re.findall(r'width="(\d+)"', drawn)[0]) <= 720, "wider than a page of the book"
    boxes = re.findall(r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)"', drawn)
    placed = sorted((float(y), float(x), float(wide)) for x, y, wide in boxes)
    for (y, x, wide), (next_y, next_x, _) in itertools.pairwise(placed):
        assert y < next_y or x + wide < next_x, "boxes overlap"
