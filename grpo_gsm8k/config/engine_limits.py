"""`actor.max_num_seqs=auto`: how many sequences an engine runs at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

AUTO = "auto"
LEAST = 256
MOST = 1024  # what vLLM itself allows on a GPU of 80 GB; its logits of every sequence take memory from the cache
OTHERS = 512  # for commands without a number of completions per update: the largest batch with a CUDA graph


def with_max_num_seqs(values: Any) -> Any:
    """Replace `actor.max_num_seqs: auto` in the values of a whole configuration by a number.

    In a policy-gradient run on GPUs each engine runs its share of an update's completions in one round; what the cache
    cannot hold waits inside vLLM. A CPU gains nothing beyond LEAST.
    """
    actor = values.get("actor") if isinstance(values, Mapping) else None
    if not isinstance(actor, Mapping) or actor.get("max_num_seqs") != AUTO:
        return values
    return {**values, "actor": {**actor, "max_num_seqs": _sequences(values, actor)}}


def _sequences(values: Mapping[str, Any], actor: Mapping[str, Any]) -> int:
    if actor.get("device") == "cpu":
        return LEAST
    if values.get("command") not in ("policy_gradient", "doctor"):
        return OTHERS
    method = values.get("policy_gradient")
    episodes = method.get("episodes_per_update") if isinstance(method, Mapping) else None
    replicas = actor.get("replicas")
    if not isinstance(episodes, int) or not isinstance(replicas, int) or replicas < 1:
        return LEAST  # refused by their own checks
    return min(MOST, max(LEAST, -(-episodes // replicas)))
