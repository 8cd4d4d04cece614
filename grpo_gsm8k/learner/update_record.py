"""Inputs and outcome of one policy update, kept so that it can be replayed: `records/step_<N>/` of a run.

before/step_<N-1>/      a checkpoint from before the update: weights, optimizer, random state
batch.safetensors       the rollouts: token ids, behaviour log-probabilities, rewards
result.json             minibatch seed, rates, loss and gradient norm of the update
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import load_file, save_file

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.files.json_lines import read_json
from grpo_gsm8k.learner.batching import Sample, rollout_sample
from grpo_gsm8k.learner.schedules import Rates

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """Outcome of the recorded update; both numbers are means over its optimizer steps."""

    loss: float
    grad_norm: float


@dataclass(frozen=True, slots=True)
class UpdateRecord:
    """One recorded update; `version` is the number of updates before it."""

    version: int
    samples: list[list[Sample]]
    rewards_GN: np.ndarray
    rates: Rates
    result: UpdateResult


def save_batch(folder: Path, samples: list[list[Sample]], rewards_GN: np.ndarray) -> None:
    """Write the rollouts of G groups of N samples into `folder`."""
    flat = [s for group in samples for s in group]
    save_file(
        {
            "prompt_ids": np.concatenate([group[0].prompt_ids for group in samples]),
            "prompt_lengths": np.array([len(group[0].prompt_ids) for group in samples]),
            "completion_ids": np.concatenate([s.completion_ids for s in flat]),
            "completion_lengths": np.array([len(s.completion_ids) for s in flat]),
            "behaviour_logprobs": np.concatenate([s.behaviour_logprobs for s in flat]),
            "mask": np.concatenate([s.mask for s in flat]),
            "fresh": np.concatenate([s.on_policy for s in flat]),
            "counted": np.array([s.in_loss for s in flat]),
            "rewards_GN": np.asarray(rewards_GN, dtype=np.float64),
        },
        folder / "batch.safetensors",
    )


def load_batch(folder: Path) -> tuple[list[list[Sample]], np.ndarray]:
    """Read what `save_batch` wrote; records from before masks existed predict every token."""
    data = load_file(folder / "batch.safetensors")
    data.setdefault("mask", np.ones(len(data["completion_ids"]), dtype=np.bool_))
    prompts = _split(data["prompt_ids"], data["prompt_lengths"])
    columns = [
        _split(data[name], data["completion_lengths"])
        for name in ("completion_ids", "behaviour_logprobs", "fresh", "mask")
    ]
    rewards_GN = data["rewards_GN"]
    size = rewards_GN.shape[1]
    flat = [
        rollout_sample(prompts[i // size], ids, logprobs, on_policy, in_loss=bool(data["counted"][i]), mask=mask)
        for i, (ids, logprobs, on_policy, mask) in enumerate(zip(*columns, strict=True))
    ]
    return [flat[g * size : (g + 1) * size] for g in range(len(prompts))], rewards_GN


def save_result(folder: Path, version: int, rates: Rates, result: UpdateResult) -> None:
    """Complete a record; without this file it is incomplete."""
    text = json.dumps({"version": version, "rates": asdict(rates), "result": asdict(result)}, indent=1)
    (folder / "result.json").write_text(text)


def load(run: Path, step: int) -> tuple[UpdateRecord, Path]:
    """Read the record of update `step`, counted from 1, and locate its checkpoint. Raises UserError."""
    folder = run / "records" / f"step_{step}"
    if not (folder / "result.json").is_file():
        known = sorted(int(p.parent.name.removeprefix("step_")) for p in run.glob("records/step_*/result.json"))
        raise UserError(
            f"step={step}: {run} has no record of it (recorded: {known or 'none'}): train with "
            "policy_gradient.record=true"
        )
    values = read_json(folder / "result.json")
    samples, rewards_GN = load_batch(folder)
    record = UpdateRecord(
        values["version"], samples, rewards_GN, Rates(**values["rates"]), UpdateResult(**values["result"])
    )
    return record, folder / "before" / f"step_{step - 1}"


def prune(run: Path, keep: int) -> None:
    """Delete all but the last `keep` records: each holds a whole checkpoint."""
    folders = sorted(run.glob("records/step_*"), key=lambda path: int(path.name.removeprefix("step_")))
    for folder in folders[:-keep]:
        shutil.rmtree(folder)


def _split(values: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    return np.split(values, np.cumsum(lengths)[:-1])
