"""`training_stats.json`: reward and losses of a run's first, middle and last update, from its metrics.jsonl."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# `loss` is the whole loss of the update: the policy loss plus what is enabled of KL to the reference, entropy bonus and
# value loss, each times its coefficient. In fine-tuning it is the mean negative log-likelihood.
FIELDS = {
    "reward": "train/reward_mean",
    "loss": "train/loss",
    "policy_loss": "train/policy_loss",
    "value_loss": "train/value_loss",
}


def training_stats(records: Sequence[Mapping[str, Any]], total_updates: int) -> dict[str, Any]:
    """Return the content of training_stats.json: numbers by name, null where a run has none.

    `total_updates` is the planned length of the run. The middle update is the lower median of those recorded. Without
    any update, all three are null.
    """
    steps = sorted((record for record in records if "step" in record), key=lambda record: record["step"])
    chosen = {"first": 0, "middle": (len(steps) - 1) // 2, "last": -1}
    return {
        "total_updates": total_updates,
        "updates": len(steps),
        **{name: _numbers(steps[index]) if steps else None for name, index in chosen.items()},
    }


def _numbers(record: Mapping[str, Any]) -> dict[str, Any]:
    return {"update": record["step"], **{name: record.get(metric) for name, metric in FIELDS.items()}}
