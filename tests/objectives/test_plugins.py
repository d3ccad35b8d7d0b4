"""Rules of other packages: found by entry point, or by the name of a module; what is wrong with one is one sentence."""

from __future__ import annotations

import importlib
import json
import math
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import vaco
from vaco import cli
from vaco.campaign.tiers import load_tier
from vaco.errors import UserError
from vaco.lm.config import build_lm
from vaco.lm.tiers import load_lm_tier
from vaco.objectives import plugins
from vaco.objectives.align import ALIGNMENTS, gae
from vaco.objectives.filters import FILTERS, register
from vaco.objectives.rules import find_rule
from vaco.objectives.table import describe, parse
from vaco.objectives.tokens import TOKEN_FILTERS, describe_tokens, parse_token_algorithm
from vaco.runs import identity
from vaco.runs.config import build
from vaco.runs.reads import require_read

RULES = """
from dataclasses import dataclass
import torch
from vaco.objectives.align import Aligned, gae, register as register_alignment
from vaco.objectives.filters import Filtered, forward_statistic, register
from vaco.objectives.tokens import token_filter

@dataclass(frozen=True)
class Soft:
    tau: float = 0.5
    steps: int = 3
    way: str = "outward"

    def __post_init__(self):
        if self.tau > 1:
            raise ValueError("tau above 1 adds gradient")

@register("soft", "c = ρA · τ where |ρ−ρ_T| > δ", settings=Soft)
def soft(x, settings):
    far = (x.ratio - x.learner_ratio).abs() > settings.delta
    c = torch.where(far, settings.own.tau, 1.0) * x.ratio * x.advantages
    return Filtered(c, ~far, c.new_tensor(float("nan")), far.any())

@token_filter("aged", "c = ρA / (1+d)", staleness=True)
def aged(x, settings):
    c = x.samples.ratio * x.samples.advantages / (1 + x.staleness)
    return Filtered(c, torch.ones_like(c, dtype=torch.bool), c.new_tensor(float("nan")), c.new_tensor(False).bool())

@dataclass(frozen=True)
class Scale:
    factor: float = 1.0

@register_alignment("scaled", "A: factor · GAE", target=None, settings=Scale)
def scaled(*, own, ratio, rho_bar, c_bar, **given):
    assert ratio is None
    found = gae(**given)
    return Aligned(own.factor * found.advantages, found.value_targets)
"""
POINTS = {
    "vaco.filters": {"soft": "otherpkg.rules:soft", "aged": "otherpkg.rules:aged"},
    "vaco.alignments": {"scaled": "otherpkg.rules:scaled"},
}
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Lays a package with entry points on the search path; all that it registers is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    known = [(table, dict(table)) for table in (FILTERS, TOKEN_FILTERS, ALIGNMENTS)]

    def forget() -> None:
        for cached in (plugins.entry_points, plugins._load, identity._distributions):
            cached.cache_clear()
        for name in [name for name in sys.modules if name.split(".")[0] == "otherpkg"]:
            del sys.modules[name]
        for table, before in known:
            table.clear()  # type: ignore[attr-defined]
            table.update(before)  # type: ignore[attr-defined]

    def lay(rules: str = RULES, points: Any = POINTS, name: str = "otherpkg", version: str = "2.5") -> None:
        (tmp_path / "otherpkg").mkdir(exist_ok=True)
        (tmp_path / "otherpkg/__init__.py").write_text("")
        (tmp_path / "otherpkg/rules.py").write_text(rules)
        for older in tmp_path.glob(f"{name}-*.dist-info"):
            shutil.rmtree(older)
        info = tmp_path / f"{name}-{version}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "top_level.txt").write_text("otherpkg\n")
        listed = [f"[{group}]\n" + "".join(f"{a} = {b}\n" for a, b in each.items()) for group, each in points.items()]
        (info / "entry_points.txt").write_text("\n".join(listed))
        importlib.invalidate_caches()
        forget()

    yield lay
    forget()


def test_a_rule_is_known_everywhere_and_loaded_only_when_asked_for(install: Install) -> None:
    install()
    parse("once+tv"), find_rule("vaco"), parse_token_algorithm("tis"), build({}), build_lm({})
    assert "otherpkg.rules" not in sys.modules
    row = parse("scaled+soft")
    assert row.align is ALIGNMENTS["scaled"] and row.filter is FILTERS["soft"]
    assert not row.align.every_update and row.align.target is None
    assert find_rule("soft").needs_learner and find_rule("aged").needs_staleness
    assert parse_token_algorithm("soft").filter.proximal  # type: ignore[union-attr]
    assert not parse_token_algorithm("soft").filter.alone  # type: ignore[union-attr]
    assert parse_token_algorithm("aged").filter is TOKEN_FILTERS["aged"]
    assert {"filter.delta", "filter.own"} <= parse_token_algorithm("soft").reads


