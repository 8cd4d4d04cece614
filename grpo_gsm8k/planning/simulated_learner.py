"""The real client, pacing and validations of the learner, with durations in place of its work."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from grpo_gsm8k.errors import LabError
from grpo_gsm8k.grading.answers import Grade
from grpo_gsm8k.grading.problem import Problem
from grpo_gsm8k.grading.rewards import RewardScore
from grpo_gsm8k.grading.scoring import ErrorKind
from grpo_gsm8k.learner.client import Client
from grpo_gsm8k.learner.dealing import owners
from grpo_gsm8k.learner.prompt_order import NO_PROMPTS
from grpo_gsm8k.learner.rollouts import Rollouts
from grpo_gsm8k.learner.task import GradedCompletion, Item
from grpo_gsm8k.learner.validation import Validation
from grpo_gsm8k.transport.protocol import LoadWeights, WeightsRef

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.learner.rollout_batch import RolloutGroup
    from grpo_gsm8k.learner.task import Task
    from grpo_gsm8k.planning.rates import LearnerRates, Pipeline
    from grpo_gsm8k.planning.simulated_clock import SimulatedClock
    from grpo_gsm8k.transport.channel import Channel
    from grpo_gsm8k.transport.protocol import Completion

GRADE = Grade(None, None, correct=False, well_formed=False)
REWARD = RewardScore(0.0, {})


class NoGrading:
    """Stands for `Task`: completions without a text are graded at once."""

    stop_token_ids = (0,)
    stop_texts = ()

    def start_grading(self, item: Item, completions: Sequence[Completion]) -> Future[tuple[GradedCompletion, ...]]:
        """Return a future that is done."""
        done: Future[tuple[GradedCompletion, ...]] = Future()
        graded = (GradedCompletion(item, c, "", GRADE, REWARD, ErrorKind.LOGIC) for c in completions)
        done.set_result(tuple(graded))
        return done


class SimulatedValidation(Validation):
    """A validation without a result: only its requests matter."""

    def _record(self, version: int, graded: list[GradedCompletion], seconds: float) -> None:
        """Keep nothing."""


class LearnerChannel:
    """The learner's end of its channel. To wait for a message lets the simulated time go on."""

    def __init__(self, clock: SimulatedClock, send: Callable[[object], None]) -> None:
        """Nothing has arrived."""
        self.messages: deque[object] = deque()
        self._clock = clock
        self._send = send

    def send(self, message: object) -> None:
        """Send a message to the orchestrator."""
        self._send(message)

    def receive(self, timeout: float) -> object | None:
        """Return the next message; with a timeout above 0 the simulated time goes on until there is one."""
        while timeout > 0 and not self.messages:
            if not self._clock.advance():
                raise LabError("the simulated learner waits for a message that nobody will send")
        return self.messages.popleft() if self.messages else None


class SimulatedLearner:
    """Does what `learner/policy_gradient.py` does, in that order."""

    def __init__(
        self, config: Config, pipeline: Pipeline, clock: SimulatedClock, send: Callable[[object], None]
    ) -> None:
        """`config.policy_gradient` says how far generation may be ahead, and when validations are due."""
        self.channel = LearnerChannel(clock, send)
        self._rates = pipeline.learner
        self._prompt = pipeline.lengths.prompt
        self._config = config
        self._clock = clock
        self._client = Client(cast("Channel", self.channel), 0, clock, heartbeats=False)
        self._total = config.policy_gradient.updates_for(0)
        task = cast("Task", NoGrading())
        items = _items(config.policy_gradient.prompts_per_update, self._prompt)
        self._rollouts = Rollouts(self._client, task, items, [], config, 0, NO_PROMPTS)
        asked = _items(len(pipeline.lengths.validation), self._prompt)
        self._validation = SimulatedValidation(self._client, task, asked, config, self._total, Path())

    def train(self) -> None:
        """Do all updates, and wait for the validations."""
        client, rates = self._client, self._rates
        self._publish(0)
        self._request(0)
        client.wait_until_live()
        client.record_span("wait for the engine", 0)
        for version in range(self._total):
            groups = self._rollouts.take(version)
            assert groups is not None  # nobody asks it to stop
            self._work("update", version, learning_s(rates, groups, self._prompt, self._config))
            self._publish(version + 1)
            self._request(version + 1)
            self._rollouts.uses(version)
            self._validation.drain()
            self._work("records", version + 1, rates.records_s)
            if (version + 1) % self._config.training.save_every == 0 or self._validation.due(version + 1):
                self._work("checkpoint", version + 1, rates.checkpoint_s)
        self._validation.wait()

    def _publish(self, version: int) -> None:
        self._work("publish", version, self._rates.publish_s)
        self._client.queue(LoadWeights(WeightsRef(version, f"v{version}")))

    def _request(self, version: int) -> None:
        """Send the weights and all requests that they allow, as `PolicyGradientSession.queue_requests` does."""
        self._rollouts.request_until(version)
        if self._validation.due(version):
            self._validation.submit(version)
        self._client.flush()

    def _work(self, name: str, version: int, seconds: float) -> None:
        self._clock.sleep(seconds)
        self._client.record_span(name, version)


def learning_s(rates: LearnerRates, groups: Sequence[RolloutGroup], prompt: int, config: Config) -> float:
    """Return the seconds of an update: those of the rank with the most tokens.

    A prompt is computed once for its completions, and each epoch of `policy_gradient.epochs_per_batch` again.
    """
    tokens = [prompt + sum(len(graded.completion.token_ids) for graded in group.completions) for group in groups]
    sums = [0] * rates.ranks
    for size, rank in zip(tokens, owners(tokens, rates.ranks), strict=True):
        sums[rank] += size
    exchange_s = rates.exchange_s * (rates.ranks - 1) / rates.ranks
    return rates.update_s + exchange_s + config.policy_gradient.epochs_per_batch * max(sums) * rates.token_s


def _items(count: int, prompt: int) -> list[Item]:
    ids = np.zeros(prompt, dtype=np.int32)
    return [Item(Problem(str(i), "", "", ""), ids) for i in range(count)]
