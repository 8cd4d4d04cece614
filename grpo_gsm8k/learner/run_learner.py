"""The work of a learner process: the loop that the command names, from where the run stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_gsm8k.learner import policy_gradient, sft
from grpo_gsm8k.learner.client import Client
from grpo_gsm8k.learner.setup import open_policy_gradient
from grpo_gsm8k.learner.sft_setup import open_sft
from grpo_gsm8k.transport.protocol import Finished

if TYPE_CHECKING:
    from grpo_gsm8k.learner.spec import LearnerSpec
    from grpo_gsm8k.transport.channel import Channel


def run_learner(spec: LearnerSpec, channel: Channel) -> None:
    """Train to the end, or to a stop request."""
    client = Client(channel, spec.incarnation)
    if spec.config.command == "sft":
        fine_tuning = open_sft(spec, client)
        step, updates = sft.train(fine_tuning), fine_tuning.updates
    else:
        session = open_policy_gradient(spec, client)
        step, updates = policy_gradient.train(session), session.updates
    client.report(Finished(step, stopped=client.stop_requested and step < updates))
