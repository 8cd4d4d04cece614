"""Short name of a run's training method, as in tags, groups and model cards."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config, PolicyGradientConfig


def training_method(config: Config) -> str:
    """Return `sft`, or the name of the option of `policy_gradient=` whose loss, advantage and ratio the run has."""
    return "sft" if config.command == "sft" else _policy_gradient(config.policy_gradient)


def method_title(method: str) -> str:
    """Return a method's name as its papers write it: `GRPO`, `Dr. GRPO`."""
    names = {"reinforce": "REINFORCE", "reinforce_baseline": "REINFORCE with baseline", "dr_grpo": "Dr. GRPO"}
    return names.get(method, method if " " in method else method.upper())


def _policy_gradient(pg: PolicyGradientConfig) -> str:
    advantage = pg.advantage_name
    if pg.loss_type == "cispo":
        return "cispo"
    if advantage == "gae":
        return "ppo"
    if pg.loss_type in ("no_baseline", "reinforce_with_baseline"):
        return {"reward": "reinforce", "leave_one_out": "rloo"}.get(advantage, "reinforce_baseline")
    if pg.ratio == "geometric_mean":
        return "gspo"
    if pg.active_sampling and pg.cliprange_high is not None:
        return "dapo"
    return "dr_grpo" if advantage == "group_mean" and pg.reduction == "constant" else "grpo"
