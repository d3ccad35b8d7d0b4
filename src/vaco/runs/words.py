"""The field's words for settings, answered with the name that the setting has here.

A run's identity is its settings by their names, so each has one name, and another word for it is no second way to
write it: it is answered with the right name and what that means. The meaning matters, because libraries use one word
for different things. Stable-Baselines3's `vf_coef` weighs (V − v)², CleanRL's and ours ½(V − v)².
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from vaco.errors import nearest

CALLED = {
    # of a run
    "env": "env_id env_name environment gym_id",
    "algorithm": "algo method loss_type",
    "lag": "policy_lag staleness capacity max_lag",
    "seed": "random_seed",
    "steps": "total_timesteps total_steps timesteps max_timesteps total_env_steps num_timesteps max_steps",
    "updates": "max_steps num_updates total_updates train_steps num_train_steps gradient_steps",
    "num_envs": "n_envs num_actors num_workers nenvs n_env",
    "phase_steps": "num_steps n_steps rollout_length rollout_steps rollout_fragment_length unroll_length horizon",
    "epochs": "update_epochs n_epochs num_epochs num_sgd_iter ppo_epochs noptepochs",
    "minibatch": "minibatch_size batch_size mini_batch_size sgd_minibatch_size num_minibatches",
    # of the optimiser
    "learning_rate": "lr step_size stepsize",
    "learning_rate_decay": "anneal_lr lr_decay lr_schedule linear_decay",
    "warmup_updates": "warmup_steps lr_warmup_steps num_warmup_steps",
    "weight_decay": "wd",
    "adam_epsilon": "adam_eps eps optimizer_eps opt_eps",
    "max_grad_norm": "grad_clip clip_grad_norm gradient_clip max_gradient_norm grad_norm_clip",
    # of returns and advantages
    "discount": "gamma discount_factor discounting",
    "trace_decay": "gae_lambda lambda lam lambda_ gae_lam td_lambda",
    "rho_bar": "clip_rho_threshold vtrace_clip_rho_threshold rho_clip",
    "c_bar": "clip_c_threshold c_clip",
    "advantage_normalisation": "norm_adv normalize_advantage normalise_advantage advantage_normalization",
    "advantage": "adv_estimator advantage_estimator",
    # of the loss
    "clip": "clip_coef clip_range clip_ratio clip_param clip_eps clip_epsilon cliprange epsilon ppo_clip",
    "clip_high": "epsilon_high clip_ratio_high clip_range_high",
    "delta": "tv_threshold threshold tv_delta",
    "value_coefficient": "vf_coef value_coef vf_loss_coeff critic_coef value_loss_coef baseline_cost",
    "entropy_coefficient": "ent_coef entropy_coef entropy_coeff ent_weight entropy_cost beta_entropy",
    "kl_coefficient": "kl_coef kl_coeff init_kl_coef kl_beta beta",
    "kl_target": "target_kl kl_targ",
    # of networks and normalisation
    "hidden": "hidden_sizes hidden_size net_arch hidden_dims mlp_sizes",
    "initial_log_std": "log_std_init init_log_std",
    "normalise_observations": "norm_obs normalize_observations obs_norm normalize_obs",
    "normalise_rewards": "norm_reward normalize_rewards reward_norm normalize_reward",
    "observation_clip": "clip_obs obs_clip",
    "reward_clip": "clip_reward clip_rewards",
    # of language models
    "model": "model_name model_name_or_path model_id actor_model",
    "new_tokens": "max_new_tokens max_completion_length response_length max_response_length max_tokens",
    "samples": "num_generations group_size n_samples num_samples n_responses rollout_n",
    "prompts": "prompt_batch_size prompts_per_batch",
    "precision": "dtype bf16 torch_dtype",
    # of evaluations
    "eval_points": "num_evals n_evals eval_count",
    "eval_episodes": "n_eval_episodes num_eval_episodes",
    # keys of a tier
    "environments": "envs env_ids tasks",
    "algorithms": "algos methods",
    "capacities": "lags",
    "seeds": "num_seeds n_seeds",
}
"""Name here → words for it elsewhere."""

OTHERWISE = {
    "target_kl": "no run here ends its passes early, the adaptive penalty's target is '{name}'",
    "num_minibatches": "give the size of one, '{name}'",
    "batch_size": "the size of one gradient step is '{name}', of a phase num_envs times phase_steps",
    "epsilon_high": "CISPO's cap is 1 + '{name}' here, in TRL it is epsilon_high itself",
}
"""Words that mean something else in other libraries: the answer in place of ``it is called '{name}' here``."""


def called(word: str, valid: Iterable[str]) -> str | None:
    """The valid name of what a word of the field stands for, or None."""
    plain = _plain(word)
    known = set(valid)
    return next((name for name, words in CALLED.items() if name in known and plain in words.split()), None)


def hint(word: str, valid: Iterable[str], meanings: Mapping[str, str] | None = None) -> str:
    """A clause that completes ``there is no setting 'lr': ``: the name that it has here, or the nearest spelling.

    Args:
        word: what the user wrote.
        valid: every accepted name.
        meanings: what names mean, said with the name.
    """
    names = list(valid)
    name = called(word, names)
    if name is None:
        return nearest(word, names)
    meaning = f" ({meanings[name]})" if meanings else ""
    return OTHERWISE.get(_plain(word), "it is called '{name}' here").format(name=name) + meaning


def as_setting(unknown: Sequence[str], valid: Iterable[str]) -> str | None:
    """How to write a setting that was given as a flag of its own, such as ``--lr 1e-3``; None if it is no setting.

    Args:
        unknown: the words of a command line from the flag on.
        valid: every setting.
    """
    flag, sign, value = unknown[0].partition("=")
    names = set(valid)
    name = _plain(flag) if _plain(flag) in names else called(flag, names)
    if name is None or not flag.startswith("--"):
        return None
    if not sign:
        value = next((word for word in unknown[1:2] if not word.startswith("--")), "VALUE")
    return f"{flag} is no flag: write --set {name}={value}"


def _plain(word: str) -> str:
    return word.strip("-").replace("-", "_").lower()
