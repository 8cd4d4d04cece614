"""The learner's side of the weights store: float32 masters -> the engine's precision -> /dev/shm, with a canary."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import save_file

from grpo_gsm8k import weights
from grpo_gsm8k.algorithms.logprobs import token_logprobs
from grpo_gsm8k.errors import WeightsError
from grpo_gsm8k.learner.batching import Sample, collate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from grpo_gsm8k.learner.model import Policy
    from grpo_gsm8k.learner.task import Item
    from grpo_gsm8k.protocol import WeightsRef

CANARY_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Published:
    """What was published and how long it took, in seconds."""

    ref: WeightsRef
    seconds: float


class Publisher:
    """Publishes every version of one learner into one folder."""

    def __init__(self, root: Path, policy: Policy, dtype: str, items: Sequence[Item], chunk: int) -> None:
        """`dtype` is the engine's; the canary is cut from the first prompts of `items`."""
        self._root = root
        self._policy = policy
        self._dtype = getattr(torch, dtype)
        self._chunk = chunk
        room = min(CANARY_TOKENS, sum(len(item.prompt_ids) for item in items))
        self._canary_ids = np.concatenate([item.prompt_ids for item in items[:CANARY_TOKENS]])[:room]

    def publish(self, version: int) -> Published:
        """Write the current weights as `version`. Raises WeightsError when they do not fit or are not finite."""
        started = time.monotonic()
        canary = self._canary()
        tensors = {
            name: p.detach().to(device="cpu", dtype=self._dtype).contiguous()
            for name, p in self._policy.named_parameters()
        }
        size = sum(tensor.nbytes for tensor in tensors.values())
        ref = weights.publish(self._root, version, size, lambda path: save_file(tensors, path), canary)
        return Published(ref, time.monotonic() - started)

    @torch.no_grad()
    def _canary(self) -> weights.Canary:
        """The learner's own log-probabilities of the canary, to which the engine's are compared after each load."""
        ids = self._canary_ids
        unused = np.zeros(len(ids) - 1, dtype=np.float32)
        sample = Sample(ids[:1], ids[1:], unused, unused.astype(bool), advantage=0.0)
        batch = collate([sample], [0.0], self._policy.device)
        with self._policy.autocast():
            hidden_NH = self._policy.hidden_states(batch)[batch.source_N]
            logprobs_N, _ = token_logprobs(hidden_NH, self._policy.head, batch.targets_N, 1.0, self._chunk)
        values = logprobs_N.tolist()
        if not all(np.isfinite(values)):
            raise WeightsError("the policy's log-probabilities are not finite: its weights are not published")
        return weights.Canary(tuple(ids.tolist()), tuple(values))
