"""The comparisons of speed with other libraries: how they count, sum up and call others; none of these is needed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vaco.errors import UserError

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))  # last: its theory.py must not hide the package of that name
import async_peers  # noqa: E402
import peers  # noqa: E402


def test_speeds_leave_the_warm_up_out() -> None:
    times = peers.Times(warm_up=2)
    times.seconds = [(0.0, 0.0), (50.0, 90.0), (60.0, 100.0), (61.0, 104.0), (62.0, 108.0)]
    assert times.speeds(80) == {"steps_per_second": 40.0, "by_the_wall": 10.0}


def script(folder: Path, text: str) -> str:
    path = folder / "worker.py"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_worker_s_last_line_is_its_result(tmp_path: Path) -> None:
    said = script(tmp_path, "import sys, json\nprint('chatter')\nprint(json.dumps(sys.argv[1:]))")
    assert peers.measure(sys.executable, said, "appo", "5") == ["--worker", "appo", "5"]


def test_an_interpreter_is_found_from_where_the_command_was_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").symlink_to(sys.executable)
    monkeypatch.chdir(tmp_path)
    assert peers.interpreter("bin/python") == str(tmp_path / "bin/python")
    assert peers.measure(peers.interpreter("bin/python"), script(tmp_path, "print(3)"), "appo") == 3
    with pytest.raises(UserError, match=r"no interpreter 'bin/other': name .* --help"):
        peers.interpreter("bin/other")


def test_a_worker_that_fails_is_one_sentence(tmp_path: Path) -> None:
    failing = script(tmp_path, "import a_package_that_is_missing")
    with pytest.raises(UserError, match=r"'appo 5' .* code 1 .*a_package_that_is_missing'.*worker.py --help"):
        peers.measure(sys.executable, failing, "appo", "5")


CLEANRL = """
import argparse
from torch.utils.tensorboard import SummaryWriter
parser = argparse.ArgumentParser()
for name in ("gym-id", "num-envs", "num-steps", "n-minibatch", "update-epochs", "total-timesteps"):
    parser.add_argument(f"--{name}")
parser.add_argument("--cuda")
parser.add_argument("--capture-video")
args = parser.parse_args()
assert (args.gym_id, args.n_minibatch, args.cuda) == ("TASK", "4", "False")
writer = SummaryWriter("runs")
for _ in range(int(args.total_timesteps) // (int(args.num_envs) * int(args.num_steps))):
    writer.add_scalar("charts/learning_rate", 1.0, 1)
    writer.add_scalar("losses/value_loss", 1.0, 1)
"""


@pytest.mark.parametrize(("task", "name"), [("CartPole-v1", "ppo"), ("Pendulum-v1", "ppo_continuous_action")])
def test_cleanrl_s_script_is_called_with_our_settings_and_watched(
    task: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script that only writes what CleanRL's writes: a phase is what lies between two of its learning rates."""
    (tmp_path / "cleanrl").mkdir()
    (tmp_path / "cleanrl" / f"{name}.py").write_text(CLEANRL.replace("TASK", task), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["x"])
    written: list[str] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            pass

        def add_scalar(self, tag: str, value: float, step: int) -> None:
            written.append(tag)

    board = ModuleType("torch.utils.tensorboard")
    board.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    import torch.utils

    monkeypatch.setattr(torch.utils, "tensorboard", board, raising=False)
    seen: list[int] = []
    monkeypatch.setattr(peers.Times, "speeds", lambda self, steps: seen.extend((len(self.seconds), steps)) or {})
    threads = torch.get_num_threads()
    peers.cleanrl(task, 2)
    torch.set_num_threads(threads)
    assert seen == [peers.WARM_UP + 2 + 1, 2 * peers.BATCH]
    assert written.count("losses/value_loss") == len(written) / 2 == seen[0]


def test_ratios_are_medians_of_ratios_within_a_round() -> None:
    """Not ratios of medians, which would be 4 here: a machine that slows down enters in both."""
    speeds = {"asynchronous": [10.0, 20.0, 40.0], "appo": [1.0, 5.0, 8.0]}
    samples = {name: [{"by_the_wall": one} for one in each] for name, each in speeds.items()}
    found = async_peers.summarise(samples)
    assert found["speeds"] == {"asynchronous": 20.0, "appo": 5.0}
    assert found["ratios"] == {"appo": 5.0}


def test_the_peers_are_left_out_whose_interpreter_is_not_named() -> None:
    assert list(async_peers.contestants(None, None)) == ["asynchronous", "synchronous"]
    both = async_peers.contestants(sys.executable, "/bin/sh")
    assert (both["appo"], both["impala"], both["sample_factory"]) == (sys.executable, sys.executable, "/bin/sh")


def test_everything_is_measured_in_turn_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def measure(python: str, script: str, *words: str) -> dict[str, Any]:
        asked.append((python, *words))
        version = {"version": "2.1.1"} if python == "/bin/sh" else {}
        return {"by_the_wall": 1500.0 if version else 6000.0 * len(asked)} | version

    monkeypatch.setattr(async_peers, "measure", measure)
    words = [
        "--sample-factory",
        "/bin/sh",
        "--rounds",
        "2",
        "--updates",
        "7",
        "--note",
        "Quiet.",
        "--out",
        str(tmp_path),
    ]
    monkeypatch.setattr(sys, "argv", ["async_peers.py", *words, "--out", str(tmp_path)])
    async_peers.main()
    turn = [(sys.executable, name, "7") for name in ("asynchronous", "synchronous")]
    turn.append(("/bin/sh", "sample_factory", "7"))
    assert asked == 2 * turn
    record = json.loads((tmp_path / "async_peers.json").read_text())
    assert record["ratios"]["sample_factory"] == 10.0  # of 4 and 16
    assert {"load_1min", "cpu"} <= set(record["machine"]) and record["load_after"] >= 0
    table = (tmp_path / "async_peers.md").read_text()
    assert "| Sample Factory APPO | 1,500 | **10.00** |  |" in table and "| ours, two actors | 15,000 |  |  |" in table
    assert "Sample Factory APPO 2.1.1; load " in table and table.endswith("Quiet.\n")


def test_sample_factory_is_told_the_settings_that_all_have() -> None:
    words = async_peers.sample_factory_words("folder", 10)
    told = dict(word[2:].split("=") for word in words if "=" in word)
    assert int(told["num_workers"]) * int(told["num_envs_per_worker"]) == 16
    assert int(told["batch_size"]) * int(told["num_batches_per_epoch"]) == 16 * int(told["rollout"]) == 2048
    assert (told["num_epochs"], told["batch_size"]) == ("10", "512")
    assert words[-3:] == ["--encoder_mlp_layers", "64", "64"]
