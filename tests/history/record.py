"""Curves of training with several seeds: the demo's method, DAPO, PPO, LoRA and fine-tuning, 20 updates each.

Renew with `make history`; what changed then has to be explained in the commit.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer

from grpo_gsm8k.data.prepare import ensure, load_split
from grpo_gsm8k.learner.batching import TokenSequence, token_sequence
from grpo_gsm8k.learner.setup import open_models, open_optimizers
from grpo_gsm8k.learner.sft_update import fine_tune
from grpo_gsm8k.learner.task import Task
from grpo_gsm8k.models import EMBEDDED_TINY, stop_token_ids
from tests.learner.conftest import small_config
from tests.learner.golden import INSTRUCTIONS, UPDATES, config_of, updates

RECORDS = Path(__file__).parent / "records"
SEEDS = (0, 1, 2, 3, 4)
METHODS = ("demo", "dapo", "ppo", "lora", "sft")
EXAMPLES = 16  # per update of fine-tuning
METRICS = {  # by name in the records: the metric of a run
    "entropy": "train/entropy",
    "gap": "sync/logprob_gap_mean",
    "grad_norm": "train/grad_norm",
}
Curves = dict[str, list[float]]


def curves(method: str, seed: int, artifacts: Path) -> Curves:
    """Train with one method and seed; returns a number per update for each metric."""
    return fine_tuning(seed, artifacts) if method == "sft" else policy_gradient(method, seed, artifacts)


def policy_gradient(method: str, seed: int, artifacts: Path) -> Curves:
    """Reward, accuracy and the METRICS of each update."""
    group = {"demo": "grpo", "lora": "grpo"}.get(method, method)
    config = config_of(group, *(["learner=lora"] if method == "lora" else []))
    found: Curves = {name: [] for name in ("reward", "accuracy", *METRICS)}
    for stats, batch in updates(config, artifacts, seed):
        values = stats.metrics()
        found["reward"].append(float(batch.rewards_GN.mean()))
        found["accuracy"].append(float(np.mean([g.grade.correct for group in batch.groups for g in group.completions])))
        for name, metric in METRICS.items():
            found[name].append(values[metric])
    return found


def fine_tuning(seed: int, artifacts: Path) -> Curves:
    """Loss, entropy, token accuracy and gradient norm of each update, from random weights."""
    config = small_config()
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_TINY)
    stops = stop_token_ids(EMBEDDED_TINY, tokenizer, config.prompt.chat)
    task = Task(tokenizer, config, stops)
    items, _ = task.training_items(load_split(ensure(config.data, artifacts), "train"))
    models = open_models(config, EMBEDDED_TINY, EMBEDDED_TINY, None)
    with torch.no_grad():  # away from the embedded model's optimum, so that there is something to learn
        for p in models.parameters:
            p.add_(0.1 * p.std() * torch.randn_like(p) if p.numel() > 1 else 0.0)
    optimizer = open_optimizers(models, config.learner).policy
    found: Curves = {name: [] for name in ("loss", "entropy", "accuracy", "grad_norm")}
    for update in range(UPDATES):
        first = (seed * UPDATES + update) * EXAMPLES
        chosen = [items[(first + i) % len(items)] for i in range(EXAMPLES)]
        sequences = [_solved(tokenizer, item.prompt_ids, item.problem.answer, stops[0]) for item in chosen]
        stats = fine_tune(models.policy, optimizer, sequences, config.learner, config.learner.lr, _ignore)
        values = stats.metrics(0.0, 1.0)
        for name in found:
            found[name].append(values["train/token_accuracy" if name == "accuracy" else f"train/{name}"])
    return found


def _solved(tokenizer: object, prompt_ids: np.ndarray, answer: str, stop: int) -> TokenSequence:
    ids = [*tokenizer(answer, add_special_tokens=False)["input_ids"], stop]  # type: ignore[operator]
    return token_sequence(prompt_ids, np.array(ids, dtype=np.int32))


def _ignore() -> None:
    """Nobody waits for a sign of life."""


def read(method: str) -> dict[str, dict[int, list[float]]]:
    """Return the recorded curves of a method by metric and seed."""
    content = json.loads((RECORDS / f"{method}.json").read_text())
    return {metric: {int(seed): curve for seed, curve in seeds.items()} for metric, seeds in content.items()}


def main(folder: Path, methods: list[str], seeds: list[int]) -> None:
    """Write the curves of the methods to `<folder>/<method>.json`, by metric and seed."""
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as artifacts:
        for method in methods:
            found = {seed: curves(method, seed, Path(artifacts)) for seed in seeds}
            by_metric = {metric: {seed: found[seed][metric] for seed in seeds} for metric in found[seeds[0]]}
            (folder / f"{method}.json").write_text(json.dumps(by_metric, indent=1) + "\n")
            print(method, flush=True)


if __name__ == "__main__":
    if not os.environ.keys() >= INSTRUCTIONS.keys():  # they are read when torch is imported
        os.execve(sys.executable, [sys.executable, "-m", __spec__.name, *sys.argv[1:]], {**os.environ, **INSTRUCTIONS})
    seeds = [int(word) for word in sys.argv[2:] if word.isdigit()]
    methods = [word for word in sys.argv[2:] if not word.isdigit()]
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else RECORDS, methods or list(METHODS), seeds or list(SEEDS))
