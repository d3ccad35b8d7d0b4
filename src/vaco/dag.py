"""What the workflow's rules ask: which tiers, which runs must be trained, which files each product is made of.

The one question that the configuration answers is where runs come from (`runs`):

* ``published``: from the archives below ``results/``, plain files that no rule makes; nothing can train;
* ``missing``: those that no archive holds are trained, and all are put into a new archive;
* ``all``: every run is trained here, whatever is archived.

What the workflow makes lies below ``build/``, run folders below ``results/runs/``; neither is tracked. Reading this
changes nothing, and a mistake that concerns only some targets is raised only when they are asked for: the rules give
their wildcards to the methods of `Dag`, and `vaco.jobs.say` makes one sentence of a `UserError`.
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vaco.archive import INDEX, SUMS
from vaco.campaign import archives, cluster
from vaco.campaign.tier_file import check_config
from vaco.campaign.tiers import Tier, load_tier
from vaco.errors import UserError
from vaco.jobs import words
from vaco.lm.config import LMConfig
from vaco.lm.kind import load_any_tier
from vaco.lm.tiers import LMTier, load_lm_tier
from vaco.report.sources import report_hash
from vaco.runs import attempts
from vaco.yaml_file import read_yaml

RESULTS, BUILD = "results", "build"
RUNS = f"{RESULTS}/{archives.FOLDERS}"
WARM_STARTS = f"{RUNS}/warm_starts"
MODELS = f"{RUNS}/models"
RUN_FILES = ("manifest.json", "phases.parquet", "evals.parquet")
PLACE, LM_PLACE = r"[^/]+/[^/]+/[^/]+/seed\d+/[^/]+", r"[^/]+/[^/]+/[^/]+/n\d+/seed\d+/[^/]+"
"""What the folders of a run look like below `RUNS`, of control and of language models."""
BOOK = "paper/book/_build/html"
DEMONSTRATIONS = "demonstrations"
"""What stands for a tier in the paths of figures that are drawn from no runs."""
PROSE_TIERS = ("desk", "tuned", "readings", "lm_desk", "lm_smollm")
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
        self.tier: Tier = _control(config["tier"])
        self.language: LMTier | None = _language(config["lm_tier"], self.tier.name)
        self.longest: int | None = None  # minutes that a job may ask for, by the profile
        self.tiers: list[Any] = [self.tier, *([self.language] if self.language else [])]

    @property
    def trains(self) -> bool:
        """Whether runs may be trained."""
        return self.mode != "published"

    # From settings to finished runs.

    @functools.cached_property
    def runs(self) -> dict[str, Any]:
        """The runs that may be trained, by the path of their folder below ``results/runs``, the most useful first."""
        if not self.trains:
            return {}
        known = archives.published_runs(Path(RESULTS)) if self.mode == "missing" else set()
        planned = [run for tier in self.tiers for run in tier.planned()]
        return {run.config.place: run for run in planned if str(run.config.run_id) not in known}

    @functools.cached_property
    def _priorities(self) -> dict[str, int]:
        return {place: len(self.runs) - number for number, place in enumerate(self.runs)}

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

    def command(self, wildcards: Any) -> list[str]:
        """The command that trains a run, but for its folder; a language model's with its warm start."""
        return [*self.run(wildcards.run).command, *self._warm_words(wildcards.run)]

    def priority(self, wildcards: Any) -> int:
        """Larger for the more useful: all methods at the first seed come before the second.

        By the core: Snakemake starts the jobs whose priorities have the greatest sum, and one of two cores would have
        to be more useful than two others together.
        """
        return self._priorities[wildcards.run] * self.cores(wildcards) if wildcards.run in self._priorities else 0

    def memory(self, wildcards: Any, attempt: int) -> int:
        """Megabytes that a training job asks for: a run takes 400, as much again Snakemake's own job, an actor 250.

        As much again for each attempt that was killed, which may have been for want of memory; being asked to stop, and
        failing with a sentence, ask for no more.
        """
        config = self.run(wildcards.run).config
        least = int(getattr(config, "memory_mb", 1200)) + 250 * int(getattr(config, "actors", 0))
        past = attempts.history(Path(RUNS, wildcards.run))
        # Killed before it could begin to write its journal, an attempt is not in it.
        explained = sum(one.outcome != "vanished" for one in past)
        return least * (1 + max(attempts.hungry(past), attempt - 1 - explained))

    def cores(self, wildcards: Any) -> int:
        """Cores that a training job asks for: the learner's, and one for every process beside it."""
        config = self.run(wildcards.run).config
        return 1 + int(config.generators if isinstance(config, LMConfig) else config.actors)

    def minutes(self, wildcards: Any) -> int:
        """Minutes that a training job asks for, the same at every attempt, since each continues where one ended."""
        config = self.run(wildcards.run).config
        if isinstance(config, LMConfig):
            return int(min(1440 if config.device == "cuda" else 60, self.longest or math.inf))
        return cluster.ask_minutes(config, self.longest)

    def gpus(self, wildcards: Any) -> int:
        """GPUs that a training job asks for."""
        return int(getattr(self.run(wildcards.run).config, "device", "cpu") == "cuda")

    def folders(self, tier: str) -> list[str]:
        """The folders, below ``results/runs``, of a tier's runs that are trained here."""
        own = {run.config.place for found in self.tiers if found.name == tier for run in found.planned()}
        return [place for place in self.runs if place in own]

    def manifests(self, *tiers: str) -> list[str]:
        """The files that stand for the runs of some tiers that are trained here, of all tiers if none is named."""
        places = [place for tier in tiers for place in self.folders(tier)] if tiers else list(self.runs)
        return [f"{RUNS}/{place}/{RUN_FILES[0]}" for place in places]

    def _warm_words(self, place: str) -> list[str]:
        """The option by which a language model's run is told its warm start, if it has one."""
        config = self.run(place).config
        if not getattr(config, "warm_target", 0.0):
            return []
        return ["--warm-start", f"{WARM_STARTS}/{config.warm_hash}.safetensors"]

    def fetched(self, wildcards: Any) -> list[str]:
        """The note that a language model's weights and problems are on this machine; none where nothing is fetched.

        A finished run needs it as little as its warm start, but keeps it while it is there: a run whose inputs are
        others than those it was trained with would be trained again. The model `tiny` is made on the spot.
        """
        if self.language is None or (model := str(self.language.training["model"])) == "tiny":
            return []
        note = f"{MODELS}/{self.language.name}/{model.replace('/', '--')}.json"
        finished = Path(RUNS, getattr(wildcards, "run", ""), RUN_FILES[0]).is_file()
        return [note] if Path(note).is_file() or not finished else []

    def warm_start(self, wildcards: Any) -> list[str]:
        """The weights that must be there before a run trains: none for a finished run.

        Were weights that are not there an input of a finished run, making them would train it again.
        """
        finished = Path(RUNS, wildcards.run, RUN_FILES[0]).is_file()
        return [path for path in self._warm_words(wildcards.run)[1:] if Path(path).is_file() or not finished]

    def warm_tier(self, wildcards: Any) -> str:
        """The tier whose runs share a warm start."""
        if self.language is None or self.language.warm.warm_hash != wildcards.warm:
            raise UserError(f"no language-model tier here has the warm start {wildcards.warm}: give it as lm_tier")
        return self.language.name

    # From runs to an archive.

    def archived(self, wildcards: Any) -> list[str]:
        """What a tier's archive is made of beside published archives: the run folders here."""
        return [f"{RUNS}/{place}/{name}" for place in self.folders(wildcards.tier) for name in RUN_FILES]

    def references(self, wildcards: Any) -> list[str]:
        """The measurements of the random policy that a tier's archive needs; of language models none."""
        found = load_any_tier(wildcards.tier)
        if isinstance(found, LMTier):
            return []
        kind = f"{found.reference_episodes}-{found.reference_seed}"
        return [f"{BUILD}/{RESULTS}/references/{env}-{kind}.json" for env in found.environments]

    def published(self, wildcards: Any = None) -> list[str]:
        """The archives from which runs are taken."""
        found = sorted(Path(RESULTS).glob(f"*/{archives.ARCHIVE}/{INDEX}"))
        return [str(path.with_name(SUMS)) for path in found] if self.mode == "missing" else []

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

    def archive_of(self, wildcards: Any) -> str:
        """The same, for a rule."""
        return self.archive(wildcards.tier)

    def made_archives(self) -> list[str]:
        """The archives that are made here."""
        return [self.archive(tier.name) for tier in self.tiers if self.trains]

    def exists(self, tier: str) -> bool:
        """Whether there is an archive of a tier, published or to be made here."""
        try:
            return bool(self.archive(tier))
        except UserError:
            return False

    # From tables to figures and prose.

    def all_tables(self) -> list[str]:
        """The tables of the tiers at hand."""
        return [path for tier in self.tiers for path in tables(tier.name)]

    def drawn(self, tier: str) -> dict[str, list[str]]:
        """The figures of a tier, and the tables that each reads."""
        if tier.startswith("lm_"):
            return dict(self.figures["language"])
        grids = load_tier(tier).grids
        studies = {name: read for study, found in self.figures["studies"].items() if study in grids
                   for name, read in found.items()}  # fmt: skip
        swept = self.figures["sweeps"] if load_tier(tier).sweeps else {}
        return {**self.figures["figures"], **studies, **swept}

    @property
    def _beside(self) -> dict[str, str]:
        """Figures that are drawn with the tier's own: the demonstrations, and with the desk tier those of others."""
        further = self.figures["beside"] if self.tier.name == PROSE_TIERS[0] else {}
        found = {name: tier for tier, names in further.items() if self.exists(tier) for name in names}
        return dict.fromkeys(self.figures[DEMONSTRATIONS], DEMONSTRATIONS) | found

    def typeset(self, tier: str) -> dict[str, list[str]]:
        """The typeset tables of a tier, and the tables that each reads."""
        found: dict[str, list[str]] = dict(self.figures["typeset"])
        path = self.figures["further"]["published"]["published"]
        if read_yaml(Path(path))["steps"] != load_tier(tier).steps:
            del found["published"]
        return found | (self.figures["choices"] if load_tier(tier).sweeps else {})

    def reads(self, wildcards: Any) -> list[str]:
        """The files that a figure or typeset table is made from, published or made here.

        Raises:
            UserError: the tier has no such figure or table.
        """
        tier, name = wildcards.tier, wildcards.name
        if tier == DEMONSTRATIONS:
            known = self.figures[DEMONSTRATIONS]
        else:
            known = self.drawn(tier) if tier.startswith("lm_") else self.drawn(tier) | self.typeset(tier)
        if name not in known:
            raise UserError(f"'{tier}' has no figure or table '{name}': it has {', '.join(known)}")
        if tier == DEMONSTRATIONS:
            paths = [f"{RESULTS}/{DEMONSTRATIONS}/{table}" for table in known[name]]
            return [path if Path(path).is_file() else f"{BUILD}/{path}" for path in paths]
        return tables(tier, ["summary.json", *known[name]]) + list(self.further(name).values())

    def show(self, kind: str, wildcards: Any, read: list[str], made: list[str]) -> list[str]:
        """The command that draws a figure or typesets a table, `kind` is its room, `read` what `reads` says."""
        given = {"data" if wildcards.tier == DEMONSTRATIONS else "tables": str(Path(read[0]).parent)}
        further = self.further(wildcards.name)
        command = f"python -m vaco.report.{kind}.{wildcards.name}"
        return words(command, **given, out=str(Path(made[0]).with_suffix("")), **further)

    def further(self, name: str) -> dict[str, str]:
        """What a command reads beside tables, by its option; benchmarks are measured by hand, so may be missing."""
        found = self.figures["further"].get(name, {})
        return {option: path for option, path in found.items() if path.startswith(f"{BUILD}/") or Path(path).is_file()}

    def products(self) -> list[str]:
        """Every figure and typeset table of the tiers, and what stands in prose."""
        found = [product(tier.name, name) for tier in self.tiers for name in self.drawn(tier.name)]
        found += [typeset(self.tier.name, name) for name in self.typeset(self.tier.name)]
        found += [product(tier, name) for name, tier in self._beside.items()]
        found.append(f"{BUILD}/{RESULTS}/{self.tier.name}/README.md")
        if self.tier.name == PROSE_TIERS[0]:
            found.append(f"{BUILD}/paper/book/explorer/data.html")
        if self.tier.name == PROSE_TIERS[0] and all(map(self.exists, PROSE_TIERS)):
            found.append(f"{BUILD}/paper/numbers.json")
        return found

    def named(self) -> Iterator[tuple[str, str]]:
        """Names of rules and the file that each makes: a figure's own name, and its number in the paper."""
        made = [(name, product(tier.name, name)) for tier in self.tiers for name in self.drawn(tier.name)]
        made += [(name, typeset(self.tier.name, name)) for name in self.typeset(self.tier.name)]
        own = dict(made)  # goes by its name; a figure of the same name of another tier has that tier's beside it
        made += [
            (f"{name}_{tier}" if name in own else name, product(tier, name)) for name, tier in self._beside.items()
        ]
        for name, path in made:
            yield name, path
            if name in self.figures["numbers"]:
                yield self.figures["numbers"][name], path

    # What `snakemake --report` shows.

    def claim(self, name: str) -> tuple[str, str]:
        """The claim that a figure or typeset table is about: a heading of the book, and where the built book has it."""
        for page, headings in self.figures["claims"].items():
            for heading, names in headings.items():
                if name in names:
                    anchor = re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
                    return heading, f"{BOOK}/{page}.html#{anchor}"
        return "Further figures and tables", f"{BOOK}/index.html"


