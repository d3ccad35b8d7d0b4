from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch

from vaco.errors import UserError
from vaco.objectives.align import ALIGNMENTS
from vaco.objectives.filters import DEFAULTS, FILTERS, Filtered, FilterSettings, Samples, register
from vaco.objectives.table import ALIASES, describe, parse

ROWS = {
    "ppo": "none+clip",
    "ppo_kl": "none+kl",
    "spo": "none+spo",
    "impala": "continuous+truncated",
    "geppo": "once+centred_clip",
    "decoupled": "none+decoupled_clip",
    "vaco": "once+tv",
}


def test_aliases_are_the_published_algorithms() -> None:
    assert {name: parse(name).pair for name in ALIASES} == ROWS


@pytest.mark.parametrize("alias", ROWS)
def test_an_alias_and_its_pair_are_the_same_row(alias: str) -> None:
    by_alias, by_pair = parse(alias), parse(ROWS[alias])
    assert by_alias.align is by_pair.align
    assert by_alias.filter is by_pair.filter
    assert by_alias.name == alias
    assert by_pair.name == by_pair.pair == ROWS[alias]


@pytest.mark.parametrize("pair", ["+".join(p) for p in itertools.product(ALIGNMENTS, FILTERS)])
def test_the_whole_factorial_parses(pair: str) -> None:
    row = parse(pair)
    assert row.pair == pair
    assert row.align is ALIGNMENTS[pair.split("+")[0]]
    assert row.filter is FILTERS[pair.split("+")[1]]


def test_the_factorial_has_the_contracts_rows() -> None:
    assert set(ALIGNMENTS) == {"none", "once", "continuous", "divergence"}
    contract = {"clip", "tv", "tv_total", "tv_proximal", "kl", "spo", "truncated", "centred_clip", "none"}
    assert set(FILTERS) >= contract | {"decoupled_clip", "kl_total", "centred_clip_fixed", "centred_clip_lag"}


@pytest.mark.parametrize(
    ("name", "wrong", "meant"),
    [
        ("vacoo", "vacoo", "'vaco'"),
        ("pppo", "pppo", "'ppo'"),
        ("ppo-kl", "ppo-kl", "'ppo_kl'"),
        ("onse+tv", "'onse'", "'once'"),
        ("once+tv_totl", "'tv_totl'", "'tv_total'"),
        ("once+clp", "'clp'", "'clip'"),
        ("continous+tv", "'continous'", "'continuous'"),
    ],
)
def test_unknown_names_say_which_is_nearest(name: str, wrong: str, meant: str) -> None:
    with pytest.raises(UserError) as error:
        parse(name)
    message = str(error.value)
    assert wrong in message
    assert f"did you mean {meant}?" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "name", ["", "+", "once+", "+tv", "once+tv+clip", "xyzzy", "once tv", "vaco+clip", "once+vaco"]
)
def test_malformed_names_are_users_errors(name: str) -> None:
    with pytest.raises(UserError, match=r"there is no (algorithm|alignment|filter)"):
        parse(name)


@pytest.fixture
def new_filter() -> Iterator[str]:
    name = "flipped_for_this_test"
    before = set(FILTERS)

    @register(name, "c = −ρA")
    def flipped(x: Samples, settings: FilterSettings = DEFAULTS) -> Filtered:
        coefficient = -x.ratio * x.advantages
        nothing = coefficient.new_full((), float("nan"))
        return Filtered(coefficient, torch.ones_like(coefficient, dtype=torch.bool), nothing, nothing > 0)

    yield name
    del FILTERS[name]
    assert set(FILTERS) == before


def test_a_registered_filter_is_an_algorithm_at_once(new_filter: str) -> None:
    """Adding a filter is one function: parse and describe know it, and nothing else changes."""
    for align in ALIGNMENTS:
        row = parse(f"{align}+{new_filter}")
        x = Samples(ratio=torch.tensor([2.0]), learner_ratio=torch.ones(1), advantages=torch.tensor([3.0]))
        assert row.filter.function(x, DEFAULTS).coefficient.tolist() == [-6.0]
    assert new_filter in describe()
    assert "c = −ρA" in describe()


def test_the_registered_filter_is_gone_afterwards() -> None:
    with pytest.raises(UserError):
        parse("none+flipped_for_this_test")


def test_the_table_prints_every_row() -> None:
    lines = describe().splitlines()
    for alias, pair in ROWS.items():
        row = parse(alias)
        assert any(
            line.split()[:3] == [alias, "=", pair] and row.filter.formula in line and row.align.formula in line
            for line in lines
        ), f"no line for {alias}"
    entries = (
        {row.name: row.formula for row in ALIGNMENTS.values()},
        {row.name: row.formula for row in FILTERS.values()},
    )
    for name, formula in (*entries[0].items(), *entries[1].items()):
        assert any(line.split()[:1] == [name] and formula in line for line in lines)
    assert describe().endswith("\n")
