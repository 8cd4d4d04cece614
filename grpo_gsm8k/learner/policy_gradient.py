"""The policy-gradient loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_gsm8k.learner.experience import Experience, prepare
from grpo_gsm8k.learner.gpu_turns import engine_asleep
from grpo_gsm8k.learner.rank_batch import share_rollouts
from grpo_gsm8k.learner.rollout_batch import Batch, assemble
from grpo_gsm8k.learner.update import update_policy

if TYPE_CHECKING:
    from grpo_gsm8k.learner.policy_gradient_session import PolicyGradientSession
    from grpo_gsm8k.learner.schedules import Rates
    from grpo_gsm8k.learner.update_stats import UpdateStats


def train(session: PolicyGradientSession) -> int:
    """Train until the last update or a stop request; returns the number of updates done.

    `version` counts policy updates: batch `version` is trained by weights `version` and makes weights `version + 1`.
    """
    version = session.begin()  # publishes the first weights, waits for the engine
    while version < session.updates and not session.stop_requested:
        groups = session.rollouts.take(version)  # graded completions; None: stop
        if groups is None:
            break
        batch = assemble(groups, session.config, version)
        rates = session.rates(version)
        session.record_inputs(batch, version)  # for command=replay
        session.take_turn()  # on shared CPU cores
        with engine_asleep(session.config):  # on a shared GPU, if configured
            experience, stats = learn(session, batch, version, rates)
        session.record_result(version, rates, stats)
        session.kl.observe(stats.kl_reference)
        version += 1
        session.publish(version)  # weights, the next prompts, a validation if one is due
        session.finish(version, batch, experience, stats, rates)  # metrics, rollouts, a checkpoint if one is due
    session.end(version)
    return version


def learn(session: PolicyGradientSession, batch: Batch, version: int, rates: Rates) -> tuple[Experience, UpdateStats]:
    """Do one policy update; returns the data it was trained on, and its statistics."""
    models, config, budget, client = session.models, session.config, session.token_budget, session.client
    ranks = session.ranks
    share_rollouts(ranks, batch, version, rates)  # the other ranks do the same two steps, each for its part
    beat = client.beat  # after each micro-batch: shows progress, and starts the grading of what has arrived
    experience = prepare(batch.samples, batch.trained_rewards_GN, models, config, rates.kl_coef, beat, budget, ranks)
    client.record_span("prepare", version)
    stats = update_policy(models, session.optimizers, experience.groups, config, version, rates, beat, budget, ranks)
    client.record_span("update", version)
    return experience, stats