def open_dag(config: dict[str, Any], figures: str) -> Dag:
    """Check Snakemake's configuration in place, and read the tiers that it names.

    Args:
        config: Snakemake's own.
        figures: the path of ``figures.yaml``.

    Raises:
        UserError: a mistake in the configuration or in a tier.
    """
    config.update(check_config(config))
    return Dag(config, read_yaml(Path(figures)))


def folder(tier: str) -> str:
    """The folder of a tier's tables."""
    return f"{BUILD}/{RESULTS}/{tier}/tables"


def tables(tier: str, names: list[str] | None = None) -> list[str]:
    """The tables of a tier."""
    return [f"{folder(tier)}/{name}" for name in names or (LANGUAGE_TIDY if tier.startswith("lm_") else TIDY)]


def product(tier: str, name: str) -> str:
    """The file that stands for a figure."""
    return f"{BUILD}/paper/figures/{tier}/{name}.json"


def typeset(tier: str, name: str) -> str:
    """The file that stands for a typeset table."""
    return f"{BUILD}/paper/tables/{tier}/{name}.json"


def released() -> list[str]:
    """What book and report show: everything that the repository tracks of results, prose and documented source."""
    found = []
    for top in ("paper", "config", RESULTS, "benchmarks/results", "src/vaco", "theory"):
        for place, inside, names in os.walk(top):
            passed = {"_build", "build", "__pycache__"}
            inside[:] = sorted(name for name in inside if name not in passed and f"{place}/{name}" != RUNS)
            found += [f"{place}/{name}" for name in sorted(names)]
    return found


