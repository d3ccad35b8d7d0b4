"""What every column of an archive's tables means; the README of an archive is made of this."""

from __future__ import annotations

from collections.abc import Collection

RUNS = {
    "run": "identity: hash of the settings, and training version of the algorithm (`hash-vN`)",
    "task": "Gymnasium task; of language models, the problems",
    "algorithm": "alias or ALIGN+FILTER; of language models, a row of `vaco lm algorithms`",
    "lag": "capacity K of the policy buffer, the degree of asynchrony",
    "minibatches": "N, gradient steps per generation round (language models only)",
    "seed": "seed of every random generator of the run",
    "completed_steps": "environment steps; of language models, gradient steps",
    "wall_seconds": "time spent training, seconds",
    "started": "when, UTC",
    "finished": "when, UTC",
    "cpu": "processor; the same bits are promised on one processor only",
    "revision": "commit of the source",
    "manifest": "the run's manifest.json as JSON: all settings, versions of packages, checksums of its files",
}
CONTROL_EVALS = {
    "run": "identity, as in runs.parquet",
    "env_steps": "environment steps at the evaluation",
    "grid_steps": "the point of the fixed grid that it stands for",
    "mean": "mean return of the stochastic policy",
    "std": "standard deviation of these returns over episodes",
    "episodes": "episodes behind it",
    "deterministic_mean": "mean return of the policy without noise",
    "deterministic_std": "standard deviation of these returns over episodes",
    "deterministic_episodes": "episodes behind it",
    "wall_seconds": "seconds of training and evaluation so far",
}
CONTROL_PHASES = {
    "run": "identity, as in runs.parquet",
    "phase": "1, 2, ...: collect and optimise once",
    "env_steps": "environment steps after the phase",
    "wall_seconds": "seconds of training and evaluation so far",
    "episode_return": "mean return of the episodes that ended in the phase; NaN where none did",
    "episodes": "how many ended",
    "backward_lag": "TV(π_T, β), sampled as ½ mean|ρ_T − 1|",
    "forward_lag": "TV(π, π_T) after the phase, sampled as ½ mean|ρ − ρ_T|",
    "tv_before": "TV(π, β) at the start of the phase, sampled as ½ mean|ρ − 1|: the backward lag",
    "tv_after": "TV(π, β) at the end of the phase, sampled as ½ mean|ρ − 1|",
    "tv_statistic": "mean over gradient steps of what the trigger compares with δ; NaN without a trigger",
    "trigger_fraction": "share of gradient steps at which the trigger fired",
    "trigger_flips": "share of pairs of neighbouring gradient steps between which it changed",
    "kept_fraction": "share of samples that kept their policy gradient",
    "clip_fraction": "share of samples with |ρ − 1| > ε",
    "kl": "KL(π_T‖π) after the phase, nats",
    "ess": "effective sample size of the weights ρ after the phase, as a share of the batch",
    "policy_loss": "mean −ρ̂A of the policy, over gradient steps",
    "value_loss": "mean ½(V − v)², over gradient steps",
    "entropy": "of the policy, nats",
    "grad_norm": "mean norm of the gradient before it is limited",
    "learning_rate": "Adam's step size in the phase",
    "kl_coefficient": "b of the KL penalty for the next phase",
    "explained_variance": "of the value function on the phase's targets, before the phase",
    "age_min": "age in phases of the newest policy that collected",
    "age_mean": "mean age over samples",
    "age_max": "age of the oldest",
    "collect_seconds": "seconds spent collecting",
    "align_seconds": "seconds spent aligning",
    "update_seconds": "seconds spent in gradient steps",
    "kl_total": "KL(β‖π) after the phase, nats; NaN unless the filter penalises it",
    "normaliser_lag": "TV by which the phase's update of the observation normaliser alone moved the policy",
}
LANGUAGE_EVALS = {
    "run": "identity, as in runs.parquet",
    "update": "gradient steps at the evaluation",
    "responses": "responses trained on so far",
    "accuracy": "share of held-out problems solved by the most likely answer",
    "sampled_accuracy": "share solved by a sampled answer",
    "problems": "held-out problems",
    "length": "mean length of the answers, tokens",
    "cut_fraction": "share of the most likely answers that were cut at the longest length",
    "wall_seconds": "seconds of training so far",
}
LANGUAGE_PHASES = {
    "run": "identity, as in runs.parquet",
    "update": "1, 2, ...: one gradient step",
    "round": "generation round",
    "place": "which minibatch of the round; its forward lag in gradient steps",
    "wall_seconds": "seconds of training so far",
    "reward": "mean reward of the minibatch",
    "responses": "responses in it",
    "tokens": "response tokens in it",
    "cut_fraction": "share of the responses that were cut at the longest length",
    "total_lag": "TV(π, β), sampled as ½ mean|ρ − 1| over tokens",
    "mismatch": "TV(β', β), with β' for β as the learner computes it, sampled as ½ mean|β'/β − 1|; 0 in float32",
    "backward_lag": "TV(π_T, β'), sampled as ½ mean|ρ_T − β'/β|; NaN where K > 1 and no rule reads π_T",
    "forward_lag": "TV(π, π_T), sampled as ½ mean|ρ − ρ_T| over tokens",
    "filtered_fraction": "share of tokens that lost their gradient",
    "signal_fraction": "share of tokens with a signal: those of groups whose rewards differ",
    "dropped_signal": "share of the tokens with a signal that lost their gradient",
    "clip_fraction": "share of tokens that PPO's clip would drop: ρ > 1+ε with A > 0, or ρ < 1−ε with A < 0",
    "triggered": "1 where the batch trigger fired",
    "ess": "effective sample size of the weights ρ, as a share of the tokens",
    "kl": "estimate of KL(β‖π), nats a token",
    "staleness": "mean age of the behaviour policy, gradient steps",
    "entropy": "of the policy, nats a token",
    "grad_norm": "norm of the gradient before it is limited",
    "learning_rate": "AdamW's step size",
    "skipped": "1 where the gradient was not finite and no step was made",
    "generate_seconds": "seconds spent generating, if a round began here",
    "recompute_seconds": "seconds spent evaluating the proximal policy",
    "update_seconds": "seconds spent in the gradient step",
}
TABLES = {
    "control": {"runs": RUNS, "evals": CONTROL_EVALS, "phases": CONTROL_PHASES},
    "language": {"runs": RUNS, "evals": LANGUAGE_EVALS, "phases": LANGUAGE_PHASES},
}


