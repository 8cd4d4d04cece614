"""What crosses a process boundary: frozen, slotted dataclasses of ids and numpy arrays, never text of a model.

The hub forwards messages between one learner and any number of actors. Every request has an id, every result
names its request and the weight version of each of its tokens.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class WeightsRef:
    """One published set of weights: `version` policy updates were applied to get it."""

    version: int
    path: str


@dataclass(frozen=True, slots=True)
class SamplingSpec:
    """How one group is sampled. `seed` is for the first completion; completion i uses `seed + i`."""

    temperature: float
    top_p: float
    max_new_tokens: int
    seed: int
    stop_token_ids: tuple[int, ...]
    stop_texts: tuple[str, ...] = ()  # generation also ends where one of these is complete


@dataclass(frozen=True, slots=True)
class GenerateGroup:
    """Ask for `n` completions of one prompt.

    The engine starts it at a weight version of at least `min_version`. A `pinned` request must be generated
    entirely with exactly that version, so no swap happens while it is running.
    """

    request_id: str
    prompt_ids: np.ndarray  # int32 [P]
    n: int
    sampling: SamplingSpec
    min_version: int
    pinned: bool
    score_prompt: bool = False  # ask for `GroupResult.prompt`


@dataclass(frozen=True, slots=True)
class VersionSpan:
    """Tokens `start` up to but not including `end` were sampled with weights `version`."""

    version: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled continuation. `logprobs[i]` is the log-probability, temperature included, of `token_ids[i]`."""

    token_ids: np.ndarray  # int32 [R], the end-of-sequence token included where it was sampled
    logprobs: np.ndarray  # float32 [R]
    finish_reason: str  # "stop" or "length"
    version_spans: tuple[VersionSpan, ...]


@dataclass(frozen=True, slots=True)
class PromptScores:
    """What the model makes of a prompt's tokens but the first: `logprobs[i]` is of token i + 1, given those before."""

    logprobs: np.ndarray  # float32 [P-1]
    greedy: np.ndarray  # bool [P-1]: no other token is more likely


@dataclass(frozen=True, slots=True)
class GroupResult:
    """The answer to a `GenerateGroup`: its `n` completions, in the order of their seeds."""

    request_id: str
    completions: tuple[Completion, ...]
    prompt: PromptScores | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """A request that the engine refused."""

    request_id: str
    error: str


@dataclass(frozen=True, slots=True)
class LoadWeights:
    """The learner has published weights; actors load them between two engine steps."""

    ref: WeightsRef


@dataclass(frozen=True, slots=True)
class WeightsLive:
    """The engine generates with `ref` from now on; the canary's gap is the mean |engine - learner| logprob."""

    ref: WeightsRef
    seconds: float
    canary_gap: float


@dataclass(frozen=True, slots=True)
class Reset:
    """A new learner begins: forget every request and every weight version."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """Messages that are handled together, so that what the engine batches does not depend on timing."""

    messages: tuple[GenerateGroup | LoadWeights, ...]


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker finished its start-up."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Sent a few times a second. `progress` grows while a `busy` worker gets on: tokens sampled, micro-batches done.

    `busy_s` is the time spent working and `clock` the monotonic time (both seconds) when it was read.
    """

    progress: int
    busy: bool
    busy_s: float
    clock: float


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a worker's time for the timeline; `start_s` is Unix time. `version`: of the weights it was about."""

    name: str
    version: int
    start_s: float
    seconds: float

    @classmethod
    def since(cls, name: str, version: int, started: float) -> Self:
        """From `started`, which time.monotonic() gave, until now."""
        seconds = time.monotonic() - started
        return cls(name, version, time.time() - seconds, seconds)


@dataclass(frozen=True, slots=True)
class PromptUse:
    """What became of one prompt of one epoch: trained (`reason` empty) or dropped for `reason`."""

    epoch: int
    prompt_id: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class StepDone:
    """One policy update is finished: its metrics, and what became of its prompts. `step` counts from 1."""

    step: int
    metrics: dict[str, float]
    prompts: tuple[PromptUse, ...]


@dataclass(frozen=True, slots=True)
class ValidationDone:
    """All items of the validation set were answered with weights `version`."""

    version: int
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class CheckpointSaved:
    """A checkpoint of `step` is complete on disk."""

    step: int
    path: str


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """The learner ran out of memory in a step and does it again with micro-batches of `token_budget` tokens."""

    token_budget: int
    reason: str


@dataclass(frozen=True, slots=True)
class Resumed:
    """The learner starts at `step`; records of later steps are void."""

    step: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The learner is done: at its target, or stopped after a checkpoint."""

    step: int
    stopped: bool


@dataclass(frozen=True, slots=True)
class Crashed:
    """Last words of a worker. `fatal`: no restart can mend it; `user_error`: nor anybody but the user."""

    error: str
    fatal: bool
    user_error: bool


@dataclass(frozen=True, slots=True)
class Stop:
    """Finish the step, save, and exit."""


ActorCommand = GenerateGroup | LoadWeights | Reset | Bundle | Stop
ActorReport = GroupResult | Failed | WeightsLive | Ready | Heartbeat | Span | Crashed
LearnerReport = (
    Bundle
    | StepDone
    | ValidationDone
    | CheckpointSaved
    | OutOfMemory
    | Resumed
    | Finished
    | Ready
    | Heartbeat
    | Span
    | Crashed
)
LearnerCommand = GroupResult | Failed | WeightsLive | Stop
