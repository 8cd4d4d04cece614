"""Runs that repeat bit by bit on the same machine: what `deterministic=true` sets, and what it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grpo_gsm8k.config.cluster_config import ClusterConfig
    from grpo_gsm8k.config.policy_gradient_config import PolicyGradientConfig
    from grpo_gsm8k.config.process_config import ActorConfig


def with_determinism(values: Any) -> Any:
    """Set `learner.deterministic` in the values of a whole configuration whose `deterministic` is true."""
    learner = values.get("learner") if isinstance(values, Mapping) else None
    if not isinstance(learner, Mapping) or values.get("deterministic") is not True:
        return values
    return {**values, "learner": {**learner, "deterministic": True}}


def nondeterminism(
    method: PolicyGradientConfig | None, actor: ActorConfig, adapter: bool, cluster: ClusterConfig
) -> str | None:
    """Return the first setting with which a deterministic run would depend on timing, and the fix; None without one.

    `method` is None for fine-tuning; `adapter`: engines load adapters.
    The numbers of an engine depend in their last bits on what else is in a batch. Where vLLM has kernels without that
    property, on GPUs, it is told to use them; on a CPU batches must be the same instead.
    """
    if method is not None and method.max_staleness > 0:
        return (
            f"policy_gradient.max_staleness={method.max_staleness} swaps weights while completions are generated: set "
            "policy_gradient.max_staleness=0"
        )
    if actor.device == "cpu" and actor.replicas > 1:
        return (
            f"actor.replicas={actor.replicas} engines on a CPU share the requests by who is free, and vLLM has no "
            "kernels there whose results are the same in every batch: set actor.replicas=1"
        )
    if cluster.kind == "ray":
        return "cluster=ray may start the engine on another kind of machine the next time: set cluster=local"
    if actor.device != "cpu" and adapter:
        return "vLLM's kernels for adapters are not known to be the same in every batch: set actor.lora=merged"
    return None
