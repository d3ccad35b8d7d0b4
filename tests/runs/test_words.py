"""The field's words are answered with the name that a setting has here, wherever settings are written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vaco import cli
from vaco.campaign.tier_file import TierFile
from vaco.campaign.tiers import load_tier
from vaco.errors import UserError
from vaco.lm.config import LM_SETTINGS, build_lm
from vaco.lm.tiers import LMTierFile, load_lm_tier
from vaco.runs import words
from vaco.runs.config import SETTINGS, build

ROOT = Path(__file__).parents[2]
KNOWN = {*SETTINGS, *LM_SETTINGS, *TierFile.model_fields, *LMTierFile.model_fields}
PAIRS = [(word, name) for name, listed in words.CALLED.items() for word in listed.split()]


@pytest.mark.parametrize(
    ("word", "name"),
    {
        "lr": "learning_rate",
        "gamma": "discount",
        "gae_lambda": "trace_decay",
        "num_steps": "phase_steps",
        "n_steps": "phase_steps",
        "n_envs": "num_envs",
        "clip_coef": "clip",
        "ent_coef": "entropy_coefficient",
        "vf_coef": "value_coefficient",
        "target_kl": "kl_target",
        "total_timesteps": "steps",
        "minibatch_size": "minibatch",
        "update_epochs": "epochs",
        "anneal_lr": "learning_rate_decay",
        "normalize_observations": "normalise_observations",
    }.items(),
)
def test_a_word_of_the_field_is_answered_with_the_name_and_its_meaning(word: str, name: str) -> None:
    meaning = re.escape(str(SETTINGS[name].description))
    with pytest.raises(UserError, match=rf"^there is no setting '{word}': .*'{name}'.*\({meaning}\)$"):
        build({word: 1})


def test_what_has_our_name_already_is_accepted() -> None:
    assert build({"num_envs": 8, "max_grad_norm": 1}).num_envs == 8


def test_every_name_in_the_list_is_one_and_no_word_is() -> None:
    assert set(words.CALLED) <= KNOWN
    for kind in (SETTINGS, LM_SETTINGS):
        for word, name in PAIRS:
            assert word not in kind or name not in kind, f"{word} is a setting beside {name}"
            assert word in kind or words.called(word, kind) in (None, *kind)
    assert len({word for word, _ in PAIRS} & set(words.OTHERWISE)) == len(words.OTHERWISE)


def test_no_word_stands_for_two_settings_of_one_kind() -> None:
    for kind in (SETTINGS, LM_SETTINGS, TierFile.model_fields, LMTierFile.model_fields):
        listed = [word for word, name in PAIRS if name in kind]
        assert len(listed) == len(set(listed))


def test_where_the_meaning_differs_the_answer_says_so() -> None:
    with pytest.raises(UserError, match="no run here ends its passes early, the adaptive penalty's target is"):
        build({"target_kl": 0.01})
    with pytest.raises(UserError, match=r"'value_coefficient' here \(weight of ½\(V − v\)²\)"):
        build({"vf_coef": 0.5})
    with pytest.raises(UserError, match=r"CISPO's cap is 1 \+ 'clip_high' here, in TRL it is epsilon_high itself"):
        build_lm({"epsilon_high": 5.0})


@pytest.mark.parametrize("word", ["LR", "clip-range", "Total-Timesteps"])
def test_case_and_dashes_do_not_matter(word: str) -> None:
    assert words.called(word, SETTINGS) is not None


def test_a_word_that_is_none_of_the_field_s_gets_the_nearest_name() -> None:
    assert words.hint("epoch", SETTINGS) == "did you mean 'epochs'?"


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.run(arguments) == 2
    return capsys.readouterr().err


def test_on_a_command_line_and_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ("--out", str(tmp_path / "run"))
    answer = "it is called 'learning_rate' here (Adam's step size)"
    assert answer in said(capsys, "train", *out, "--set", "lr=1e-3")
    (tmp_path / "run.yaml").write_text("lr: 0.001\n")
    assert answer in said(capsys, "train", *out, "--config", str(tmp_path / "run.yaml"))
    assert "it is called 'samples' here" in said(capsys, "lm", "train", *out, "--set", "num_generations=4")
    assert "--lr is no flag: write --set learning_rate=1e-3" in said(capsys, "train", *out, "--lr", "1e-3")
    assert "--gamma is no flag: write --set discount=0.9" in said(capsys, "train", *out, "--gamma=0.9", "--x", "1")
    assert "--epochs is no flag: write --set epochs=3" in said(capsys, "train", *out, "--epochs", "3")
    assert "write --set new_tokens=VALUE" in said(capsys, "lm", "train", *out, "--max-new-tokens")
    assert "unrecognized arguments: --nonsense" in said(capsys, "train", *out, "--nonsense")
    assert "unrecognized arguments: --lr 1" in said(capsys, "algorithms", "--lr", "1")
    assert not (tmp_path / "run").exists()


def test_in_tiers(tmp_path: Path) -> None:
    text = (ROOT / "config/smoke.yaml").read_text()
    path = tmp_path / "smoke.yaml"
    path.write_text(text + "training: {lr: 0.001}\n")
    with pytest.raises(UserError, match="there is no setting 'lr': it is called 'learning_rate' here"):
        load_tier(path)
    path.write_text(text.replace("\nsteps: ", "\ntotal_timesteps: "))
    with pytest.raises(UserError, match="unknown key 'total_timesteps' at the top level: it is called 'steps' here"):
        load_tier(path)
    language = tmp_path / "lm_smoke.yaml"
    text = (ROOT / "config/lm_smoke.yaml").read_text()
    language.write_text(text.replace("  new_tokens: ", "  max_new_tokens: "))
    with pytest.raises(UserError, match="there is no setting 'max_new_tokens': it is called 'new_tokens' here"):
        load_lm_tier(language)


@pytest.mark.parametrize(("text", "number"), [("2048", 2048), ("1e6", 10**6), ("1_000", 1000), ("2.0", 2), ("-1", -1)])
def test_whole_numbers_as_people_write_them(text: str, number: int) -> None:
    parser = cli.build_parser()
    assert parser.parse_args(["train", "--out", "x", f"--steps={text}"]).steps == number
    assert parser.parse_args(["lm", "train", "--out", "x", f"--updates={text}"]).updates == number


@pytest.mark.parametrize("text", ["1.5", "many", "inf", "nan", "1e999", ""])
def test_other_numbers_are_refused_with_one_sentence(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"argument --steps: '{text}' is no whole number" in said(capsys, "train", "--out", "x", f"--steps={text}")
