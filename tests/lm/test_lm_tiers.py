from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from vaco.cli import run as cli
from vaco.errors import UserError
from vaco.lm.config import build_lm
from vaco.lm.tiers import LMRun, LMTier, load_lm_tier, main
from vaco.runs.config import parse_assignment

CONFIG = Path(__file__).parents[2] / "config"
SMALL = {
    "tier": "lm_t",
    "description": "t",
    "algorithms": ["ppo", "vaco"],
    "minibatches": [1, 2],
    "lags": [1],
    "seeds": [0, 1],
    "training": {"updates": 4, "prompts": 2, "samples": 2, "eval_points": 2, "warm_target": 0},
    "studies": {"old": {"lags": [1, 3], "algorithms": ["vaco"], "minibatches": [2]}},
}


def written(folder: Path, **changes: object) -> Path:
    path = folder / "lm_t.yaml"
    path.write_text(yaml.safe_dump(SMALL | changes))
    return path


def cell(tier: LMTier, words: str) -> LMRun:
    (found,) = [run for run in tier.runs if run.cell == words]
    return found


@pytest.mark.parametrize("name", ["lm_smoke", "lm_desk", "lm_paper"])
def test_the_tiers_of_the_repository_load(name: str) -> None:
    tier = load_lm_tier(CONFIG / f"{name}.yaml")
    assert tier.name == name and len({run.config.run_id for run in tier.runs}) == len(tier.runs)
    needed = {"ppo", "vaco"} | ({"decoupled", "a3po", "cispo"} if name != "lm_smoke" else set())
    assert needed <= {run.config.algorithm for run in tier.runs if "main" in run.grids}
    assert len({run.config.warm_hash for run in tier.runs}) == 1


def test_the_documented_numbers_of_runs_are_true() -> None:
    rows = re.findall(r"^\| `(lm_\w+)` \|.*\| (\d+) \|$", (CONFIG / "README.md").read_text(), re.MULTILINE)
    assert {name for name, _ in rows} == {path.stem for path in CONFIG.glob("lm_*.yaml")}
    for name, count in rows:
        assert len(load_lm_tier(CONFIG / f"{name}.yaml").runs) == int(count), name


def test_lm_desk_has_the_grid_that_figure_5_needs() -> None:
    main_grid = load_lm_tier(CONFIG / "lm_desk.yaml").grids["main"]
    assert {1, 4, 16, 64} <= set(main_grid["minibatches"]) and len(main_grid["seeds"]) >= 3


def test_runs_are_a_product_each_once_seed_by_seed(tmp_path: Path) -> None:
    tier = load_lm_tier(written(tmp_path))
    cells = [(r.config.algorithm, r.config.minibatches, r.config.lag, r.config.seed) for r in tier.runs]
    assert len(cells) == len(set(cells)) == 2 * (2 * 2 + 1)
    assert [seed for *_, seed in cells] == [0] * 4 + [1] * 4 + [0, 1]  # the main grid first
    shared = cell(tier, "vaco/lag1/n2/seed0")
    assert shared.grids == ("main", "old")
    assert shared.config.place == f"chain_sum/{shared.config.parsed.row}/lag1/n2/seed0/{shared.config.run_id}"


def test_the_command_makes_the_run_that_was_planned(tmp_path: Path) -> None:
    """Of words that no tier and no alias are part of."""
    for run in load_lm_tier(written(tmp_path)).runs:
        assert run.command[:3] == ["vaco", "lm", "train"] and set(run.command[3::2]) == {"--set"}
        assert build_lm(dict(map(parse_assignment, run.command[4::2]))).run_id == run.config.run_id
        assert not any("lm_t" in word for word in run.command)