def test_tables_list_it(install: Install) -> None:
    install()
    assert {"soft", "scaled"} <= {line.split()[0] for line in describe().splitlines() if line.strip()}
    install()
    assert {"soft", "aged"} <= {line.split()[0] for line in describe_tokens().splitlines() if line.strip()}
    install()
    assert {"soft", "aged"} <= set(vaco.rules())


def test_the_loss_is_the_rule_with_its_own_settings(install: Install) -> None:
    install()
    generator = torch.Generator().manual_seed(0)
    old, learner, advantages = (torch.randn(40, generator=generator, dtype=torch.float64) for _ in range(3))
    new = old + 0.4 * torch.randn(40, generator=generator, dtype=torch.float64)
    learner = old + 0.1 * learner
    for tau in (None, 0.125):
        logp = new.clone().requires_grad_()
        given = {"delta": 0.3} | ({} if tau is None else {"filter.tau": tau})
        loss, _ = vaco.policy_loss(
            logp, behaviour_logp=old, learner_logp=learner, advantages=advantages, rule="soft", settings=given
        )
        (gradient,) = torch.autograd.grad(loss, logp)
        for i in range(40):
            ratio, reference = math.exp(new[i] - old[i]), math.exp(learner[i] - old[i])
            share = (0.5 if tau is None else tau) if abs(ratio - reference) > 0.3 else 1.0
            assert gradient[i].item() == pytest.approx(-share * ratio * advantages[i].item() / 40)


def test_the_alignment_is_the_function_with_its_own_settings(install: Install) -> None:
    install()
    generator = torch.Generator().manual_seed(0)
    names = ("rewards", "values", "next_values")
    given: dict[str, Any] = {name: torch.randn(3, 5, generator=generator) for name in names}
    given["terminated"] = torch.rand(3, 5, generator=generator) < 0.2
    found = vaco.align(**given, alignment="scaled", settings={"factor": 3.0}, time_axis=1)
    flipped = {name: x.T for name, x in given.items()}
    plain = gae(**flipped, truncated=torch.zeros(5, 3, dtype=torch.bool), discount=0.99, trace_decay=0.95)
    assert torch.allclose(found.advantages, 3.0 * plain.advantages.T)
    with pytest.raises(UserError, match="the alignment 'scaled' has no setting 'fator': did you mean 'factor'"):
        vaco.align(**given, alignment="scaled", settings={"fator": 3.0})
    with pytest.raises(UserError, match="the alignment 'none' has no settings of its own, but factor was given"):
        vaco.align(**given, alignment="none", settings={"factor": 3.0})


def test_a_run_is_told_from_others_by_settings_version_and_source(install: Install) -> None:
    def run(**settings: Any) -> str:
        return build({"algorithm": "scaled+soft", **settings}).hash

    def language(**settings: Any) -> str:
        return build_lm({"algorithm": "soft", **settings}).hash

    install()
    plain, other = run(), language()
    assert run(**{"filter.tau": 0.5}) == run(filter_options="{tau: 0.5}") == run(filter={"tau": 0.5}) == plain
    assert language(**{"filter.tau": 0.5}) == other
    changed = {run(**{"filter.tau": 0.25}), run(**{"filter.steps": 4}), run(**{"align.factor": 2}), plain}
    assert len(changed) == 4 and language(**{"filter.tau": 0.25}) != other
    same = {run(**{"filter.tau": 0.25, "filter.steps": 4}), run(filter_options='{"steps": 4, "tau": 0.25}')}
    assert len(same) == 1 and not same & changed
    install(RULES.replace("factor · GAE", "f · GAE"))
    edited = run()
    assert edited != plain
    install(version="2.6")
    assert run() not in (plain, edited)
    install()
    assert run() == plain and build({"algorithm": "vaco"}).hash == build({}).hash


