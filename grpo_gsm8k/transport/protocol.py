"""Messages between processes: frozen dataclasses of ids and numpy arrays, without any model text.

The router forwards them between one learner and any number of actors. Every request has an id; every result names its
request and the weight version of each of its tokens.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np


@dataclass(frozen=True, slots=True)
class WeightsRef:
    """Published weights: those after `version` policy updates, in the folder `path`."""

    version: int
    path: str


@dataclass(frozen=True, slots=True)
class SamplingSpec:
    """Sampling parameters of one group; completion i uses the seed `seed + i`."""

    temperature: float
    top_p: float
    max_new_tokens: int
    seed: int
    stop_token_ids: tuple[int, ...]
    stop_texts: tuple[str, ...] = ()  # generation also ends after one of these
    top_k: int = 0  # 0: off
    min_p: float = 0.0
    repetition_penalty: float = 1.0  # of tokens in prompt and completion


@dataclass(frozen=True, slots=True)
class GenerateGroup:
    """Request `n` completions of one prompt.

    It starts with a weight version of at least `min_version`. A `pinned` request is generated entirely with exactly
    that version, so no swap happens while it is running. Of the requests that wait for a place in the engine, those
    with the lowest `priority` are the most urgent.
    """

    request_id: str
    prompt_ids: np.ndarray  # int32 [P]
    n: int
    sampling: SamplingSpec
    min_version: int
    pinned: bool
    score_prompt: bool = False  # also return `GroupResult.prompt`
    priority: int = 0


@dataclass(frozen=True, slots=True)
class VersionSpan:
    """Tokens from `start` up to but not including `end` were sampled with weights `version`."""

    version: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Completion:
    """One completion; `logprobs[i]` is the log-probability of `token_ids[i]`, temperature included."""

    token_ids: np.ndarray  # int32 [R], with the end-of-sequence token if it was sampled
    logprobs: np.ndarray  # float32 [R]
    finish_reason: str  # "stop" (also after a stop text, whose tokens are included) or "length"
    version_spans: tuple[VersionSpan, ...]


@dataclass(frozen=True, slots=True)
class PromptScores:
    """Scores of all prompt tokens but the first; `logprobs[i]` is that of token i + 1 given the tokens before it."""

    logprobs: np.ndarray  # float32 [P-1]
    greedy: np.ndarray  # bool [P-1]: no other token is more likely


@dataclass(frozen=True, slots=True)
class GroupResult:
    """Result of a `GenerateGroup`: its `n` completions, in the order of their seeds."""

    request_id: str
    completions: tuple[Completion, ...]
    prompt: PromptScores | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """A request that the engine refused."""

    request_id: str
    error: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """The learner has no use for these requests any more: they end, running or not, and have no results."""

    request_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LoadWeights:
    """Load published weights between two engine steps."""

    ref: WeightsRef


@dataclass(frozen=True, slots=True)
class WeightsLive:
    """The engine generates with `ref` from now on; `canary_gap` is the mean |engine - learner| log-probability.

    The engine stood still for `seconds` to swap the weights. Before, their files were verified within `verify_seconds`
    while it went on generating.
    """

    ref: WeightsRef
    seconds: float
    canary_gap: float
    verify_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class WeightsDamaged:
    """An actor refused published weights before it touched its engine, which goes on with the version it has."""

    ref: WeightsRef
    reason: str


@dataclass(frozen=True, slots=True)
class PublishAgain:
    """Published weights are damaged: the learner is to publish `version` once more.

    `attempt` counts from 1. Only that version will do if it is `pinned`, otherwise a newer one will do, too.
    """

    version: int
    attempt: int
    pinned: bool


@dataclass(frozen=True, slots=True)
class Reset:
    """A new learner has started: drop all requests and weight versions."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """Messages that an actor handles together, so that the engine's batches do not depend on timing."""

    messages: tuple[GenerateGroup | LoadWeights | Cancel, ...]


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker has finished its start-up."""


@dataclass(frozen=True, slots=True)
class Connected:
    """A worker on the machine `node` of a cluster has connected; made by the placement, not by the worker."""

    pid: int
    node: str


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Sent several times per second; `progress` counts engine steps or micro-batches, and must grow while `busy`.

    `busy_s` is the time spent working and `clock` the monotonic time at which it was read, both in seconds.
    `gpu_bytes` is the GPU memory that an actor's engine holds.
    """

    progress: int
    busy: bool
    busy_s: float
    clock: float
    gpu_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Span:
    """A span of a worker's time, for the timeline; `start_s` is Unix time, `version` that of the weights involved.

    `row` names another row than the worker's own, for work that goes on beside its other spans.
    """

    name: str
    version: int
    start_s: float
    seconds: float
    row: str = ""

    @classmethod
    def since(
        cls, name: str, version: int, started: float, row: str = "", clock: Callable[[], float] = time.monotonic
    ) -> Self:
        """Return the span from `started`, a value of `clock`, to now."""
        seconds = clock() - started
        return cls(name, version, time.time() - seconds, seconds, row)


