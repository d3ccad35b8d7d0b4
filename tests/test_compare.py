"""One page of runs beside each other: what it reads, what it draws, and that it needs nothing else."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from vaco import cli, compare
from vaco.compare import Run, page, ticks
from vaco.errors import UserError
from vaco.runs.tables import write_json, write_parquet
from vaco.writers import JsonLines


def folder(path: Path, scale: float = 1.0, **config: object) -> Path:
    path.mkdir(parents=True)
    steps = np.arange(1, 6) * 100
    write_parquet(path / "phases.parquet", {"env_steps": steps, "forward_lag": scale * np.linspace(0, 0.1, 5)})
    write_parquet(path / "evals.parquet", {"env_steps": steps[:2], "mean": np.array([1.0, math.nan])})
    write_json(path / "manifest.json", {"identity": {"seed": 0}, "config": {"delta": 0.2, **config}})
    return path


class Checker(HTMLParser):
    """Every tag is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag != "meta":  # which has no end
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_of_two_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = folder(tmp_path / "a" / "run"), folder(tmp_path / "b" / "run", 2.0, delta=0.4)
    out = tmp_path / "new" / "page.html"
    assert cli.run(["compare", str(one), str(two), "--out", str(out)]) == 0
    text = out.read_text()
    checker = Checker()
    checker.feed(text.replace("<!doctype html>", ""))
    assert not checker.open
    assert not [attributes for _, attributes in checker.tags if {"src", "href"} & set(attributes)]
    assert "url(" not in text and "@import" not in text and "<script" not in text
    assert "a/run" in text and "b/run" in text  # told apart by where they lie
    header = re.findall(r"<th>(.*?)</th>", text)
    assert header == ["run", "delta", "last evaluation: mean", "last forward_lag"]
    assert re.findall(r"<td>([^<]*)</td>", text) == ["0.2", "1", "0.1", "0.4", "1", "0.2"]
    assert re.findall(r"<figcaption>(.*?)</figcaption>", text) == ["forward_lag"]
    lines = re.findall(r'<polyline points="([^"]*)" [^>]*><title>', text)
    heights = [[float(point.split(",")[1]) for point in line.split()] for line in lines]
    assert len(lines) == 2 and len(heights[0]) == 5
    # Larger values lie higher; the second line ends at twice the first one's rise.
    rise = [line[0] - line[-1] for line in heights]
    assert rise[0] > 0 and rise[1] == pytest.approx(2 * rise[0], abs=0.2)
    assert "The same at every step of every run: evaluation: mean." in text


def test_files_of_a_writer(tmp_path: Path) -> None:
    for name in ("left", "right"):
        with JsonLines(tmp_path / name / "diagnostics.jsonl") as writer:
            for step in range(3):
                writer.write(step, {"ess": 1.0 / (1 + step), "constant": 1.0})
    runs = compare.named([tmp_path / name / "diagnostics.jsonl" for name in ("left", "right")])
    assert [run.name for run in runs] == ["left", "right"]
    assert runs[0].series["ess"] == ([0.0, 1.0, 2.0], [1.0, 0.5, pytest.approx(1 / 3)])
    assert page(runs).count("<figure>") == 1


def test_names_and_settings_are_text() -> None:
    run = Run("<b>&", {"<x>": ([0.0, 1.0], [0.0, 1.0])}, {"a": "<i>"})
    text = page([run, Run("plain", {}, {"a": 1})])
    assert "<b>" not in text and "<i>" not in text and "&lt;b&gt;&amp;" in text and "<x>" not in text


def test_long_series_are_thinned_and_gaps_left_out() -> None:
    steps = [float(i) for i in range(5000)]
    values = [math.nan if i % 7 == 0 else float(i) for i in range(5000)]
    xs, ys = compare._finite((steps, values))
    assert len(xs) <= compare.MOST_POINTS + 1 and xs[-1] == 4999.0 and all(map(math.isfinite, ys))


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.2, 7.9), (1e-9, 3e-9), (0.0, 123456.0), (-0.001, 0.0)])
def test_ticks_are_round_and_within(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 5
    assert all(low - 1e-9 * (high - low) <= x <= high + 1e-9 * (high - low) for x in found)
    step = found[1] - found[0]
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(mantissa - m) for m in (1, 2, 5)) < 1e-6


def test_what_is_no_run_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.jsonl").write_text("{}\nno json\n")
    (tmp_path / "stepless.jsonl").write_text(json.dumps({"ess": 1.0}) + "\n")
    for name, message in (
        ("empty", "is no run: give the folder"),
        ("bad.jsonl", "is no file of JSON lines"),
        ("stepless.jsonl", "is no file of JSON lines"),
        ("absent", "is no run"),
    ):
        out = tmp_path / "page.html"
        assert cli.run(["compare", str(tmp_path / name), "--out", str(out)]) == 2
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1 and not out.exists()
    with pytest.raises(UserError, match="cannot be written"):
        compare.write([folder(tmp_path / "r")], tmp_path / "bad.jsonl" / "page.html")
