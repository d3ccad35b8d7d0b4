"""The golden set as data: short runs that between them reach everything that decides a run's bits.

`golden.py` trains them with two revisions and compares. A case says what it is there for by its name:

* ``control/pair/once+tv``, ``language/row/vaco``: an algorithm with the settings that all these cases share;
* ``control/setting/delta=0.15``: the case `against`, with one setting changed whose arithmetic it reaches;
* ``control/task/Ant-v5/gymnasium``, ``control/limit/…``: a simulator, a time limit;
* ``language/level/…``, ``language/warm/…``: ratios of whole responses, warm starts of a run's own;
* ``language/longer/…``: rows that it takes more updates to tell apart;
* ``control/resume/…``: a run that SIGTERM stops after some checkpoints and that the same command then finishes.

To add a case for a new filter, alignment, alias or task nothing needs to be done if it is in the package's own tables:
``tests/test_golden.py`` says what is missing. To add one for a new setting, add a line to `CONTROL_SETTINGS` or
`LANGUAGE_SETTINGS`, with `NEW` as `since` until the commit that introduced the setting has a hash.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

KINDS = ("control", "language")
WARM_START = "{place}/warm.safetensors"
NEW = ""
"""`since` of a case whose commit is not made yet."""
FAIR = "a5e7061f59bd82f3412964ef8182fd2d21b3b105"
"""The commit with the filters and settings for a fair comparison."""
LATER = "1e1e07b9fc40b709d33083e764a1685db09f3efc"
"""The commit with all that came after, from cut responses that earn nothing to the reuse of data."""


@dataclass(frozen=True, eq=False)
class Case:
    """A short run.

    Attributes:
        name: begins with the kind; the run's folder below a place.
        kind: `control` or `language`.
        settings: given by ``--set``; among them the algorithm.
        changed: the setting that tells it from the case `against`, if that is what it is there for.
        against: the name of a case.
        stop_after: the number of checkpoints after which SIGTERM comes; 0 for an undisturbed run.
        shared_warm_start: whether it starts from the file that the set's language cases share.
        told: settings that the working tree must be told to do what the defining revision did by default.
        since: the revision that introduced what it needs; None if the defining revision can train it, `NEW` if the
            commit does not exist yet.
    """

    name: str
    kind: str
    settings: Mapping[str, Any]
    changed: str = ""
    against: str = ""
    stop_after: int = 0
    shared_warm_start: bool = False
    told: Mapping[str, Any] = field(default_factory=dict)
    since: str | None = None

    @property
    def algorithm(self) -> str:
        """What the run is told to train with."""
        return str(self.settings["algorithm"])

    @property
    def is_plain(self) -> bool:
        """Whether it shows an algorithm as such, rather than a setting, a simulator or an interruption."""
        return self.name.split("/")[1] in ("pair", "row")

    @property
    def arguments(self) -> list[str]:
        """The command line, with ``{place}`` for the folder that holds the results."""
        words = ["lm", "train"] if self.kind == "language" else ["train"]
        words += ["--out", f"{{place}}/{self.name}", "--quiet"]
        words += ["--checkpoint-seconds", "0" if self.stop_after else "300"]
        words += ["--warm-start", WARM_START] if self.shared_warm_start else []
        return words + assignments({**self.settings, **self.told})

    @property
    def base_arguments(self) -> list[str]:
        """The same for the revision that it is compared with."""
        plain = self if self.since is not None else replace(self, told={})
        return plain.arguments


def assignments(settings: Mapping[str, Any]) -> list[str]:
    """Settings as words of the command line."""
    return [f"--set={name}={value}" for name, value in settings.items()]


@dataclass(frozen=True)
class Change:
    """One setting changed: its name and value, and the algorithm that reads it.

    Attributes:
        name: of the setting.
        value: its value.
        algorithm: of the case, and of the case that it is compared with.
        own_warm_start: language models: compared with the run that makes its own warm start.
        since: as in `Case`.
    """

    name: str
    value: Any
    algorithm: str = "vaco"
    own_warm_start: bool = False
    since: str | None = None


# Small, and with steps so large that every filter acts: triggers fire, clips drop, the KL coefficient moves.
CONTROL_BASE: dict[str, Any] = {
    **{"env": "Hopper-v5", "lag": 3, "steps": 512, "num_envs": 4, "phase_steps": 32, "minibatch": 32, "epochs": 3},
    **{"learning_rate": 0.02, "hidden": "[8, 8]", "delta": 0.1, "eval_points": 1, "eval_episodes": 1},
}
CONTROL_SETTINGS = (
    *(Change("lag", 1), Change("seed", 1), Change("steps", 384), Change("num_envs", 2), Change("phase_steps", 16)),
    *(Change("epochs", 2), Change("minibatch", 64), Change("minibatches", "trajectories")),
    *(Change("minibatches", "trajectories", "ppo"), Change("learning_rate", 0.01)),
    *(Change("learning_rate_decay", False), Change("adam_epsilon", 1e-3), Change("max_grad_norm", 0.1)),
    *(Change("discount", 0.9), Change("discount", 0.9, "ppo"), Change("trace_decay", 0.8)),
    *(Change("trace_decay", 0.8, "impala"), Change("rho_bar", 2.0), Change("rho_bar", 2.0, "impala")),
    *(Change("c_bar", 0.5), Change("c_bar", 0.5, "impala"), Change("value_coefficient", 0.25)),
    *(Change("entropy_coefficient", 0.01), Change("advantage_normalisation", "minibatch")),
    *(Change("advantage_normalisation", "none"), Change("advantage_normalisation", "none", "impala")),
    *(Change("delta", 0.15), Change("trigger", "phase"), Change("trigger", "phase", "once+tv_total")),
    *(Change("trigger", "phase", "once+tv_proximal"), Change("trigger", "phase", "continuous+tv")),
    *(*(Change("clip", 0.1, name) for name in ("ppo", "spo", "geppo")), Change("truncation", 0.5, "impala")),
    *(Change("kl_coefficient", 0.5, "ppo_kl"), Change("kl_adaptive", False, "ppo_kl")),
    *(Change("kl_target", 0.05, "ppo_kl"), Change("hidden", "[8]"), Change("hidden", "[16, 4]")),
    *(Change("initial_log_std", -0.5), Change("normalise_observations", False)),
    *(Change("normalise_rewards", False), Change("observation_clip", 0.5), Change("reward_clip", 0.1)),
    *(Change("eval_points", 2), Change("eval_episodes", 2)),
    *(Change("ratio_cap", 1.05, since=FAIR), Change("ratio_cap", 1.05, "once+tv_proximal", since=FAIR)),
    *(Change("advantage_normalisation", "scale", since=FAIR), Change("advantage_normalisation", "learner", since=FAIR)),
    Change("normaliser_start", "random", since=FAIR),
    *(Change("schedule", "fifo:2", since=LATER), Change("schedule", "straggler:0.5:2:1", since=LATER)),
    *(Change("activation", "relu", since=LATER), Change("value_hidden", "[4]", since=LATER)),
    *(Change("proximal_decay", 0.8, row, since=LATER) for row in ("vaco", "decoupled", "ppo_kl")),
    *(Change("reuse", "[4, 3, 2, 1]", "geppo", since=LATER), Change("reuse", "[1, 1]", "continuous+tv", since=LATER)),
    Change("learning_rate_adaptive", True, "geppo", since=LATER),
    *(Change("entropy_reward", 0.05, row, since=LATER) for row in ("vaco", "impala")),
    Change("filter_options", "{step: 0.1}", "none+mdpo", since=LATER),
    Change("align_options", "{weight: 0.5}", "divergence+none", since=LATER),
)
TASKS = (
    *("Ant-v5", "HalfCheetah-v5", "Hopper-v5", "Humanoid-v5", "InvertedDoublePendulum-v5", "InvertedPendulum-v5"),
    *("Swimmer-v5", "Walker2d-v5"),
)
NEW_TASKS = ("HumanoidStandup-v5", "Pusher-v5", "Reacher-v5")
"""Tasks that the defining revision does not know."""
BACKENDS = ("batched", "gymnasium")
LIMITED = {"env": "Swimmer-v5", "num_envs": 2, "phase_steps": 256, "minibatch": 256, "steps": 2560, "epochs": 2}
"""Swimmer ends at its 1000th step only: a time limit within a phase."""

ALIASES = {
    **{"none+clip": "ppo", "none+kl": "ppo_kl", "none+spo": "spo", "continuous+truncated": "impala"},
    **{"once+centred_clip": "geppo", "none+decoupled_clip": "decoupled", "once+tv": "vaco"},
}
ALIGNMENTS = ("none", "once", "continuous", "divergence")
FILTERS = (
    *("none", "clip", "proximal_clip", "decoupled_clip", "centred_clip", "tv", "tv_total", "tv_proximal"),
    *("spo", "spo_proximal", "truncated", "kl", "kl_total", "centred_clip_fixed", "centred_clip_lag", "mdpo"),
)
ZOO = ("unweighted", "clip_asymmetric", "truncated_range", "dual_clip", "gspo", "icepop", "tis_sequence", "m2po")
ZOO += ("dppo_kl", "tvpo", "tvpo_prompt")
"""Rules of other methods, of language models only."""
SINCE = dict.fromkeys(("kl_total", "centred_clip_fixed", "centred_clip_lag"), FAIR) | {"a3po_train_steps": LATER}
SINCE |= dict.fromkeys(ZOO, LATER) | dict.fromkeys(("mdpo", "divergence"), LATER)
"""The commits that introduced filters and alignments after the defining revision; of others it has them all."""
OWN = {"centred_clip_lag": {"clip": 1.0}}
"""Settings of a filter's plain cases: at ε = 0.2 the lag of these runs leaves its clip at `centred_clip`'s."""
PAIRS = {ALIASES.get(pair, pair): pair for pair in (f"{align}+{rule}" for align in ALIGNMENTS for rule in FILTERS)}
"""What the command line calls an algorithm → its ``ALIGN+FILTER``."""

# A model that is right now and then, N = 4 and K = 2: ratios move, groups differ in reward, policies are old.
WARM: dict[str, Any] = {
    "task_options": "{min_terms: 2, max_terms: 2, min_digits: 1, max_digits: 1}",
    "model_options": "{hidden: 32, layers: 1, heads: 2, intermediate: 64}",
    **{"new_tokens": 6, "warm_target": 0.1, "warm_batch": 32, "warm_learning_rate": 0.01},
}
LANGUAGE_BASE: dict[str, Any] = {
    **WARM,
    **{"minibatches": 4, "lag": 2, "updates": 8, "prompts": 4, "samples": 8, "learning_rate": 0.005},
    # δ lies between the statistics of `tv` and `tv_proximal`, which otherwise fire together and drop the same tokens.
    **{"warmup_updates": 0, "delta": 0.18, "eval_points": 1, "eval_problems": 16},
}
TRIGGERED = ("vaco", "tv_proximal", "tv_total", "tvpo_prompt")
"""Rows that differ only where one's trigger fires and another's does not, which on some machines needs longer runs."""
TOLD = {"cut_responses": "judged"}
"""What the defining revision does without being told."""
OWN_WARM_START = {"warm_target": 0.0015, "updates": 4, "prompts": 8}
COLD = {"updates": 4, "prompts": 2, "warm_target": 0}
ROWS = {
    **{"ppo": "clip", "vaco": "tv", "vaco_sequence": "tv_sequence", "spo": "spo", "decoupled": "decoupled_clip"},
    **{"a3po": "staleness_clip", "a3po_rounds": "staleness_clip", "a3po_train_steps": "staleness_clip"},
    "a3po_unweighted": "staleness_clip_unweighted",
    **{"dppo": "divergence_mask", "cispo": "truncated_high", "tis": "truncated_clip", "tba": "tba", "oapl": "oapl"},
    **{name: name for name in ("none", "proximal_clip", "centred_clip", "tv_total", "tv_proximal", "spo_proximal")},
    **{name: name for name in ("truncated", "mdpo", *ZOO)},
}
"""What the command line calls a language model's algorithm → its rule or regression."""
READ_DELTA = ("vaco", "vaco_sequence", "tv_total", "tv_proximal")
TOKENS_ONLY = ("tba", "oapl", "divergence_mask", "dppo_kl", "unweighted")
"""Rules that refuse ratios of whole responses, or have none."""
SEQUENCES = tuple(row for row, rule in ROWS.items() if rule not in TOKENS_ONLY)
OLDER: dict[str, dict[str, Any]] = {
    "a3po_train_steps": {"lag": 4, "updates": 16},
    "clip_asymmetric": {"clip_low": 0.05, "clip_high": 0.02},
    "truncated_range": {"clip_low": 0.02, "clip_high": 0.03},
    "dual_clip": {"filter.cap": 1.02},
    "gspo": {"clip_low": 0.01, "clip_high": 0.015},
    "icepop": {"filter.low": 0.98, "filter.high": 1.03},
    "tis_sequence": {"ratio_cap": 1.02},
    "m2po": {"filter.moment": 1e-4},
    "dppo_kl": {"filter.limit": 1e-4},
    "tvpo": {"filter.budget": 0.05, "filter.cap": 1.1},
    "tvpo_prompt": {"filter.budget": 0.1},
}
"""Settings without which a row is another one: A-3PO's is PPO until data are two train steps old."""
LANGUAGE_SETTINGS = (
    *(Change("minibatches", 1), Change("minibatches", 2, "decoupled"), Change("minibatches", 1, "a3po")),
    *(Change("lag", 1), Change("lag", 1, "decoupled"), Change("lag", 1, "tba"), Change("seed", 1)),
    *(Change("updates", 4), Change("prompts", 2), Change("samples", 4), Change("learning_rate", 0.002)),
    *(Change("warmup_updates", 4), Change("weight_decay", 0.1), Change("max_grad_norm", 0.1)),
    *(Change("advantage", "dr_grpo"), Change("advantage", "rloo"), Change("proximal_updates", 2, "decoupled")),
    *(Change("delta", 0.05), Change("delta", 0.05, "vaco_sequence")),
    *(Change("clip", 0.05, row) for row in ("ppo", "spo", "a3po")),
    *(Change("clip_high", 0.05, "cispo"), Change("truncation", 1.1, "truncated")),
    *(Change("divergence_limit", 0.05, "dppo"), Change("dppo_cap", 1.05, "dppo"), Change("ratio_cap", 1.02, "tis")),
    *(Change("temperature", 0.5, "tba"), Change("temperature", 0.5, "oapl")),
    *(Change("warm_target", 0.02, own_warm_start=True), Change("warm_least", 100, own_warm_start=True)),
    *(Change("warm_batch", 16, own_warm_start=True), Change("warm_learning_rate", 0.005, own_warm_start=True)),
    *(Change("warm_flaw", 0.4, own_warm_start=True), Change("new_tokens", 5, own_warm_start=True)),
    *(Change("precision", "bfloat16", own_warm_start=True), Change("eval_points", 2), Change("eval_problems", 8)),
    Change("task_options", "{min_terms: 2, max_terms: 3, min_digits: 1, max_digits: 1}", own_warm_start=True),
    Change("model_options", "{hidden: 16, layers: 2, heads: 2, intermediate: 32}", own_warm_start=True),
    Change("level", "sequence", "ppo", since=LATER),
    Change("clip_low", 0.005, "truncated_range", since=LATER),
    *(Change("denominator", "constant", since=LATER), Change("generate_batch", 8, since=LATER)),
    *(Change("tokens_at_once", 60, "ppo"), Change("tokens_at_once", 64)),
)

