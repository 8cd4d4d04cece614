"""Step 5: weights that the engine did not receive must stop it, although 64 requests are running.

Under load the numbers of an engine differ in their last bits from step to step, so a comparison of log-probabilities
cannot see weights that are one update old. The engine's weights are compared with the file instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from benchmarks.gpu_check.outcome import require
from benchmarks.gpu_check.small_engine import engine_config, open_engine, open_publisher, requests, until_live
from grpo_gsm8k.errors import WeightsError
from grpo_gsm8k.transport.weights import verify

if TYPE_CHECKING:
    from benchmarks.gpu_check.outcome import Record
    from benchmarks.gpu_check.setup import Setup
    from grpo_gsm8k.transport.protocol import WeightsRef

RUNNING = 64
CHANGE = 1e-4  # of each weight, relative to its tensor's standard deviation: what an update changes


def check(setup: Setup, record: Record) -> None:
    """Load two versions, the second with a receiver that does nothing, and fail unless that raises."""
    from grpo_gsm8k.actor import vllm_engine
    from grpo_gsm8k.learner.model import load_policy

    config = engine_config(setup, "actor.canary_tolerance=1e9")  # the canary must not be what notices
    folder = setup.random_model("qwen2.5-0.5b" if setup.cuda else "tiny")
    policy = load_policy(folder, config.learner)
    publisher = open_publisher(setup.folder / "weights", policy, config)
    engine = open_engine(config, folder)
    engine.load(verify(publisher.publish(1).ref))
    until_live(engine)
    for request in requests(RUNNING, 100):  # a few draw the stop token early
        engine.add(request)
    finished = [result for _ in range(5) for result in engine.step()]
    _change(policy)
    engine.load(verify(publisher.publish(2).ref))
    _, others = until_live(engine)
    record("a correct load under load", "accepted")
    running = RUNNING - len(finished) - len(others)
    record("running requests", running)
    require(running > RUNNING // 2, "the requests ended before the fault was injected")
    _change(policy)
    fired: list[str] = []
    vllm_engine.ShmWeightTransfer.receive_weights = lambda self, info: fired.append(info.file)
    error = _load_error(engine, publisher.publish(3).ref)
    require(bool(fired), "the fault was not injected: receive_weights was not called")
    record("error after the fault", error)
    require("did not become live" in error, "weights that were not received were not noticed")


def _load_error(engine: object, ref: WeightsRef) -> str:
    try:
        engine.load(verify(ref))  # type: ignore[attr-defined]
        until_live(engine)
    except WeightsError as error:
        return str(error)
    return "none"


@torch.no_grad()
def _change(policy: object) -> None:
    for _, parameter in policy.named_parameters():  # type: ignore[attr-defined]
        # bf16 has 8 bits of mantissa: a factor changes every weight, a small sum few of them.
        parameter.mul_(1.01).add_(CHANGE * parameter.std() * torch.randn_like(parameter))
