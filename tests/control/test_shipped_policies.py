"""The policies that the repository ships are read, and do what their README says of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

import vaco
from vaco.control.replay import policy_returns

ROOT = Path(__file__).parents[2]
POLICIES = ROOT / "results/desk/policies"
README = (POLICIES / "README.md").read_text()
STATED = {
    task: (float(sampled.replace(",", "")), float(likeliest.replace(",", "")))
    for task, sampled, likeliest in re.findall(r"\| (\S+-v5) \| ([\d,]+) ± [\d,]+ \| ([\d,]+) ±", README)
}


def test_there_is_one_for_each_task_of_the_desk_tier_and_all_are_small() -> None:
    files = sorted(POLICIES.glob("*.safetensors"))
    assert [file.stem for file in files] == sorted(STATED) == ["HalfCheetah-v5", "Hopper-v5", "Walker2d-v5"]
    assert sum(file.stat().st_size for file in files) < 200_000
    for task in STATED:
        assert f"vaco train --env {task} --algorithm vaco --lag 4 --seed 0 --steps 1000000" in README


@pytest.mark.parametrize("task", sorted(STATED))
def test_it_does_what_is_stated_of_it(task: str) -> None:
    """Sampled actions; another processor's or MuJoCo's last bits make other episodes, so half of it will do."""
    path = POLICIES / f"{task}.safetensors"
    record = policy_returns(path, 6, seed=1)
    sampled, likeliest = STATED[task]
    assert record["env"] == task == vaco.load(path).spec.name
    assert record["mean"] > sampled / 2 and record["deterministic_mean"] > likeliest / 2


def test_the_filmstrip_shows_them() -> None:
    path = ROOT / "paper/book/_static/policies.png"
    with Image.open(path) as picture:
        assert picture.size == (960, 120 * len(STATED))
    assert path.stat().st_size < 100_000
