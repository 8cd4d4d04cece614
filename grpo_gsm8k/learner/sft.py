"""The loop of supervised fine-tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_gsm8k.learner.rank_batch import share_sequences
from grpo_gsm8k.learner.tuning import tune

if TYPE_CHECKING:
    from grpo_gsm8k.learner.sft_session import SftSession


def train(session: SftSession) -> int:
    """Train until the last update, a stop request or the end of patience; returns the number of updates done."""
    models, optimizers, config = session.models, session.optimizers, session.config
    beat, budget, ranks = session.client.beat, session.token_budget, session.ranks
    step = session.begin()
    while step < session.updates and not session.stop_requested and not session.out_of_patience():
        session.take_turn()  # on shared CPU cores
        rate, sequences = session.rate(step), session.batch(step)
        share_sequences(ranks, sequences, step, rate)  # the other ranks make the same call, each for its part
        stats = tune(models, optimizers, sequences, config, rate, beat, budget, ranks)
        session.client.record_span("update", step)
        step += 1
        session.publish(step)
        session.finish(step, stats, rate)
    session.end(step)
    return step
