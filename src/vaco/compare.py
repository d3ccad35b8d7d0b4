"""`vaco compare`: runs beside each other on one page of HTML, which needs no network, no script and no other file.

A run is the folder of a finished `vaco train` or `vaco lm train`, or a file of `vaco.writers.JsonLines`.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vaco.errors import UserError
from vaco.paths import told_apart

Series = tuple[list[float], list[float]]
"""Steps, and a figure at each of them; NaN where it was not measured."""
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 420, 230, 58, 34, 10
MOST_POINTS = 400
# Okabe and Ito's colours without their yellow, then the same dashed: told apart also by those who see few colours.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#777777")
DASHES = ("", "6 3", "2 2")
STEPS = ("env_steps", "update", "step")


@dataclass(frozen=True)
class Run:
    """A run as the page shows it.

    Attributes:
        name: of its folder or file.
        settings: those that its manifest records; none of a file of JSON lines.
        series: by the figure's name.
    """

    name: str
    series: Mapping[str, Series]
    settings: Mapping[str, Any] = field(default_factory=dict)


def read_run(path: Path) -> Run:
    """Read a run's folder, or a file of JSON lines.

    Raises:
        UserError: it is neither, or damaged.
    """
    if path.is_file():
        return Run(path.stem if path.stem != "diagnostics" else path.parent.name, _lines(path))
    if not (path / "manifest.json").is_file():
        raise UserError(
            f"{path} is no run: give the folder of a finished run, with its manifest.json, or a file of JSON lines"
        )
    from vaco.runs.tables import CLOCKS, read_json, read_parquet

    manifest = read_json(path / "manifest.json")
    series: dict[str, Series] = {}
    for table, prefix in (("evals", "evaluation: "), ("phases", "")):
        columns = read_parquet(path / f"{table}.parquet")
        clock = next((name for name in STEPS if name in columns), None)
        if clock is None:
            raise UserError(f"{path / table}.parquet has no column of steps: it is of another package")
        for name, column in columns.items():
            if name not in (*STEPS, *CLOCKS, "grid_steps", "phase", "round", "place"):
                series[prefix + name] = (columns[clock].astype(float).tolist(), column.astype(float).tolist())
    return Run(path.name, series, {**manifest.get("identity", {}), **manifest.get("config", {})})


def _lines(path: Path) -> dict[str, Series]:
    found: dict[str, Series] = {}
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        for row in rows:
            for name, value in row.items():
                if name != "step":
                    steps, values = found.setdefault(name, ([], []))
                    steps.append(float(row["step"]))
                    values.append(float(value))
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise UserError(f"{path} is no file of JSON lines with steps ({error}): write it with JsonLines") from error
    return found


def named(paths: Sequence[Path]) -> list[Run]:
    """Read runs; those with one name are told apart by the folders that they lie in.

    Raises:
        UserError: as `read_run`.
    """
    runs = [read_run(path) for path in paths]
    names = [run.name for run in runs]
    return [
        Run(apart, run.series, run.settings) if names.count(run.name) > 1 else run
        for run, apart in zip(runs, told_apart(paths), strict=True)
    ]


def page(runs: Sequence[Run]) -> str:
    """The page.

    Args:
        runs: at least one.

    Returns:
        A whole document of HTML.
    """
    names = list(dict.fromkeys(name for run in runs for name in run.series))
    charts = [_chart(name, runs) for name in names if _varies(name, runs)]
    flat = [name for name in names if not _varies(name, runs) and _last(name, runs)]
    title = f"{len(runs)} run{'s' if len(runs) > 1 else ''}"
    body = [
        f"<h1>{title}</h1>",
        "<h2>Settings that differ, and what came of it</h2>",
        _table(runs),
        "<h2>Figures</h2>",
        f'<div class="charts">{"".join(charts)}</div>',
    ]
    if flat:
        body.append(f"<p>The same at every step of every run: {html.escape(', '.join(flat))}.</p>")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}</style></head>\n'
        f"<body>{''.join(body)}</body></html>\n"
    )


STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 84rem; padding: 0 1rem; color: #222;
  background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; } th, td { padding: .25rem .7rem; text-align: right;
  border-bottom: 1px solid #ddd; white-space: nowrap; } th:first-child, td:first-child { text-align: left; }
.charts { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 0; } figcaption { font-weight: 600; }
svg text { font-size: 11px; fill: #555; } svg line { stroke: #ccc; } polyline { fill: none; stroke-width: 1.6; }
svg.key { vertical-align: middle; margin-right: .5rem; }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #1b1b1b; } th, td { border-color: #444; }
  svg text { fill: #aaa; } svg line { stroke: #444; } }
"""