UNREACHABLE = {
    "control": {"env": "every task has a case of its own", "algorithm": "every pair has a case of its own"}
    | {"backend": "every task has a case on either backend, and they may well agree"}
    | dict.fromkeys(("env_args", "wrappers", "time_limit"), "another environment, on Gymnasium's backend, has cases")
    | dict.fromkeys(
        ("actors", "engine", "segments", "pull", "queue", "broadcast", "max_staleness", "slowness"),
        "a run with actors has the bits of its own schedule alone; tests replay it",
    )
    | {"network": "a module of somebody else's, or one for images, which no task of the set has"}
    | {"device": "the set trains on the processor"},
    "language": {"algorithm": "every row has a case of its own"}
    | {"filter_options": "belongs to rules of other packages, of which there is none"}
    | {"model": "the set trains what needs no download: the tiny model"}
    | {"task": "the tiny model's alphabet is that of chain_sum; the other tasks need a downloaded model"}
    | dict.fromkeys(("chat_options", "date"), "the tiny model has no chat template")
    | {"gradient_checkpointing": "changes memory and time, no bits"}
    | {"logits_at_once": "changes memory and time, and bits by rounding only, which may be none"}
    | {"problems": "epochs need a task with an end of problems, which the tiny model's alphabet does not read"}
    | {"engine": "a process gives the learner's bits, and a vLLM server is not here"}
    | {"engine_precision": "read by the engine 'process' alone; tests/lm/test_lm_engines.py measures it"}
    | dict.fromkeys(("lora_rank", "lora_alpha"), "adapters need an extra that the set's environment lacks")
    | {"optimizer": "the one of 8 bits needs an extra that the set's environment lacks"}
    | dict.fromkeys(("generators", "ahead"), "a run with generators has the bits of its own schedule; tests replay it")
    | {"device": "the set trains on the processor", "warm_updates": "a limit: reached, it stops the run with an error"},
}
"""Settings without a case under ``setting/``, and why."""


