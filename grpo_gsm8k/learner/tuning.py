"""The update of fine-tuning that `sft.loss` names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_gsm8k.learner.pair_update import PairStats, tune_on_pairs
from grpo_gsm8k.learner.sft_update import SftStats, fine_tune

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.learner.batching import TokenSequence
    from grpo_gsm8k.learner.objective import Models
    from grpo_gsm8k.learner.oom import TokenBudget
    from grpo_gsm8k.learner.ranks import Ranks
    from grpo_gsm8k.learner.update import Optimizers

TuningStats = SftStats | PairStats


def tune(
    models: Models,
    optimizers: Optimizers,
    sequences: Sequence[TokenSequence],
    config: Config,
    lr: float,
    beat: Callable[[], None],
    budget: TokenBudget,
    ranks: Ranks,
) -> TuningStats:
    """Do one optimizer step; the arguments are those of `tune_on_pairs` and `fine_tune`."""
    if config.sft.loss == "dpo":
        return tune_on_pairs(models, optimizers, sequences, config, lr, beat, budget, ranks)
    return fine_tune(models.policy, optimizers.policy, sequences, config.learner, lr, beat, budget, ranks)