def _stroke(i: int) -> str:
    dash = DASHES[i // len(COLOURS) % len(DASHES)]
    return f'stroke="{COLOURS[i % len(COLOURS)]}"' + (f' stroke-dasharray="{dash}"' if dash else "")


def _table(runs: Sequence[Run]) -> str:
    """One row a run: its key, the settings in which the runs differ, and the last value of its first figures."""
    keys = list(dict.fromkeys(key for run in runs for key in run.settings))
    differ = [key for key in keys if len({json.dumps(run.settings.get(key)) for run in runs}) > 1]
    every = list(dict.fromkeys(name for run in runs for name in run.series))
    shown = [name for name in every if name.removeprefix("evaluation: ") in HEADLINES][:8] or every[:8]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("run", *differ, *(f"last {name}" for name in shown)))
    rows = []
    for i, run in enumerate(runs):
        key = f'<svg class="key" width="28" height="8"><polyline points="0,4 28,4" {_stroke(i)}/></svg>'
        cells = [html.escape(_word(run.settings.get(name, "–"))) for name in differ]
        cells += [_number(_end(run.series[name])) if name in run.series else "–" for name in shown]
        rows.append(f"<tr><td>{key}{html.escape(run.name)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


HEADLINES = (
    "mean",
    "deterministic_mean",
    "accuracy",
    "forward_lag",
    "backward_lag",
    "total_lag",
    "kept_fraction",
    "ess",
    "reward",
    "mismatch",
    "staleness",
)


def _chart(name: str, runs: Sequence[Run]) -> str:
    """A figure against steps, one line a run."""
    points = {i: _finite(run.series[name]) for i, run in enumerate(runs) if name in run.series}
    xs = [x for series in points.values() for x in series[0]]
    ys = [y for series in points.values() for y in series[1]]
    (x0, x1), (y0, y1) = _range(xs), _range(ys)

    def place(x: float, y: float) -> str:
        across = LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - 10)
        return f"{across:.1f},{TOP + (y1 - y) / (y1 - y0) * (HEIGHT - TOP - BOTTOM):.1f}"

    drawn = [
        f'<line x1="{LEFT}" x2="{WIDTH - 10}" y1="{y}" y2="{y}"/><text x="{LEFT - 6}" y="{y}" text-anchor="end" '
        f'dominant-baseline="middle">{_number(value)}</text>'
        for value in ticks(y0, y1)
        for y in [place(x0, value).partition(",")[2]]
    ]
    drawn += [
        f'<text x="{place(value, y0).partition(",")[0]}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">'
        f"{_number(value)}</text>"
        for value in ticks(x0, x1)
    ]
    for i, (steps, values) in points.items():
        line = " ".join(place(x, y) for x, y in zip(steps, values, strict=True))
        drawn.append(f'<polyline points="{line}" {_stroke(i)}><title>{html.escape(runs[i].name)}</title></polyline>')
    label = html.escape(f"{name} against steps")
    return (
        f'<figure><figcaption>{html.escape(name)}</figcaption><svg role="img" aria-label="{label}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">{"".join(drawn)}'
        f'<text x="{WIDTH - 10}" y="{HEIGHT - 3}" text-anchor="end">steps</text></svg></figure>'
    )


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers within a range, at most `most` of them, a step of 1, 2 or 5 times a power of ten apart."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if (high - low) / (power * factor) <= most - 1)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or 0.5 * abs(high) or 1.0
    return low - margin, high + margin


def _finite(series: Series) -> Series:
    """The points that can be drawn, at most `MOST_POINTS` of them: every so many, and the last."""
    points = [point for point in zip(*series, strict=True) if math.isfinite(point[1])]
    stride = -(-len(points) // MOST_POINTS) or 1
    kept = points[::stride]
    kept += points[-1:] if points and kept[-1] != points[-1] else []
    return [x for x, _ in kept], [y for _, y in kept]


def _varies(name: str, runs: Iterable[Run]) -> bool:
    values = {y for run in runs if name in run.series for y in run.series[name][1] if math.isfinite(y)}
    return len(values) > 1


def _last(name: str, runs: Iterable[Run]) -> bool:
    return any(math.isfinite(_end(run.series[name])) for run in runs if name in run.series)


def _end(series: Series) -> float:
    return next((value for value in reversed(series[1]) if math.isfinite(value)), math.nan)


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def write(paths: Sequence[Path], out: Path) -> None:
    """Read runs and write their page.

    Raises:
        UserError: as `read_run`; or the page cannot be written.
    """
    text = page(named(paths))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}): give another --out") from error
