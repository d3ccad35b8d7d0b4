"""Which settings a run reads: one that it would ignore is refused where a run is described."""

from __future__ import annotations

from vaco.errors import UserError
from vaco.runs import asynchrony
from vaco.runs.config import DEFAULTS, RunConfig


def require_read(config: RunConfig) -> None:
    """Refuse what a run would ignore; settings at their defaults are never refused.

    Asked where a run is described, on a command line and in a tier: a record of an old run may hold anything.

    Raises:
        UserError: a setting differs from its default, and nothing in this run reads it.
    """
    align, rule = config.parsed.align, config.parsed.filter
    foreign, penalty = rule.reads is None, rule.penalty is not None
    algorithm = f"'{config.algorithm}'"
    conditions = {
        **{name: (foreign or name in (rule.reads or ()), algorithm) for name in ("delta", "clip", "truncation")},
        "trigger": (rule.statistic is not None, algorithm),
        "kl_coefficient": (foreign or penalty, algorithm),
        "proximal_decay": (foreign or rule.needs_learner, algorithm),
        "learning_rate_adaptive": ("clip" in (rule.reads or ()), algorithm),
        "kl_adaptive": (penalty, algorithm),
        "kl_target": (penalty and config.kl_adaptive, f"{algorithm}{' without kl_adaptive' * penalty}"),
        "rho_bar": (align.target is not None, algorithm),
        "c_bar": (align.target is not None, algorithm),
        **dict.fromkeys(asynchrony.OF_ACTORS, (config.actors > 0, "a run without actors")),
        "value_hidden": (not config.network, "a run with a network of its own"),
        "activation": (config.network in ("", "cnn"), "a run with a network of its own"),
        "observation_clip": (config.normalise_observations, "a run without normalise_observations"),
        "filter_options": (rule.settings is not None, algorithm),
        "align_options": (align.settings is not None, algorithm),
        "reward_clip": (config.normalise_rewards, "a run without normalise_rewards"),
    }
    given = config.resolved()
    for name, (read, who) in conditions.items():
        value = given[name]
        if not read and value != DEFAULTS[name]:
            raise UserError(
                f"{name} is {value}, but {who} does not read it: leave it out ('vaco algorithms' prints the formula of "
                "every algorithm)"
            )
