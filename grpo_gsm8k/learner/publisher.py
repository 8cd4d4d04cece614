"""Publishing of weights: float32 masters -> the engine's precision -> /dev/shm, with a canary."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from grpo_gsm8k.errors import WeightsError
from grpo_gsm8k.learner.batching import token_sequence
from grpo_gsm8k.learner.host_copy import HostCopy
from grpo_gsm8k.learner.sequence_scores import packed_logprobs
from grpo_gsm8k.learner.tensor_file import write_tensors
from grpo_gsm8k.transport import weights

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.learner.model import Policy
    from grpo_gsm8k.learner.task import Item
    from grpo_gsm8k.transport.protocol import WeightsRef

CANARY_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Published:
    """Reference to the published weights, and the seconds it took."""

    ref: WeightsRef
    seconds: float


class Publisher:
    """Publishes every version of one learner into one folder: whole models, or adapters alone."""

    def __init__(self, root: Path, policy: Policy, config: Config, items: Sequence[Item]) -> None:
        """The canary is made of the first prompt tokens of `items`."""
        self._root = root
        self._policy = policy
        self._host = HostCopy(getattr(torch, config.actor.dtype))
        self._chunk = config.learner.logprob_chunk
        self._adapter_alone = policy.is_adapter and config.actor.lora == "adapter"
        room = min(CANARY_TOKENS, sum(len(item.prompt_ids) for item in items))
        self._canary_ids = np.concatenate([item.prompt_ids for item in items[:CANARY_TOKENS]])[:room]

    def publish(self, version: int, attempt: int = 0) -> Published:
        """Write the current weights as `version`. Raises WeightsError when they do not fit or are not finite.

        `attempt` counts the replacements of damaged files of this version.
        """
        started = time.monotonic()
        canary = self._canary()
        if self._adapter_alone:
            size = sum(p.nbytes for _, p in self._policy.named_parameters())
            ref = weights.publish(self._root, version, "adapter", size, self._write_adapter, canary, attempt)
        else:
            tensors = self._host.copy(self._policy.merged_tensors())
            size = sum(tensor.nbytes for tensor in tensors.values())

            def write(folder: Path) -> dict[str, str]:
                return {weights.MODEL_FILE: write_tensors(folder / weights.MODEL_FILE, tensors)}

            ref = weights.publish(self._root, version, "model", size, write, canary, attempt)
        return Published(ref, time.monotonic() - started)

    def _write_adapter(self, folder: Path) -> dict[str, str]:
        from grpo_gsm8k.learner import lora  # peft takes seconds to import

        lora.save_adapter(self._policy.model, folder)
        return {}

    def _canary(self) -> weights.Canary:
        """Compute the learner's log-probabilities of the canary, which the engine's must match after each load."""
        ids, policy = self._canary_ids, self._policy
        # In float32 if the weights are: more exact, and twice as fast on a CPU without bf16 instructions. Divided
        # weights are gathered in the precision of the products.
        exact = not policy.is_adapter and policy.shards is None
        (logprobs,) = packed_logprobs(policy, [token_sequence(ids[:1], ids[1:])], self._chunk, exact)
        values = logprobs.tolist()
        if not all(np.isfinite(values)):
            raise WeightsError("the policy's log-probabilities are not finite: its weights are not published")
        return weights.Canary(tuple(ids.tolist()), tuple(values))
