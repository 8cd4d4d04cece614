"""A deterministic engine without a model, for fast tests of everything around generation.

Tokens depend only on prompt, seed, position and weight version, so a test can tell which version sampled which token.
Weights folders are verified as for the real engine, but not used.
"""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from grpo_gsm8k.transport.protocol import Completion, GroupResult, VersionSpan, WeightsLive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.actor.engine import EngineSpec
    from grpo_gsm8k.transport.protocol import GenerateGroup
    from grpo_gsm8k.transport.weights import VerifiedWeights

STEP_SECONDS = 0.001  # slow enough that tests can interfere with a running run
VOCABULARY = 90  # tokens 5 to 94 of the tiny model's tokenizer


@dataclass
class _Sequence:
    length: int
    tokens: list[int] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)


@dataclass
class _Running:
    request: GenerateGroup
    sequences: list[_Sequence]


class ScriptedEngine:
    """Generates one token per running sequence and step with a hash instead of a model."""

    def __init__(self, spec: EngineSpec) -> None:
        """Start without any delay."""
        self._spec = spec
        self._version = spec.own_version
        self._running: dict[str, _Running] = {}
        self._live: list[WeightsLive] = []
        self._asleep = False

    def add(self, request: GenerateGroup) -> None:
        """Start a request. Raises ValueError when it exceeds the context."""
        if len(request.prompt_ids) + request.sampling.max_new_tokens > self._spec.max_model_len:
            raise ValueError(f"{request.request_id}: prompt and completion exceed {self._spec.max_model_len} tokens")
        lengths = [self._length(request, i) for i in range(request.n)]
        self._running[request.request_id] = _Running(request, [_Sequence(length) for length in lengths])

    def abort(self, request_ids: Sequence[str]) -> None:
        """Drop these requests."""
        for request_id in request_ids:
            self._running.pop(request_id, None)

    def sleep(self) -> None:
        """Do nothing until `wake`. Raises RuntimeError if there is a request."""
        if self._running or self._live:
            raise RuntimeError("the engine was to sleep with unfinished requests")
        self._asleep = True

    def wake(self) -> None:
        """Go on."""
        self._asleep = False

    def gpu_bytes(self) -> int:
        """Return 0: this engine runs on the CPU."""
        return 0

    def step(self) -> list[GroupResult | WeightsLive]:
        """Generate one token for every running sequence. Raises RuntimeError while asleep."""
        if self._asleep:
            raise RuntimeError("the engine sleeps")
        time.sleep(STEP_SECONDS)
        finished: list[GroupResult | WeightsLive] = [*self._live]
        self._live.clear()
        for running in list(self._running.values()):
            done = [self._extend(running.request, i, sequence) for i, sequence in enumerate(running.sequences)]
            if all(done):
                del self._running[running.request.request_id]
                finished.append(_result(running))
        return finished

    def load(self, verified: VerifiedWeights) -> None:
        """Generate all later tokens with the version of this folder. Raises RuntimeError while asleep."""
        if self._asleep:
            raise RuntimeError("the engine sleeps")
        self._version = verified.ref.version
        self._live.append(WeightsLive(verified.ref, 0.0, 0.0, verified.seconds))

    def _length(self, request: GenerateGroup, index: int) -> int:
        longest = request.sampling.max_new_tokens
        if self._spec.scripted_lengths == "lognormal" and request.sampling.temperature > 0:
            return lognormal_length(request.sampling.seed + index, longest)
        return 1 + _digest(request, index, 0, 0) % (longest + longest // 8 + 1)

    def _extend(self, request: GenerateGroup, index: int, sequence: _Sequence) -> bool:
        """Generate one token unless the sequence is done; returns whether it is done now."""
        limit = min(sequence.length, request.sampling.max_new_tokens)
        if len(sequence.tokens) < limit:
            position = len(sequence.tokens)
            last = position + 1 == sequence.length
            token = 5 + _digest(request, index, position + 1, self._version) % VOCABULARY
            sequence.tokens.append(request.sampling.stop_token_ids[0] if last else token)
            sequence.versions.append(self._version)
        return len(sequence.tokens) >= limit


def lognormal_length(seed: int, longest: int) -> int:
    """Return the length of the completion with this seed: lognormal with median `longest` / 8 and sigma 1, in tokens.

    It may exceed `longest`, where the completion is cut off: 1.9 % do. A pure function of the seed, so a measurement
    knows the lengths of completions that were never finished.
    """
    digest = hashlib.blake2b(f"{seed}/length".encode(), digest_size=8).digest()
    uniform = (int.from_bytes(digest, "little") + 0.5) / 2**64
    return max(1, round(longest / 8 * math.exp(NormalDist().inv_cdf(min(uniform, 1 - 2**-53)))))


def _digest(request: GenerateGroup, index: int, position: int, version: int) -> int:
    key = f"{request.sampling.seed + index}/{position}/{version}/".encode() + request.prompt_ids.tobytes()
    return int.from_bytes(hashlib.blake2b(key, digest_size=4).digest(), "little")


def _result(running: _Running) -> GroupResult:
    return GroupResult(running.request.request_id, tuple(_completion(s) for s in running.sequences))


def _completion(sequence: _Sequence) -> Completion:
    versions = np.asarray(sequence.versions)
    starts = [0, *(np.flatnonzero(np.diff(versions)) + 1).tolist()]
    ends = [*starts[1:], len(versions)]
    return Completion(
        token_ids=np.asarray(sequence.tokens, dtype=np.int32),
        logprobs=np.full(len(versions), -1.0, dtype=np.float32),
        finish_reason="stop" if len(sequence.tokens) == sequence.length else "length",
        version_spans=tuple(VersionSpan(int(versions[s]), s, e) for s, e in zip(starts, ends, strict=True)),
    )