@dataclass(frozen=True, slots=True)
class PromptUse:
    """One prompt of one epoch: trained on (empty `reason`), or dropped for `reason`.

    `correct` of `of` completions were right; None if there were none, and in the ledgers of earlier versions.
    """

    epoch: int
    prompt_id: str
    reason: str = ""
    correct: int | None = None
    of: int | None = None


@dataclass(frozen=True, slots=True)
class StepDone:
    """One policy update is done: its metrics and its prompts. `step` counts from 1."""

    step: int
    metrics: dict[str, float]
    prompts: tuple[PromptUse, ...]


@dataclass(frozen=True, slots=True)
class ValidationStarted:
    """The validation of weights `version` is queued."""

    version: int


@dataclass(frozen=True, slots=True)
class ValidationDone:
    """The validation of weights `version` is done."""

    version: int
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class CheckpointSaved:
    """A checkpoint of `step` is complete on disk."""

    step: int
    path: str


@dataclass(frozen=True, slots=True)
class CheckpointsDeleted:
    """Checkpoints of these steps were deleted because the disk was full: `reason`."""

    steps: tuple[int, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """The learner ran out of memory and repeats the step with micro-batches of `token_budget` tokens."""

    token_budget: int
    reason: str


@dataclass(frozen=True, slots=True)
class RewardFailed:
    """A function of a rewards file failed and counts as 0; sent for the first failure of each part."""

    part: str
    reason: str


@dataclass(frozen=True, slots=True)
class Resumed:
    """The learner continues from `step`, records of later steps are void; the run has `updates` updates."""

    step: int
    updates: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The learner has finished: all updates done, or `stopped` after a checkpoint."""

    step: int
    stopped: bool


@dataclass(frozen=True, slots=True)
class Crashed:
    """Crash report of a worker. `fatal`: a restart cannot fix it; `user_error`: the user has to fix it."""

    error: str
    fatal: bool
    user_error: bool


@dataclass(frozen=True, slots=True)
class Recorded:
    """Update `step` is in metrics and ledger: its checkpoint may appear now, because it must not be ahead of them."""

    step: int


@dataclass(frozen=True, slots=True)
class StartEngine:
    """Build the engine. An actor imports its libraries at once, and uses no GPU memory before this message."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Exit; a learner first finishes its update and saves a checkpoint."""


ActorCommand = StartEngine | GenerateGroup | LoadWeights | Cancel | Reset | Bundle | Stop
ActorReport = GroupResult | Failed | WeightsLive | WeightsDamaged | Ready | Connected | Heartbeat | Span | Crashed
LearnerReport = (
    Bundle
    | StepDone
    | ValidationStarted
    | ValidationDone
    | CheckpointSaved
    | CheckpointsDeleted
    | OutOfMemory
    | RewardFailed
    | Resumed
    | Finished
    | Ready
    | Heartbeat
    | Span
    | Crashed
)
LearnerCommand = GroupResult | Failed | WeightsLive | PublishAgain | Recorded | Stop
