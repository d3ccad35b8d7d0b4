"""The suite must recognise right losses and name what is wrong with others."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import vaco
from vaco import cli
from vaco.conformance import Batch, assert_matches, closest, compare, hard_batches, matrix, robustness
from vaco.conformance.libraries import Entry
from vaco.errors import UserError
from vaco.objectives.rules import as_settings, rules

OWN = sorted({rule.name for rule in rules().values()})


def ppo(logp: Tensor, x: Batch, low: float = 0.2, high: float = 0.2, dual: float = math.inf) -> Tensor:
    """PPO's clip, as textbooks write it."""
    ratio = (logp - x.behaviour_logp).exp()
    gain = torch.min(ratio * x.advantages, ratio.clamp(1 - low, 1 + high) * x.advantages)
    gain = torch.where(x.advantages < 0, torch.max(gain, dual * x.advantages), gain) if dual < math.inf else gain
    return -(torch.where(x.mask, gain, 0.0)).sum() / x.mask.sum()


SETTINGS = {"clip_high": 0.28}  # at equal ε the clip with two sides is PPO's


def row(logp: Tensor, x: Batch, rule: str) -> Tensor:
    others = {"learner_logp": x.learner_logp, "staleness": x.staleness, "mask": x.mask, "advantages": x.advantages}
    return vaco.policy_loss(logp, behaviour_logp=x.behaviour_logp, rule=rule, settings=SETTINGS, **others)[0]


@pytest.mark.parametrize("name", OWN)
def test_every_row_is_told_from_every_other(name: str) -> None:
    """The batches must be hard enough; rows that are one at these settings are named here."""
    same = [
        {"centred_clip", "centred_clip_fixed", "centred_clip_lag"},  # with mean age and backward lag 0
        {"tvpo", "tvpo_prompt"},  # with one prompt, and a budget that every batch exceeds or none
    ]
    equal = {report.rule for report in closest(lambda logp, x: row(logp, x, name), SETTINGS) if report.equal}
    assert equal == next((group for group in same if name in group), {name})


def test_a_loss_of_ones_own() -> None:
    assert_matches(ppo, "ppo")
    assert_matches(lambda logp, x: ppo(logp, x, 0.1, 0.1), "ppo", {"clip": 0.1})
    assert_matches(lambda logp, x: ppo(logp, x) * x.mask.sum(), "ppo", denominator="sum")


@pytest.mark.parametrize(
    ("wrong", "batch"),
    [
        (lambda logp, x: ppo(logp, x, 0.2, 0.25), None),
        (lambda logp, x: ppo(logp, x, 0.2, 0.2013), None),
        (lambda logp, x: ppo(logp, x, 0.2009, 0.2), None),
        (lambda logp, x: ppo(logp, x, dual=3.0), None),
        (lambda logp, x: ppo(logp, x._replace(behaviour_logp=x.learner_logp)), None),
        (lambda logp, x: ppo(logp, x._replace(mask=torch.ones_like(x.mask))), "padding"),
        (lambda logp, x: 2 * ppo(logp, x), "the first step, ρ = 1"),
        (lambda logp, x: -ppo(logp, x), "the first step, ρ = 1"),
    ],
)
def test_a_wrong_loss_is_found(wrong: object, batch: str | None) -> None:
    report = compare(wrong, "ppo")  # type: ignore[arg-type]
    assert 0 < report.share < 1 and report.first is not None
    assert batch is None or report.first.batch == batch, report
    with pytest.raises(AssertionError, match=r"differs from 'ppo' on .* % of .* samples, first in the batch"):
        assert_matches(wrong, "ppo")  # type: ignore[arg-type]


def test_the_first_difference_can_be_worked_out_by_hand() -> None:
    report = compare(lambda logp, x: ppo(logp, x, dual=3.0), "ppo")
    x = report.first
    assert x is not None and x.ratio > 3 and x.advantage < 0
    assert x.theirs == 0 and x.row == pytest.approx(x.ratio * x.advantage, rel=1e-4)


def test_batches_hold_what_they_promise() -> None:
    found = hard_batches(as_settings(None))
    assert all(bool(torch.stack(x[1:5]).isfinite().all()) for x in found)
    assert all(bool((t <= 0).all()) for x in found for t in (x.logp, x.behaviour_logp, x.learner_logp))
    assert any(bool((x.staleness == 0).any()) for x in found) and any(not x.mask.all() for x in found)
    assert all(bool((x.advantages == 0).any()) for x in found)
    (beside,) = (x for x in found if x.name == "beside ρ = 1.2")
    ratio = (beside.logp - beside.behaviour_logp).exp()
    assert bool((ratio < 1.2).any()) and bool((ratio > 1.2).any())


def test_robustness() -> None:
    ours = robustness(lambda logp, x: row(logp, x, "vaco"))
    assert ours == {
        "NaN sample": "finite",
        "NaN padding": "finite",
        "log-ratio 200": "finite",
        "empty mask": "UserError",
    }
    theirs = robustness(ppo)
    assert theirs["NaN sample"] == theirs["log-ratio 200"] == theirs["empty mask"] == "not finite"


