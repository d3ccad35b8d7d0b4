"""What the workflow's rules ask: which tiers, which runs must be trained, where everything lies.

The one question that the configuration answers is where runs come from (`runs`):

* ``published``: from the archives below ``results/``, plain files that no rule makes; nothing can train;
* ``missing``: those that no archive holds are trained, and all are put into a new archive;
* ``all``: every run is trained here, whatever is archived.

What the workflow makes lies below ``build/``, run folders below ``results/runs/``; neither is tracked. Reading this
changes nothing, and a mistake that concerns only some targets is raised only when they are asked for.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from vaco.archive import INDEX, SUMS
from vaco.errors import UserError
from vaco.lm.kind import load_any_tier
from vaco.lm.tiers import LMTier, load_lm_tier
from vaco.report.sources import report_hash
from vaco.runs import archives, cluster, explain
from vaco.runs.tier_file import WorkflowConfig
from vaco.runs.tiers import Tier, load_tier

RESULTS, BUILD = "results", "build"
RUNS = f"{RESULTS}/{archives.FOLDERS}"
WARM_STARTS = f"{RUNS}/warm_starts"
PROSE_TIERS = ("desk", "lm_desk")
"""The tiers whose numbers stand in prose, so that making another does not change them."""
TIDY = [f"{name}.parquet" for name in ("scores", "curves", "diagnostics", "runs", "lags")]
TIDY += ["configs.json", "summary.json"]
TIDY += [
    f"{name}.parquet"
    for name in ("aggregates", "iqm_curves", "profiles", "improvement", "separation", "task_scores", "task_curves")
]
LANGUAGE_TIDY = ["evals.parquet", "updates.parquet", "summary.json"]


class Dag:
    """The tiers of one call of Snakemake.

    Args:
        config: Snakemake's configuration, checked.
        figures: the content of ``workflow/figures.yaml``.

    Raises:
        UserError: there is no such tier, or its file has a mistake.
    """

    def __init__(self, config: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
        self.mode = str(config["runs"])
        self.figures = figures
        self.tier: Tier = load_tier(config["tier"])
        self.language: LMTier | None = _language(config["lm_tier"], self.tier.name)
        self.tiers: list[Any] = [self.tier, *([self.language] if self.language else [])]

    @property
    def trains(self) -> bool:
        """Whether runs may be trained."""
        return self.mode != "published"

    @functools.cached_property
    def runs(self) -> dict[str, Any]:
        """The runs that may be trained, by the path of their folder below ``results/runs``, the most useful first."""
        if not self.trains:
            return {}
        known = archives.published_runs(Path(RESULTS)) if self.mode == "missing" else set()
        planned = [run for tier in self.tiers for run in tier.planned()]
        return {run.config.place: run for run in planned if str(run.config.run_id) not in known}

    def run(self, place: str) -> Any:
        """The run of a folder.

        Raises:
            UserError: no tier of this call asks for it, or an archive has it.
        """
        if place not in self.runs:
            raise UserError(
                f"the run {place} is asked for by no tier here, or it is archived: see 'runs' in config/README.md"
            )
        return self.runs[place]

    def priority(self, place: str) -> int:
        """Larger for the more useful: all methods at the first seed come before the second."""
        return len(self.runs) - list(self.runs).index(place)

    def folders(self, tier: str) -> list[str]:
        """The folders, below ``results/runs``, of a tier's runs that are trained here."""
        own = {run.config.place for found in self.tiers if found.name == tier for run in found.planned()}
        return [place for place in self.runs if place in own]

    def memory(self, place: str) -> int:
        """Megabytes that a training job asks for at its first attempt."""
        config = self.run(place).config
        if hasattr(config, "device"):
            return 24000 if config.device == "cuda" else 2500
        return 1200

    def minutes(self, place: str) -> int:
        """Minutes that a training job asks for, the same at every attempt, since each continues where one ended."""
        config = self.run(place).config
        if hasattr(config, "device"):
            return 1440 if config.device == "cuda" else 60
        return cluster.ask_minutes(config)

    def gpus(self, place: str) -> int:
        """GPUs that a training job asks for."""
        return int(getattr(self.run(place).config, "device", "cpu") == "cuda")

    def references(self, tier: str) -> list[str]:
        """The measurements of the random policy that a tier's archive needs; of language models none."""
        found = load_any_tier(tier)
        if isinstance(found, LMTier):
            return []
        kind = f"{found.reference_episodes}-{found.reference_seed}"
        return [f"{BUILD}/{RESULTS}/references/{env}-{kind}.json" for env in found.environments]

    def warm_words(self, place: str) -> list[str]:
        """The option by which a language model's run is told its warm start, if it has one."""
        config = self.run(place).config
        if not getattr(config, "warm_target", 0.0):
            return []
        return ["--warm-start", f"{WARM_STARTS}/{config.warm_hash}.safetensors"]

    def warm_start(self, place: str) -> str | None:
        """The weights that must be there before a run trains: none for a finished run.

        Were weights that are not there an input of a finished run, making them would train it again.
        """
        finished = Path(RUNS, place, "manifest.json").is_file()
        path = next(iter(self.warm_words(place)[1:]), None)
        return None if path is None or (finished and not Path(path).is_file()) else path

    def warm_tier(self, warm: str) -> str:
        """The tier whose runs share a warm start."""
        if self.language is None or self.language.warm.warm_hash != warm:
            raise UserError(f"no language-model tier here has the warm start {warm}: give it as lm_tier")
        return self.language.name

    def archive(self, tier: str) -> str:
        """The file that stands for a tier's archive: this workflow's own, or the published one.

        Raises:
            UserError: it is neither made here nor published.
        """
        if self.trains and tier in {found.name for found in self.tiers}:
            return f"{BUILD}/{RESULTS}/{tier}/{archives.ARCHIVE}/{SUMS}"
        path = f"{RESULTS}/{tier}/{archives.ARCHIVE}/{SUMS}"
        if not Path(path).is_file():
            setting = f"lm_tier={tier}" if tier.startswith("lm_") else f"tier={tier}"
            raise UserError(
                f"the tier '{tier}' has no published archive (no file {path}): train it with "
                f"snakemake --cores 2 --config {setting} runs=missing"
            )
        return path

    def published(self) -> list[str]:
        """The archives from which runs are taken."""
        found = sorted(Path(RESULTS).glob(f"*/{archives.ARCHIVE}/{INDEX}"))
        return [str(path.with_name(SUMS)) for path in found] if self.mode == "missing" else []

    def evidence(self, path: str) -> str:
        """A measurement below ``results`` that belongs to no tier: the published one; made here where there is none."""
        return path if Path(path).is_file() else f"{BUILD}/{path}"

    def tables(self, tier: str) -> list[str]:
        """The tables of a tier."""
        names = LANGUAGE_TIDY if tier.startswith("lm_") else TIDY
        return [f"{BUILD}/{RESULTS}/{tier}/tables/{name}" for name in names]

    def drawn(self, tier: str) -> dict[str, list[str]]:
        """The figures of a tier, and the tables that each reads."""
        if tier.startswith("lm_"):
            return dict(self.figures["language"])
        grids = load_tier(tier).grids
        studies = {name: read for study, found in self.figures["studies"].items() if study in grids
                   for name, read in found.items()}  # fmt: skip
        return {**self.figures["figures"], **studies}

    def typeset(self, tier: str) -> dict[str, list[str]]:
        """The typeset tables of a tier, and the tables that each reads."""
        found: dict[str, list[str]] = dict(self.figures["typeset"])
        path = self.figures["further"]["published"]["--published"]
        if yaml.safe_load(Path(path).read_text(encoding="utf-8"))["steps"] != load_tier(tier).steps:
            del found["published"]
        return found

    def reads(self, tier: str, name: str) -> list[str]:
        """The files that a figure or typeset table is made from."""
        known = self.drawn(tier) if tier.startswith("lm_") else self.drawn(tier) | self.typeset(tier)
        if name not in known:
            raise UserError(f"the tier '{tier}' has no figure or table '{name}': it has {', '.join(known)}")
        tables = [f"{BUILD}/{RESULTS}/{tier}/tables/{table}" for table in ("summary.json", *known[name])]
        return tables + [path for path in self.further(name)[1::2]]

    def further(self, name: str) -> list[str]:
        """Options and files that a command reads beside tables; benchmarks are measured by hand, so may be missing."""
        pairs = self.figures["further"].get(name, {}).items()
        return [word for pair in pairs if Path(pair[1]).is_file() for word in pair]

    def products(self) -> list[str]:
        """Every figure and typeset table of the tiers, and what stands in prose."""
        found = [product(tier.name, name) for tier in self.tiers for name in self.drawn(tier.name)]
        found += [typeset(self.tier.name, name) for name in self.typeset(self.tier.name)]
        found += [product("schematic", name) for name in self.figures["schematic"]]
        found.append(f"{BUILD}/{RESULTS}/{self.tier.name}/README.md")
        if self.tier.name == PROSE_TIERS[0]:
            found.append(f"{BUILD}/paper/book/explorer/data.html")
        if self.tier.name == PROSE_TIERS[0] and all(map(self.exists, PROSE_TIERS)):
            found.append(f"{BUILD}/paper/numbers.json")
        return found

    def exists(self, tier: str) -> bool:
        """Whether there is an archive of a tier, published or to be made here."""
        try:
            return bool(self.archive(tier))
        except UserError:
            return False