def _on_base(own: Mapping[str, Any]) -> dict[str, Any]:
    """A case's own settings on those that all share, without δ for algorithms that do not read it."""
    settings = CONTROL_BASE | dict(own)
    if not PAIRS[settings["algorithm"]].partition("+")[2].startswith("tv"):
        del settings["delta"]
    return settings


def _control() -> Iterator[Case]:
    for algorithm, pair in PAIRS.items():
        align, _, rule = pair.partition("+")
        own = {"algorithm": algorithm} | OWN.get(rule, {})
        yield Case(f"control/pair/{pair}", "control", _on_base(own), since=SINCE.get(align, SINCE.get(rule)))
    for c in CONTROL_SETTINGS:
        yield Case(
            f"control/setting/{c.name}={_word(c.value)}{'' if c.algorithm == 'vaco' else f'/{c.algorithm}'}",
            "control",
            _on_base({"algorithm": c.algorithm, c.name: c.value}),
            changed=c.name,
            against=f"control/pair/{PAIRS[c.algorithm]}",
            since=c.since,
        )
    for env in (*TASKS, *NEW_TASKS):
        for backend in BACKENDS:
            own = {"env": env, "backend": backend, "algorithm": "vaco", "steps": 384}
            since = LATER if env in NEW_TASKS else None
            yield Case(f"control/task/{env}/{backend}", "control", _on_base(own), since=since)
    for algorithm in ("ppo", "vaco", "impala"):
        own = LIMITED | {"algorithm": algorithm}
        yield Case(f"control/limit/{algorithm}", "control", _on_base(own))
    for algorithm, backend in (("vaco", "batched"), ("ppo_kl", "batched"), ("impala", "batched"), ("ppo", "gymnasium")):
        own = {"algorithm": algorithm, "backend": backend}
        yield Case(f"control/resume/{algorithm}", "control", _on_base(own), stop_after=2)