def test_a_matrix_says_what_is_missing_and_fills_a_page(tmp_path: Path) -> None:
    right = Entry("torch", "clip: 0.2", lambda: ppo, padded=True, learner=False)
    dual = Entry("torch", "clip: 0.2, dual", lambda: lambda logp, x: ppo(logp, x, dual=2.5), {"filter.cap": 2.5})
    wrong = Entry("torch", "clip: 0.2, 0.25", lambda: lambda logp, x: ppo(logp, x, 0.2, 0.25))
    broken = Entry("torch", "gone", lambda: torch.no_such_loss)
    absent = Entry("no-such-package", "x", lambda: ppo)
    rows = matrix.matrix([right, wrong, broken, absent, dual])
    assert (
        rows[0]["equal"] == ["clip"]
        and str(rows[0]["version"]).partition("+")[0] == torch.__version__.partition("+")[0]
    )
    assert rows[1]["equal"] == [] and rows[1]["nearest"]["rule"] == "clip"
    assert "no_such_loss" in rows[2]["skipped"] and rows[3]["skipped"] == "not installed"
    assert rows[4]["equal"] == ["dual_clip"]
    page = tmp_path / "page.md"
    page.write_text(f"before\n{matrix.BEGIN}\nold\n{matrix.END}\nafter\n")
    matrix.into_page(page, rows)
    text = page.read_text()
    assert text.startswith("before") and text.endswith("after\n") and "old" not in text and "`ppo` (clip)" in text
    with pytest.raises(UserError, match="lacks the lines"):
        matrix.into_page(tmp_path / "none.md", rows)
    matrix.write(tmp_path / "m.json", rows)
    assert json.loads((tmp_path / "m.json").read_text()) == rows


LOSS = """
def right(logp, x):
    ratio = (logp - x.behaviour_logp).exp()
    gain = (ratio * x.advantages).minimum(ratio.clamp(0.8, 1.2) * x.advantages)
    return -(gain * x.mask).sum() / x.mask.sum()

def failing(logp, x):
    return logp.sum() / x.nothing

def another(logp, behaviour_logp, advantages):
    return logp.sum()

def of_nothing(logp, x):
    return logp.new_zeros((), requires_grad=True) * 1

number = 3
"""


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "losses_of_mine.py").write_text(LOSS)
    (tmp_path / "unfinished_losses.py").write_text("def right(:\n")
    (tmp_path / "needy_losses.py").write_text("import no_such_module_here\n")
    (tmp_path / "older_losses.py").write_text("import math\n\nright = math.no_such_thing\n")
    monkeypatch.chdir(tmp_path)
    assert cli.run(["conformance", "--loss", "losses_of_mine:right", "--rule", "ppo"]) == 0
    assert capsys.readouterr().out.startswith("equal to 'ppo'")
    assert cli.run(["conformance", "--loss", "losses_of_mine:right"]) == 0
    assert capsys.readouterr().out.startswith("equal to 'clip'")
    with pytest.raises(SystemExit) as stopped:
        cli.run(["conformance", "--loss", "losses_of_mine:right", "--rule", "ppo", "--set", "clip=0.3"])
    assert stopped.value.code == 1
    capsys.readouterr()
    for options, message in (
        ([], "give either --loss"),
        (["--loss", "losses_of_mine"], "is MODULE:FUNCTION"),
        (["--loss", "losses_of_mine:wrong"], "has no function 'wrong'"),
        (["--loss", "losses_of_mine:number"], "has no function 'number'"),
        (["--loss", "no_such_module_here:f"], "there is no module"),
        (["--loss", "unfinished_losses:right"], "'unfinished_losses' cannot be imported (SyntaxError: invalid syntax"),
        (["--loss", "needy_losses:right"], "cannot be imported (ModuleNotFoundError: No module named 'no_such_module"),
        (["--loss", "older_losses:right"], "cannot be imported (AttributeError: module 'math' has no attribute"),
        (["--loss", "losses_of_mine:failing"], "fails on the batch 'the first step, ρ = 1' (AttributeError: "),
        (["--loss", "losses_of_mine:another", "--rule", "ppo"], "(TypeError: another() missing 1 required positional"),
        (["--loss", "losses_of_mine:of_nothing", "--rule", "ppo"], "and returns a 0-d tensor that depends on log π"),
        (["--loss", "losses_of_mine:right", "--set", "clip"], "NAME=NUMBER"),
        (["--loss", "losses_of_mine:right", "--rule", "poo"], "there is no rule 'poo'"),
        (["--libraries", "nothing"], "there is no entry for nothing"),
    ):
        assert cli.run(["conformance", *options]) == 2
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1


def test_the_published_matrix_covers_eight_libraries() -> None:
    """What stands in the repository: real versions, and the page made of it."""
    root = Path(__file__).parents[2]
    rows = json.loads((root / "results/conformance/matrix.json").read_text("utf-8"))
    examined = [row for row in rows if "skipped" not in row]
    assert len({row["package"] for row in examined}) >= 8
    assert matrix.markdown(rows) in (root / "results/conformance/matrix.md").read_text("utf-8")