def test_a_variant_is_an_algorithm_with_settings_of_its_own(tmp_path: Path) -> None:
    variants = {"vaco-delta0.1": {"algorithm": "vaco", "training": {"delta": 0.1}}}
    tier = load_lm_tier(written(tmp_path, algorithms=["vaco", "vaco-delta0.1"], variants=variants))
    run, plain = cell(tier, "vaco-delta0.1/lag1/n2/seed0"), cell(tier, "vaco/lag1/n2/seed0")
    assert (run.config.algorithm, run.config.delta, plain.config.delta) == ("vaco", 0.1, 0.2)
    assert run.config.hash != plain.config.hash
    added = [word for word in run.command if word not in plain.command]
    assert added == ["delta=0.1"] and len(run.command) == len(plain.command) + 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"minibatches": [3]}, "does not divide the 4 updates"),
        ({"algorithms": ["vacoo"]}, "did you mean 'vaco'"),
        ({"training": {"learning_rat": 1}}, "did you mean 'learning_rate'"),
        ({"training": {"seed": 1}}, "write it as a key of the tier"),
        ({"seed": [0]}, "did you mean 'seeds'"),
        ({"studies": {"main": {}}}, "may not be called 'main'"),
        ({"training": {"updates": 10**400}}, "updates is a number too large for any run"),
        ({"tier": "lm_other"}, "is named after its file"),
        ({"seeds": []}, "a list of at least 1"),
        ({"variants": {"ppo": {"algorithm": "vaco", "training": {"delta": 0.1}}}}, "is not named after its algorithm"),
        (
            {"variants": {"vaco-v": {"algorithm": "vaco", "training": {"delta": 0.1}}}},
            "no grid lists the variant 'vaco-v'",
        ),
        ({"variants": {"vaco-v": {"algorithm": "vaco", "training": {"dleta": 0.1}}}}, "did you mean 'delta'"),
        ({"variants": {"vaco-v": {"algorithm": "vaco", "training": {"seed": 1}}}}, "write it as a key of the tier"),
        (
            {
                "algorithms": ["ppo", "vaco-v"],
                "variants": {"vaco-v": {"algorithm": "vaco", "training": {"new_tokens": 9}}},
            },
            "changes what the warm start is made of",
        ),
    ],
)
def test_mistakes_in_a_tier_are_one_sentence(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        load_lm_tier(written(tmp_path, **changes))
    assert "\n" not in str(caught.value) and "lm_t.yaml" in str(caught.value)


@pytest.mark.parametrize("value", ["2024-99-99", "!!bool x", "!!timestamp x", "[" * 9999, "[1"])
def test_values_that_yaml_cannot_make_are_one_sentence(value: str, tmp_path: Path) -> None:
    (tmp_path / "lm_t.yaml").write_text(f"tier: {value}\n")
    with pytest.raises(UserError, match="is not valid YAML"):
        load_lm_tier(tmp_path / "lm_t.yaml")


def test_a_key_given_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_text(path.read_text() + "lags: [2]\n")
    with pytest.raises(UserError, match=r"lm_t\.yaml: the key 'lags' is given twice, in lines \d+ and \d+: keep one"):
        load_lm_tier(path)


def test_the_plan_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(written(tmp_path))]) == 0
    assert capsys.readouterr().out.count("\n") == 1
    with pytest.raises(UserError, match="there is no language-model tier"):
        main([str(tmp_path / "lm_none.yaml")])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lm"], "vaco"),
        (["lm", "train", "--out", "x", "--algorithm", "pppo"], "did you mean 'ppo'"),
        (["lm", "train", "--out", "x", "--minibatches", "7"], "does not divide"),
        (["lm", "train", "--out", "x", "--checkpoint-seconds", "nan"], "must lie between 0 and 300"),
        (["lm", "train", "--out", "x", "--tier", "lm_dusk"], "there is no language-model tier"),
        (["lm", "train", "--out", "x", "--task", "chain_sums", "--set", "warm_target=0"], "chain_sum"),
        (["lm", "train", "--out", "x", "--set", "task_options={max_term: 3}", "--set", "warm_target=0"], "max_term"),
        (["lm", "train", "--out", "x", "--set", "task=2024-99-99"], "YAML cannot read"),
        (["lm", "train", "--out", "x", "--set", "task=!!bool x"], "YAML cannot read"),
        (["lm", "train", "--out", "x", "--set", "task=!!timestamp x"], "YAML cannot read"),
        (["lm", "train", "--out", "x", "--set", f"updates={'9' * 400}"], "too large"),
        (["lm", "warm", "--out", "x", "--set", "warm_target=0"], "nothing to make"),
        (["lm", "sample", "--run", "a", "--warm-start", "b"], "give one of them"),
        (["lm", "evaluate", "--problems", "0"], "at least 1"),
        (["lm", "sample", "--run", "nowhere"], "nowhere"),
    ],
)
def test_bad_commands_end_with_one_sentence(
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli(arguments) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and not (tmp_path / "x").exists()