def _language() -> Iterator[Case]:
    def case(
        name: str, own: Mapping[str, Any], shared: bool = True, told: Mapping[str, Any] | None = None, **more: Any
    ) -> Case:
        settings = LANGUAGE_BASE | {"algorithm": "vaco"} | dict(own)
        if settings["algorithm"] not in READ_DELTA:
            del settings["delta"]  # what an algorithm does not read is refused
        if settings["warm_target"] == 0:
            settings = {name: v for name, v in settings.items() if name not in ("warm_batch", "warm_learning_rate")}
        return Case(
            f"language/{name}",
            "language",
            settings,
            shared_warm_start=shared,
            told={name: value for name, value in TOLD.items() if name not in own} | dict(told or {}),
            **more,
        )

    for row in ROWS:
        yield case(f"row/{row}", {"algorithm": row} | OLDER.get(row, {}), since=SINCE.get(row))
    for row in TRIGGERED:
        longer = {"updates": 24, "lag": 4}
        yield case(f"longer/{row}", {"algorithm": row} | longer, since=SINCE.get(row))
    for row in SEQUENCES:
        yield case(
            f"level/{row}",
            {"algorithm": row, "level": "sequence"} | OLDER.get(row, {}),
            told={"level": "product"},
            changed="level",
            against=f"language/row/{row}",
            since=SINCE.get(row),
        )
    yield case("warm/own", OWN_WARM_START, shared=False)
    yield case("warm/none", COLD, shared=False)
    cut = OWN_WARM_START | {"new_tokens": 4}  # half of the responses are cut
    yield case("cut/judged", cut, shared=False)
    unpaid = cut | {"cut_responses": "no_reward"}
    changed = {"changed": "cut_responses", "against": "language/cut/judged", "since": LATER}
    yield case("cut/no_reward", unpaid, shared=False, **changed)
    for c in LANGUAGE_SETTINGS:
        against = "warm/own" if c.own_warm_start else f"row/{c.algorithm}"
        own = OWN_WARM_START if c.own_warm_start else {}
        yield case(
            f"setting/{c.name}={_word(c.value)}{'' if c.algorithm == 'vaco' else f'/{c.algorithm}'}",
            {**own, **OLDER.get(c.algorithm, {}), "algorithm": c.algorithm, c.name: c.value},
            shared=not c.own_warm_start,
            changed=c.name,
            against=f"language/{against}",
            since=c.since,
        )
    for row in ("vaco", "decoupled", "tba", "a3po"):
        yield case(f"resume/{row}", {"algorithm": row}, stop_after=2)


def _word(value: Any) -> str:
    """A value as part of a path."""
    return "".join(letter if letter.isalnum() or letter in ".-_" else "_" for letter in str(value)).strip("_")


@dataclass(frozen=True)
class Preparation:
    """A command that comes before the cases: its name, and its command line with ``{place}``."""

    name: str = "language/warm start"
    arguments: list[str] = field(
        default_factory=lambda: ["lm", "warm", "--out", WARM_START, "--quiet", *assignments(WARM | TOLD)]
    )
    base_arguments: list[str] = field(
        default_factory=lambda: ["lm", "warm", "--out", WARM_START, "--quiet", *assignments(WARM)]
    )


CASES: tuple[Case, ...] = (*_control(), *_language())
