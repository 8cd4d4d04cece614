"""Gap between the log-probabilities of engine and learner, where an update's own passes do not show it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from grpo_gsm8k.learner.batching import collate, pack
from grpo_gsm8k.learner.experience import is_active
from grpo_gsm8k.learner.forwards import policy_logprobs
from grpo_gsm8k.learner.oom import TokenBudget, retry_on_oom
from grpo_gsm8k.learner.ranks import ALONE
from grpo_gsm8k.learner.update_stats import TokenStats, Totals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.learner.batching import Sample
    from grpo_gsm8k.learner.model import Policy
    from grpo_gsm8k.learner.ranks import Ranks

SEQUENCES = 4  # enough to see a wrong version, cheap next to an update


def is_measured(samples: Sequence[Sample], config: Config) -> bool:
    """Whether the passes of an optimizer step on `samples` hold a token that the present weights sampled."""
    return any(is_active(s, config.policy_gradient) and s.on_policy[s.mask].any() for s in samples)


def measure_gap(
    policy: Policy, samples: Sequence[Sample], config: Config, budget: TokenBudget, ranks: Ranks = ALONE
) -> Totals:
    """Compute the totals of |engine - learner| of the on-policy tokens of a few samples; none if no sample has any.

    All `ranks` compute all of it: it is less than an exchange would be worth.
    """
    found = [s for s in samples if s.on_policy[s.mask].any()]
    chosen = found[:: max(1, len(found) // SEQUENCES)][:SEQUENCES]
    if not chosen:
        return Totals()

    def attempt(token_budget: int) -> Totals:
        stats = TokenStats()
        for indices in pack(chosen, token_budget):
            part = [chosen[i] for i in indices]
            micro = collate(part, [0.0] * len(part), policy.device)
            with torch.no_grad():
                logprobs_N, _ = policy_logprobs(policy, micro, config)
            stats.add_gap((logprobs_N - micro.behaviour_logprobs_N)[micro.on_policy_M].abs())
        return stats.read()

    return retry_on_oom(budget, (), chosen, attempt, ranks)