def test_tiers_know_it(install: Install, tmp_path: Path) -> None:
    install()
    path = tmp_path / "mine.yaml"
    path.write_text(
        "tier: mine\ndescription: A.\nenvironments: [Hopper-v5]\nalgorithms: [scaled+soft, gentle]\ncapacities: [1]\n"
        "seeds: [0]\nsteps: 4096\nevaluation: {points: 1, episodes: 1}\nreference: {episodes: 2, seed: 0}\n"
        "variants: {gentle: {algorithm: scaled+soft, training: {filter.tau: 0.25}}}\n"
    )
    by_name = {run.name: run for run in load_tier(path).runs()}
    assert by_name["gentle"].config.filter_own.tau == 0.25 and by_name["scaled+soft"].config.filter_own.tau == 0.5
    assert by_name["gentle"].command[-2:] == ["--set", 'filter_options="{\\"tau\\": 0.25}"']
    path = tmp_path / "lm_mine.yaml"
    path.write_text(
        "tier: lm_mine\ndescription: A.\nalgorithms: [soft, ppo]\nminibatches: [1]\nlags: [1]\nseeds: [0]\n"
        "training: {updates: 8, filter.tau: 0.25}\n"
    )
    language = {run.name: run for run in load_lm_tier(path).runs}
    assert language["soft"].config.filter_own.tau == 0.25 and language["ppo"].config.filter_options == "{}"
    path.write_text(path.read_text().replace("[soft, ppo]", "[ppo]"))
    with pytest.raises(UserError, match=r"no run reads filter.tau, since the algorithm 'ppo' has no settings of its"):
        load_lm_tier(path)


