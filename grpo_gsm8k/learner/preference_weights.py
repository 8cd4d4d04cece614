"""The weight of each completion in a loss over pairs, computed before an optimizer step.

The loss of a pair depends on both of its completions, which need not be in one micro-batch. So the present policy's
log-probabilities of the whole step come first, from a forward pass more. With them the derivative of the loss with
respect to each completion's log-probability is a number, and the passes of the step are those of REINFORCE with its
negative as the advantage: the gradient is that of the loss, whatever the micro-batches.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from grpo_gsm8k.algorithms.preferences import pair_losses
from grpo_gsm8k.learner.ranks import ALONE
from grpo_gsm8k.learner.token_selection import present_logprobs
from grpo_gsm8k.learner.update_stats import Totals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.learner.batching import Sample
    from grpo_gsm8k.learner.model import Policy
    from grpo_gsm8k.learner.oom import TokenBudget
    from grpo_gsm8k.learner.ranks import Ranks


def with_pair_weights(
    policy: Policy,
    groups: Sequence[Sequence[Sample]],
    config: Config,
    beat: Callable[[], None],
    budget: TokenBudget,
    ranks: Ranks = ALONE,
) -> tuple[list[list[Sample]], Totals]:
    """Replace the advantages, the order of each group, by the weights of its completions, if the loss is over pairs.

    The loss of the step is the mean over its groups; one without pairs counts 0. Also returns the totals of all pairs.
    """
    pg, totals = config.policy_gradient, Totals()
    if pg.loss_type != "dpo":
        return [list(group) for group in groups], totals
    compared = [s for group in groups for s in group if _is_compared(s)]
    logprobs = iter(present_logprobs(policy, compared, config, beat, budget, ranks))
    in_loss = sum(s.in_loss for group in groups for s in group)  # the reduction is their mean
    weighted = []
    for group in groups:
        found = [s for s in group if _is_compared(s)]
        scores_N = np.array([next(logprobs).sum() - s.reference_logprobs[s.mask].sum(dtype=np.float64) for s in found])
        order_N = np.array([s.advantages[0] for s in found])
        pairs = pair_losses(scores_N, order_N, pg.dpo.beta, pg.dpo.loss)
        weights = iter(-pairs.gradient_N * in_loss / len(groups))
        weighted.append([_weighted(s, next(weights) if _is_compared(s) else 0.0) for s in group])
        _add(totals, "train/pair_loss", pairs.pair_losses_P)
        _add(totals, "train/pair_accuracy", pairs.margins_P > 0)
        _add(totals, "train/pair_margin", pg.dpo.beta * pairs.margins_P)
    return weighted, totals


def _is_compared(sample: Sample) -> bool:
    return sample.in_loss and sample.predicted_tokens > 0 and bool(sample.advantages.any())


def _weighted(sample: Sample, weight: float) -> Sample:
    return replace(sample, advantages=np.full(len(sample.completion_ids), weight, dtype=np.float32))


def _add(totals: Totals, name: str, values_P: np.ndarray) -> None:
    if len(values_P):
        totals.merge(Totals(sums={name: float(values_P.sum())}, counts={name: len(values_P)}))
