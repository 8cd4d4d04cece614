"""What one policy update consumed, kept so that it can be computed again: `records/step_<N>/` of a run.

before/step_<N-1>/      a checkpoint from before the update: weights, optimizer, random state
batch.safetensors       the rollouts: token ids, behaviour log-probabilities, rewards
result.json             seed of the minibatches, rates, loss and gradient norm of the update
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import load_file, save_file

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.learner.batching import Sample, rollout_sample
from grpo_gsm8k.learner.update import Rates

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Result:
    """Outcome of the recorded update; both numbers are means over its optimizer steps."""

    loss: float
    grad_norm: float


@dataclass(frozen=True, slots=True)
class Record:
    """One recorded update. `version` counts the updates before it."""

    version: int
    samples: list[list[Sample]]
    rewards_GN: np.ndarray
    rates: Rates
    result: Result


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
            "fresh": np.concatenate([s.fresh for s in flat]),
            "counted": np.array([s.counted for s in flat]),
            "rewards_GN": np.asarray(rewards_GN, dtype=np.float64),
        },
        folder / "batch.safetensors",
    )


def load_batch(folder: Path) -> tuple[list[list[Sample]], np.ndarray]:
    """Inverse of `save_batch`."""
    data = load_file(folder / "batch.safetensors")
    prompts = _split(data["prompt_ids"], data["prompt_lengths"])
    columns = [
        _split(data[name], data["completion_lengths"]) for name in ("completion_ids", "behaviour_logprobs", "fresh")
    ]
    rewards_GN = data["rewards_GN"]
    size = rewards_GN.shape[1]
    flat = [
        rollout_sample(prompts[i // size], ids, logprobs, fresh, counted=bool(data["counted"][i]))
        for i, (ids, logprobs, fresh) in enumerate(zip(*columns, strict=True))
    ]
    return [flat[g * size : (g + 1) * size] for g in range(len(prompts))], rewards_GN


def save_result(folder: Path, version: int, rates: Rates, result: Result) -> None:
    """Complete a record: one without this file is not whole."""
    text = json.dumps({"version": version, "rates": asdict(rates), "result": asdict(result)}, indent=1)
    (folder / "result.json").write_text(text)


def load(run: Path, step: int) -> tuple[Record, Path]:
    """The record of update `step`, counted from 1, and the checkpoint from before it. Raises UserError."""
    folder = run / "records" / f"step_{step}"
    if not (folder / "result.json").is_file():
        known = sorted(int(p.parent.name.removeprefix("step_")) for p in run.glob("records/step_*/result.json"))
        raise UserError(
            f"step={step}: {run} has no record of it (there are {known or 'none'}): train with "
            "policy_gradient.record=true"
        )
    values = json.loads((folder / "result.json").read_text())
    samples, rewards_GN = load_batch(folder)
    record = Record(values["version"], samples, rewards_GN, Rates(**values["rates"]), Result(**values["result"]))
    return record, folder / "before" / f"step_{step - 1}"


def prune(run: Path, keep: int) -> None:
    """Keep the last `keep` records: each holds a whole checkpoint."""
    folders = sorted(run.glob("records/step_*"), key=lambda path: int(path.name.removeprefix("step_")))
    for folder in folders[:-keep]:
        shutil.rmtree(folder)


def _split(values: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    return np.split(values, np.cumsum(lengths)[:-1])