def checked(config: Mapping[str, Any]) -> dict[str, Any]:
    """Check what Snakemake read from config/config.yaml and the command line, and fill in the defaults.

    Raises:
        UserError: a key or a value is wrong, with one sentence that says what was expected.
    """
    return explain.check(_typed(dict(config)), WorkflowConfig, "config/config.yaml").model_dump()


def _typed(value: Any) -> Any:
    """Words of the command line, read as the file would have them."""
    if isinstance(value, dict):
        return {key: _typed(part) for key, part in value.items()}
    return yaml.safe_load(value) if isinstance(value, str) else value


def product(tier: str, name: str) -> str:
    """The file that stands for a figure."""
    return f"{BUILD}/paper/figures/{tier}/{name}.json"


def typeset(tier: str, name: str) -> str:
    """The file that stands for a typeset table."""
    return f"{BUILD}/paper/tables/{tier}/{name}.json"


@functools.cache
def plan_digest(tier: str) -> str:
    """A hash of what a tier asks for and how it is described: a parameter of the rules that depend on it."""
    return hashlib.sha256(load_any_tier(tier).plan().encode()).hexdigest()[:16]


def source(*modules: str) -> str:
    """A hash of the source of reporting commands, so that an edit makes again what they made."""
    return "-".join(report_hash(module) for module in modules)


def _language(name: str, tier: str) -> LMTier | None:
    """The tier of language models: the one asked for, or the one that goes with a tier."""
    if name == "auto":
        name = f"lm_{tier}" if Path("config", f"lm_{tier}.yaml").is_file() else "none"
    return None if name == "none" else load_lm_tier(name)


def sentence(function: Any, *arguments: Any, error: type[Exception], **options: Any) -> Any:
    """Call a function; a mistake of the user becomes one sentence of the workflow's own error."""
    try:
        return function(*arguments, **options)
    except UserError as mistake:
        raise error(str(mistake)) from None
