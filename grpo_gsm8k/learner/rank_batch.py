"""The data of an update on its way from the first rank of the learner to the others, as files."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import load_file, save_file

from grpo_gsm8k.learner.batching import TokenSequence
from grpo_gsm8k.learner.update_record import save_batch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from grpo_gsm8k.learner.ranks import Ranks
    from grpo_gsm8k.learner.rollout_batch import Batch
    from grpo_gsm8k.learner.schedules import Rates

FILE = "sequences.safetensors"


def share_rollouts(ranks: Ranks, batch: Batch, version: int, rates: Rates) -> None:
    """Let the other ranks take part in a policy update; they read the batch with `update_record.load_batch`."""
    write = partial(save_batch, samples=batch.samples, rewards_GN=batch.trained_rewards_GN)
    ranks.announce({"version": version, "rates": asdict(rates)}, write)


def share_sequences(ranks: Ranks, sequences: Sequence[TokenSequence], version: int, lr: float) -> None:
    """Let the other ranks take part in an update of fine-tuning; they read `load_sequences`."""
    ranks.announce({"version": version, "lr": lr}, partial(save_sequences, sequences=sequences))


def save_sequences(folder: Path, sequences: Sequence[TokenSequence]) -> None:
    """Write the sequences into `folder`."""
    prompts, completions = [s.prompt_ids for s in sequences], [s.completion_ids for s in sequences]
    save_file(
        {
            "prompt_ids": np.concatenate(prompts),
            "prompt_lengths": np.array([len(ids) for ids in prompts]),
            "completion_ids": np.concatenate(completions),
            "completion_lengths": np.array([len(ids) for ids in completions]),
            "mask": np.concatenate([s.mask for s in sequences]),
        },
        folder / FILE,
    )


def load_sequences(folder: Path) -> list[TokenSequence]:
    """Read what `save_sequences` wrote."""
    data = load_file(folder / FILE)
    prompts = np.split(data["prompt_ids"], np.cumsum(data["prompt_lengths"])[:-1])
    ends = np.cumsum(data["completion_lengths"])[:-1]
    columns = (np.split(data[name], ends) for name in ("completion_ids", "mask"))
    return [TokenSequence(*parts) for parts in zip(prompts, *columns, strict=True)]