def test_a_module_is_imported_by_name(install: Install, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(points={})
    with pytest.raises(UserError, match="--import"):
        parse("once+soft")
    flags = ["--algorithm", "scaled+soft", "--env", "InvertedPendulum-v5", "--steps", "2048", "--quiet"]
    flags += ["--set", "filter.tau=0.25", "--eval-points", "1", "--eval-episodes", "1", "--out", str(tmp_path / "run")]
    assert cli.run(["train", "--import", "otherpkg.rules", *flags]) == 0, capsys.readouterr().err
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert [rule["name"].rpartition(".")[2] for rule in manifest["rules"]] == ["soft", "Soft", "scaled", "Scale"]
    assert manifest["config"]["filter_options"] == '{"tau": 0.25}'
    assert cli.run(["--import", "otherpkg.rules", "lm", "algorithms"]) == 0 and "soft" in capsys.readouterr().out


BROKEN = {
    "no module": ({"soft": "otherpkg.rulez:soft"}, RULES, "there is no module otherpkg.rulez: install it"),
    "a missing import": ({"soft": "otherpkg.rules:soft"}, "import nonesuch", "needs nonesuch, which is not installed"),
    "a broken module": ({"soft": "otherpkg.rules:soft"}, "1 / 0", "fails with ZeroDivisionError"),
    "no such object": ({"soft": "otherpkg.rules:sift"}, RULES, "is no filter of that name: decorate it"),
    "another's name": ({"other": "otherpkg.rules:soft"}, RULES, "is no filter of that name: decorate it"),
    "a plain function": ({"soft": "otherpkg.rules:soft"}, "def soft(x, s): ...", "is no filter of that name"),
    "a wrong type": (
        {"soft": "otherpkg.rules:soft"},
        "from vaco.objectives.filters import register\n@register('soft', 'c')\ndef soft(x, s): return x.ratio",
        "returns Tensor, but it must return vaco.objectives.filters.Filtered",
    ),
    "a wrong shape": (
        {"soft": "otherpkg.rules:soft"},
        RULES.replace("Filtered(c, ~far", "Filtered(c[:1], ~far"),
        "returns as 'coefficient' no tensor of the shape of the ratios",
    ),
    "no flags": (
        {"soft": "otherpkg.rules:soft"},
        RULES.replace("~far", "1.0 * far"),
        "'kept' a tensor that is not bool",
    ),
    "a failing rule": (
        {"soft": "otherpkg.rules:soft"},
        RULES.replace("settings.own.tau", "settings.own.tua"),
        "fails on a batch of four samples with AttributeError",
    ),
    "too few arguments": (
        {"soft": "otherpkg.rules:soft"},
        "from vaco.objectives.filters import register\n@register('soft', 'c')\ndef soft(x): return x",
        "fails on a batch of four samples with TypeError",
    ),
    "open settings": (
        {"soft": "otherpkg.rules:soft"},
        RULES.replace("@dataclass(frozen=True)\nclass Soft", "@dataclass\nclass Soft"),
        "must be a frozen dataclass",
    ),
    "settings without defaults": (
        {"soft": "otherpkg.rules:soft"},
        RULES.replace("tau: float = 0.5", "tau: float"),
        "defaults, but 'tau' has none such",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_rule_is_one_sentence(what: str, install: Install) -> None:
    points, rules, message = BROKEN[what]
    install(rules, {"vaco.filters": points})
    name = next(iter(points))
    with pytest.raises(UserError, match=message) as caught:
        find_rule(name)
    assert "\n" not in str(caught.value) and str(caught.value)[-1] != "."
    assert cli.run(["algorithms"]) == 2


def test_a_broken_alignment_is_one_sentence(install: Install) -> None:
    install(RULES.replace("Aligned(own.factor * found.advantages", "(own.factor * found.advantages"))
    with pytest.raises(UserError, match=r"the alignment 'scaled' of otherpkg.rules does not return"):
        parse("scaled+tv")
    install(RULES.replace("**given):", "given):"))
    with pytest.raises(UserError, match=r"'scaled' of otherpkg.rules fails on a batch of four samples with TypeError"):
        parse("scaled+tv")


@pytest.mark.parametrize("name", ["clip", "vaco", "cispo", "tba"])
def test_a_name_in_use_is_refused(name: str, install: Install) -> None:
    rules = RULES.replace('"soft"', f'"{name}"')
    install(rules, {"vaco.filters": {name: "otherpkg.rules:soft"}})
    own = find_rule(name) if name != "tba" else None  # this package's own, whatever is installed
    with pytest.raises(UserError, match=f"'{name}' of the package otherpkg 2.5 has the name of a filter that vaco has"):
        vaco.rules()
    assert own is None or own.function.__module__.startswith("vaco.")
    with pytest.raises(UserError, match=r"give (it|yours) another name"):
        plugins.import_rules("otherpkg.rules")


def test_two_packages_with_one_name_are_refused(install: Install) -> None:
    install()
    install(points={"vaco.filters": {"soft": "otherpkg.others:soft"}}, name="third")
    with pytest.raises(UserError, match=r"both offer 'soft' in vaco.filters: remove one"):
        find_rule("soft")


@pytest.mark.parametrize("name", ["Soft", "so+ft", "", "../x", "9x"])
def test_a_name_that_is_no_word_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="may not be called"):
        register(name, "c = ρA")
    assert name not in FILTERS


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"filter.tua": 1}, "the filter 'soft' has no setting 'tua': did you mean 'tau'"),
        ({"filter.tau": "much"}, "the setting 'tau' of the filter 'soft' is 'much', but it must be a finite number"),
        ({"filter.tau": True}, "is True, but it must be a finite number"),
        ({"filter.steps": 1.5}, "is 1.5, but it must be a whole number such as 3"),
        ({"filter.way": 1}, "is 1, but it must be a word such as 'outward'"),
        ({"filter.tau": 1.5}, "the filter 'soft' refuses its settings: tau above 1 adds gradient"),
        ({"filter_options": "3"}, "filter_options is '3', but it must be a mapping"),
    ],
)
def test_a_setting_that_is_wrong_is_one_sentence(given: dict[str, Any], message: str, install: Install) -> None:
    install()
    for make in (lambda: build({"algorithm": "once+soft", **given}), lambda: build_lm({"algorithm": "soft", **given})):
        with pytest.raises(UserError, match=message) as caught:
            make()
        assert "\n" not in str(caught.value)
    if "filter_options" not in given:
        x = torch.zeros(3)
        with pytest.raises(UserError, match=message.replace("the filter 'soft'", "the rule 'soft'")):
            vaco.policy_loss(x, behaviour_logp=x, learner_logp=x, advantages=x, rule="soft", settings=given)


def test_a_setting_of_a_rule_that_has_none_is_refused() -> None:
    with pytest.raises(UserError, match=r"filter_options is .*, but 'vaco' does not read it: leave it out"):
        require_read(build({"filter.tau": 1}))
    x = torch.zeros(3)
    with pytest.raises(UserError, match="the rule 'clip' has no settings of its own, but tau was given"):
        vaco.policy_loss(x, behaviour_logp=x, advantages=x, rule="ppo", settings={"filter.tau": 1})


def test_a_module_without_rules_is_refused() -> None:
    with pytest.raises(UserError, match=r"the module json registers no filter and no alignment"):
        plugins.import_rules("json")
    with pytest.raises(UserError, match=r"there is no module nonesuch\.rules"):
        plugins.import_rules("nonesuch.rules")
