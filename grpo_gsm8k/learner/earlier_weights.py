"""Publishing of earlier versions of a run from their checkpoints, because training has changed the live weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from grpo_gsm8k.learner import checkpoint, setup
from grpo_gsm8k.learner.publisher import Publisher

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from grpo_gsm8k.learner.spec import LearnerSpec
    from grpo_gsm8k.learner.task import Item
    from grpo_gsm8k.transport.protocol import WeightsRef


@dataclass(frozen=True, slots=True)
class EarlierWeights:
    """Publishes versions that have a checkpoint, as every version does while it is validated; `items`: see Publisher.

    Version 0 has none: it is the start model.
    """

    spec: LearnerSpec
    items: Sequence[Item]

    def exist(self, version: int) -> bool:
        """Whether the weights of a version can still be read."""
        return not version or self._folder(version).is_dir()

    def publish(self, version: int, attempt: int = 0) -> WeightsRef:
        """Publish an earlier version. Raises CheckpointError if its checkpoint is missing or damaged.

        It is loaded on the CPU, where a float32 master is rounded as on a GPU: the learner's device may not have room
        for a second model.
        """
        config = self.spec.config
        folder = self._folder(version) if version else None
        if folder is not None:
            checkpoint.read_state(folder)  # verifies it
        on_cpu = config.learner.model_copy(update={"device": "cpu", "compile": False})
        with torch.random.fork_rng(devices=[]):  # a new adapter draws random numbers, which training must not miss
            policy = setup.open_policy(on_cpu, self.spec.model_folder, folder)
        return Publisher(self.spec.weights_root, policy, config, self.items).publish(version, attempt).ref

    def _folder(self, version: int) -> Path:
        return checkpoint.step_folder(self.spec.run_folder / "checkpoints", version)
