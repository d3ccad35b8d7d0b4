"""Labels that say a trust region's centre, and runs that were made before a setting existed."""

from __future__ import annotations

import pyarrow as pa
import pytest

from vaco.archive import Entry
from vaco.errors import UserError
from vaco.report.tables import hyperparameters
from vaco.report.tables.methods import LOOKS, PAIRS, centred_label, look
from vaco.report.tables.plan import Cell
from vaco.report.tables.runs import Run, configurations


def run(seed: int, **config: object) -> Run:
    entry = Entry(f"{seed:016x}-v1", {"config": config}, lambda name: pa.table({}))
    return Run(Cell("Hopper-v5", "vaco", 4, seed), entry, "vaco")


def test_runs_of_before_a_setting_existed_agree_with_later_ones() -> None:
    old, new = run(0, delta=0.2), run(1, delta=0.2, ratio_cap=0.0)
    assert configurations([old, new]) == configurations([new, old]) == {"vaco": {"delta": 0.2, "ratio_cap": 0.0}}
    with pytest.raises(UserError, match=r"runs of 'vaco' differ in ratio_cap: 0\.0 in"):
        configurations([old, new, run(2, delta=0.2, ratio_cap=2.0)])


def test_a_setting_that_did_not_exist_yet_is_no_exception() -> None:
    methods = {name: {"algorithm": name, "settings": {}} for name in ("ppo", "spo", "impala")}
    configs: dict[str, dict[str, object]] = {"ppo": {}, "spo": {"ratio_cap": 0.0}, "impala": {}}
    assert hyperparameters.rows(configs, methods, {"ratio_cap": "C"}) == [("ratio_cap", "C", "0", "")]


def test_every_method_of_the_comparison_has_a_look_of_its_own() -> None:
    looks = [*LOOKS.values(), *PAIRS.values()]
    for attribute in ("colour", "marker", "dashes", "label"):
        assert len({getattr(one, attribute) for one in looks}) == len(looks), attribute
    assert all(look(pair) is known for pair, known in PAIRS.items())


def test_labels_say_what_the_trust_region_is_centred_on() -> None:
    methods = {"vaco-delta0.4": {"algorithm": "vaco", "settings": {"delta": 0.4}}}
    methods |= {"beta-delta0.4": {"algorithm": "once+tv_total", "settings": {"delta": 0.4}}}
    wanted = {
        "vaco": "VACO (π_T)", "once+tv_total": "VACO (β)", "ppo": "PPO (β)", "none+proximal_clip": "PPO (π_T)",
        "vaco-delta0.4": "VACO (π_T) δ = 0.4", "beta-delta0.4": "VACO (β) δ = 0.4", "impala": "IMPALA",
        "geppo": "Centred clip by age (π_T)", "continuous+tv": "continuous + tv",
    }  # fmt: skip
    assert {name: centred_label(name, methods) for name in wanted} == wanted
    every = [centred_label(name) for name in (*LOOKS, *PAIRS)]
    assert len(set(every)) == len(every)