def readme(tier: str, kind: str, recorded: Collection[str]) -> str:
    """The README of an archive: what its files are, and every column of them.

    Args:
        tier: whose runs they are.
        kind: "control" or "language".
        recorded: the columns that its phases and evaluations have; runs of before a column was recorded lack it.
    """
    lines = [
        f"# The archive of the tier `{tier}`",
        "",
        "Every finished run, in a few tables: `pandas.read_parquet` reads each of them, a folder as one table.",
        "`vaco verify` checks them, `vaco restore` lays run folders out again. Made by `vaco archive`; edit nothing.",
        "",
        "* `runs.parquet`: one row a run; * `evals.parquet`: one row an evaluation; * `phases/`: one row a "
        + ("phase." if kind == "control" else "gradient step."),
        "* `archive.json`: the format's version, the tier, and a hash of the plan that it was made for;",
        "  `references.json`: returns of the random policy by task, the zero of scores; `SHA256SUMS`: `sha256sum -c`.",
    ]
    for table, columns in TABLES[kind].items():
        name = "phases/" if table == "phases" else f"{table}.parquet"
        lines += ["", f"## `{name}`", "", "| column | meaning |", "| --- | --- |"]
        known = {column: meaning for column, meaning in columns.items() if table == "runs" or column in recorded}
        lines += [f"| `{column}` | {meaning.replace('|', chr(92) + '|')} |" for column, meaning in known.items()]
    return "\n".join(lines) + "\n"