def measured(*patterns: str) -> list[str]:
    """Measurements that are there; a number in prose without its file is said not to be measured yet."""
    return sorted(str(path) for pattern in patterns for path in Path().glob(pattern))


@functools.cache
def plan_digest(tier: str) -> str:
    """A hash of what a tier asks for and how it is described: a parameter of the rules that depend on it."""
    return hashlib.sha256(load_any_tier(tier).plan().encode()).hexdigest()[:16]


def source(*modules: str) -> str:
    """A hash of the source of reporting commands, so that an edit makes again what they made."""
    return "-".join(report_hash(module) for module in modules)


def conformance_source() -> str:
    """The same of what compares libraries' losses with the rules, and of the rules."""
    package, digest = Path(__file__).parent, hashlib.sha256()
    for path in sorted([*(package / "conformance").rglob("*.py"), *(package / "objectives").rglob("*.py")]):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def theory_source(*, drawing: bool) -> str:
    """The same of the theory, whose package is not installed but lies where Snakemake is called."""
    if not Path("theory/sources.py").is_file():
        return "none"
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    from theory.sources import theory_hash

    return theory_hash(drawing)


def _control(name: str) -> Tier:
    if str(name).startswith("lm_"):
        raise UserError(f"'{name}' is a tier of language models: give it as lm_tier={name}, beside a tier such as desk")
    return load_tier(name)


def _language(name: str, tier: str) -> LMTier | None:
    """The tier of language models: the one asked for, or the one that goes with a tier, unless it needs a GPU."""
    if name == "none":
        return None
    if name != "auto":
        return load_lm_tier(name)
    if not Path("config", f"lm_{tier}.yaml").is_file():
        return None
    found = load_lm_tier(f"lm_{tier}")
    return None if any(run.config.device == "cuda" for run in found.planned()) else found
