"""The page on clusters shows the script that is tested, and commands that exist."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import yaml

from vaco.cli import build_parser

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "paper/book/cluster.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_script_is_the_one_in_the_repository() -> None:
    script = (ROOT / "scripts/slurm-array.sh").read_text().splitlines()
    lines = [line for line in script if line.startswith("#SBATCH") or not line.startswith("#")]
    assert "\n".join(lines) + "\n" == next(block for block in blocks("bash") if "#SBATCH" in block)


def test_what_it_calls_can_be_called() -> None:
    """Every flag of every `vaco COMMAND` on the page is one of that command."""
    (action,) = (one for one in build_parser()._actions if isinstance(one, argparse._SubParsersAction))
    calls = re.findall(r"vaco (plan|status) ([^\n`|>]*)", PAGE)
    assert len(calls) > 5
    for command, words in calls:
        known = action.choices[command]._option_string_actions
        assert not [flag for flag in re.findall(r"--[a-z-]+", words) if flag not in known], words


def test_the_job_of_kubernetes_is_yaml_with_as_many_shares_as_completions() -> None:
    (text,) = blocks("yaml")
    job = yaml.safe_load(text)
    command = job["spec"]["template"]["spec"]["containers"][0]["command"][2]
    assert f"/{job['spec']['completions']} --run" in command and "JOB_COMPLETION_INDEX + 1" in command
