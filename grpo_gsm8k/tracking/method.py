"""Short name of a run's training method, as in tags, groups and model cards."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config, PolicyGradientConfig

# These losses name the method,
_OF_LOSS = ("cispo", "sapo", "dppo_tv", "dppo_kl", "gmpo", "vespo", "m2po", "clip_cov", "kl_cov")
_OF_ADVANTAGE = {  # and so do these advantages
    "distill": "distill",
    "greedy_baseline": "remax",
    "group_mean_rescaled": "gpg",
    "length_weighted": "opo",
    "mean_normalized": "maxrl",
    "pass_at_k": "pass_at_k",
    "preference": "online_dpo",
    "token_whitened": "reinforce_plus_plus",
    "group_mean_whitened": "reinforce_plus_plus_baseline",
}
_TITLES = {
    "reinforce": "REINFORCE",
    "reinforce_baseline": "REINFORCE with baseline",
    "dr_grpo": "Dr. GRPO",
    "dppo_tv": "DPPO (total variation)",
    "dppo_kl": "DPPO (KL)",
    "gspo_token": "GSPO-token",
    "clip_cov": "Clip-Cov",
    "distill": "On-policy distillation",
    "kl_cov": "KL-Cov",
    "maxrl": "MaxRL",
    "online_dpo": "Online DPO",
    "pass_at_k": "Pass@k training",
    "positive_only": "Positive-only GRPO",
    "remax": "ReMax",
    "reinforce_plus_plus": "REINFORCE++",
    "reinforce_plus_plus_baseline": "REINFORCE++-baseline",
}


def training_method(config: Config) -> str:
    """Return `sft`, `dpo`, `ipo`, or the option of `policy_gradient=` whose loss, advantage and ratio the run has."""
    if config.command == "sft":
        return tuning_method(config.sft.loss, config.sft.dpo.loss)
    return _policy_gradient(config.policy_gradient)


def tuning_method(loss: str, pair_loss: str) -> str:
    """Return the method of a fine-tuning run from `sft.loss` and `sft.dpo.loss`."""
    if loss == "likelihood":
        return "sft"
    return "dpo" if pair_loss == "sigmoid" else pair_loss


def method_title(method: str) -> str:
    """Return a method's name as its papers write it: `GRPO`, `Dr. GRPO`."""
    return _TITLES.get(method, method if " " in method else method.upper())


def _policy_gradient(pg: PolicyGradientConfig) -> str:
    advantage = pg.advantage_name
    if pg.loss_type in _OF_LOSS:
        return pg.loss_type
    if advantage in _OF_ADVANTAGE:
        return _OF_ADVANTAGE[advantage]
    if advantage == "gae":
        return "gspo_token" if pg.ratio == "geometric_mean_token" else "ppo"
    if pg.loss_type in ("no_baseline", "reinforce_with_baseline"):
        return {"reward": "reinforce", "leave_one_out": "rloo"}.get(advantage, "reinforce_baseline")
    if pg.ratio == "geometric_mean":
        return "luspo" if pg.reduction == "sequence_sum" else "gspo"
    if pg.active_sampling and pg.cliprange_high is not None:
        return "dapo"
    if advantage == "reward":
        return "positive_only"
    return "dr_grpo" if advantage == "group_mean" and pg.reduction == "constant" else "grpo"
