"""One update of fine-tuning on pairs of responses: the loss of DPO against the start model (arXiv:2305.18290)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from grpo_gsm8k.config.objective_config import RejectConfig
from grpo_gsm8k.learner.batching import rollout_sample
from grpo_gsm8k.learner.experience import prepare
from grpo_gsm8k.learner.ranks import ALONE
from grpo_gsm8k.learner.schedules import Rates
from grpo_gsm8k.learner.update import update_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from grpo_gsm8k.config import Config, PolicyGradientConfig
    from grpo_gsm8k.learner.batching import Sample, TokenSequence
    from grpo_gsm8k.learner.objective import Models
    from grpo_gsm8k.learner.oom import TokenBudget
    from grpo_gsm8k.learner.ranks import Ranks
    from grpo_gsm8k.learner.update import Optimizers

REPORTED = (
    *("train/pair_accuracy", "train/pair_loss", "train/pair_margin", "train/entropy"),
    *("train/grad_norm", "train/skipped_steps", "train/optimizer_steps"),
)


@dataclass(frozen=True, slots=True)
class PairStats:
    """One optimizer step over pairs with `tokens` response tokens: its metrics by name."""

    tokens: int
    input_tokens: int
    values: dict[str, float]

    def metrics(self, lr: float, seconds: float) -> dict[str, float]:
        """Return the metrics; throughput counts prompt and response tokens."""
        return {
            **self.values,
            "train/loss": self.values["train/pair_loss"],
            "train/response_tokens": float(self.tokens),
            "train/tokens_per_s": self.input_tokens / seconds,
            "train/lr": lr,
        }


def tune_on_pairs(
    models: Models,
    optimizers: Optimizers,
    sequences: Sequence[TokenSequence],
    config: Config,
    lr: float,
    beat: Callable[[], None],
    budget: TokenBudget | None = None,
    ranks: Ranks = ALONE,
) -> PairStats:
    """Do one optimizer step on the mean loss of the pairs: `sequences` are chosen, rejected, chosen, rejected, ...

    It is a step of online DPO whose groups are the pairs. `beat`, `budget` and `ranks` are as in `update_policy`.
    """
    as_online = config.model_copy(update={"policy_gradient": _online(config)})
    pairs = [[_sample(a), _sample(b)] for a, b in zip(sequences[::2], sequences[1::2], strict=True)]
    rewards_GN = np.tile([1.0, 0.0], (len(pairs), 1))
    experience = prepare(pairs, rewards_GN, models, as_online, 0.0, beat, budget, ranks)
    rates = Rates(lr, 0.0, 0.0)
    stats = update_policy(models, optimizers, experience.groups, as_online, 0, rates, beat, budget, ranks)
    found = stats.metrics()
    tokens = sum(s.predicted_tokens for s in sequences)
    inputs = sum(len(s.prompt_ids) + len(s.completion_ids) for s in sequences)
    # Pairs far enough apart have a gradient of zero, so a step may have no pass, and no entropy.
    return PairStats(tokens, inputs, {name: found[name] for name in REPORTED if name in found})


def _sample(sequence: TokenSequence) -> Sample:
    """Return a response as a sample of unknown origin; nothing of what is reported depends on who sampled it."""
    zeros = np.zeros(len(sequence.completion_ids), dtype=np.float32)
    never = np.zeros(len(sequence.completion_ids), dtype=np.bool_)
    return rollout_sample(sequence.prompt_ids, sequence.completion_ids, zeros, never, mask=sequence.mask)


def _online(config: Config) -> PolicyGradientConfig:
    """Return the policy-gradient section that means this loss, whatever the run's own section says."""
    pg = config.policy_gradient
    return pg.model_copy(
        update={
            "loss_type": "dpo",
            "advantage": None,
            "reduction": "sequence_sum",
            "ratio": "token",
            "dpo": config.sft.dpo,
            "group_size": 2,
            "epochs_per_batch": 1,
            "minibatches": 1,
            "cliprange": None,
            "cliprange_high": None,
            "dual_clip": None,
            "target_kl": None,
            "entropy_coef": 0.0,
            "temperature": 1.0,
            "overlong": "keep",
            "max_staleness": 0,
            "late": "wait",
            "kl": pg.kl.model_copy(update={"coef": 0.0}),
            "critic": pg.critic.model_copy(update={"kind": "none", "pretrain_updates": 0}),
            "off_policy": pg.off_policy.model_copy(
                update={"proximal": "behaviour", "correction": "none", "reject": RejectConfig()}
            ),
        }
    )
