"""Entry point of the learner inside its process."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from grpo_gsm8k.learner import policy_gradient, sft
from grpo_gsm8k.learner.client import Client
from grpo_gsm8k.learner.policy_gradient_session import open_policy_gradient
from grpo_gsm8k.learner.sft_session import open_sft

if TYPE_CHECKING:
    from grpo_gsm8k.learner.spec import LearnerSpec
    from grpo_gsm8k.transport.channel import Channel


def run_learner(spec: LearnerSpec, channel: Channel) -> None:
    """Train with the loop of the command until the end of the run or a stop request."""
    client = Client(channel, spec.incarnation)
    if spec.config.command == "sft":
        fine_tuning = open_sft(spec, client)
        with closing(fine_tuning.task), closing(fine_tuning.writer), closing(fine_tuning.ranks):
            client.report(fine_tuning.outcome(sft.train(fine_tuning)))
    else:
        session = open_policy_gradient(spec, client)
        with closing(session.task), closing(session.writer), closing(session.ranks):
            client.report(session.outcome(policy_gradient.train(session)))
