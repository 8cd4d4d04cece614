"""Loss curves of every named setting: synchronous updates of the embedded model in float32, sampled in this process.

Regenerate with `make golden`; what changed then has to be explained in the commit.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from benchmarks.in_process import completion_of
from cli import CONF
from grpo_gsm8k.config import Config
from grpo_gsm8k.data.prepare import ensure, load_split
from grpo_gsm8k.learner.experience import prepare
from grpo_gsm8k.learner.rollout_batch import Batch, RolloutGroup, assemble
from grpo_gsm8k.learner.schedules import Decay, Rates, lr_scale
from grpo_gsm8k.learner.setup import open_models, open_optimizers
from grpo_gsm8k.learner.task import Item, Task
from grpo_gsm8k.learner.update import update_policy
from grpo_gsm8k.learner.update_stats import UpdateStats
from grpo_gsm8k.models import EMBEDDED_TINY, stop_token_ids
from grpo_gsm8k.start_model import start_folder
from tests.learner.conftest import small_config

GOLDEN = Path(__file__).parent.parent / "golden"
SETTINGS = sorted(path.stem for path in (CONF / "policy_gradient").glob("*.yaml"))
UPDATES, PROMPTS, GROUP = 20, 4, 8
RECORDED = 10  # of the updates: rounding errors that grow exceed any useful tolerance on another processor after them
# The same instructions on every x86 processor of the last ten years: wider ones add up in another order.
INSTRUCTIONS = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"}


def config_of(setting: str, *more: str) -> Config:
    return small_config(
        f"policy_gradient={setting}",
        f"policy_gradient.updates={UPDATES}",
        f"policy_gradient.group_size={GROUP}",
        f"policy_gradient.episodes_per_update={PROMPTS * GROUP}",
        "policy_gradient.active_sampling=0",  # the orchestrator's part
        "policy_gradient.max_new_tokens=40",
        *more,
    )


def curve(setting: str, artifacts: Path) -> dict[str, list[float]]:
    """Loss and gradient norm of the first updates. (GRPO's loss is zero at a ratio of 1; its gradient is not.)"""
    first = islice(updates(config_of(setting), artifacts), RECORDED)
    numbers = [stats.loss_and_grad_norm() for stats, _ in first]
    losses, grad_norms = zip(*numbers, strict=True)
    return {"loss": list(losses), "grad_norm": list(grad_norms)}


def updates(config: Config, artifacts: Path, seed: int = 0) -> Iterator[tuple[UpdateStats, Batch]]:
    """Yield the statistics and the batch of each update; `seed` decides which prompts and which tokens are sampled."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_TINY)
    task = Task(tokenizer, config, stop_token_ids(EMBEDDED_TINY, tokenizer, config.prompt.chat))
    items = of_one_length(task.training_items(load_split(ensure(config.data, artifacts), "train"))[0])
    models = open_models(config, EMBEDDED_TINY, EMBEDDED_TINY, None, teacher_of(config, artifacts))
    optimizers = open_optimizers(models, config.learner)
    sampler = AutoModelForCausalLM.from_pretrained(EMBEDDED_TINY, dtype=torch.float32, attn_implementation="sdpa")
    for version in range(UPDATES):
        sampler.load_state_dict(dict(models.policy.merged_tensors()), strict=False)  # a tied head comes once
        first = (seed * UPDATES + version) * PROMPTS
        chosen = [items[(first + i) % len(items)] for i in range(PROMPTS)]
        groups = rollout(sampler, task, chosen, version, 40, seed * UPDATES + version)
        if config.policy_gradient.advantage_name == "greedy_baseline":
            groups = with_baselines(sampler, task, groups, version, 40)
        batch = assemble(groups, config, version)
        scale = lr_scale(version, UPDATES, config.learner.warmup_updates, Decay.of(config.learner))
        rates = Rates(config.learner.lr * scale, config.policy_gradient.critic.lr * scale, 0.0)
        experience = prepare(batch.samples, batch.trained_rewards_GN, models, config, 0.0, _ignore)
        yield update_policy(models, optimizers, experience.groups, config, version, rates, _ignore), batch


def teacher_of(config: Config, artifacts: Path) -> Path | None:
    """A model with random weights for a method that needs a teacher, else None."""
    if config.policy_gradient.advantage_name != "distill":
        return None
    return start_folder(config.model_copy(update={"model": config.model.model_copy(update={"init": "random"})}))


def of_one_length(items: list[Item]) -> list[Item]:
    """Those of the commonest prompt length: no padding is needed to sample them together."""
    ((length, _),) = Counter(len(item.prompt_ids) for item in items).most_common(1)
    return [item for item in items if len(item.prompt_ids) == length]


def rollout(model: Any, task: Task, items: list[Item], version: int, limit: int, seed: int) -> list[RolloutGroup]:
    """Sample a group of every item, all at once."""
    generator = torch.Generator().manual_seed(seed)
    rows = generate(model, np.repeat([item.prompt_ids for item in items], GROUP, axis=0), limit, generator)
    completions = [completion_of(*row, task.stop_token_ids, version) for row in rows]
    return [
        RolloutGroup(0, item, task.start_grading(item, completions[i * GROUP : (i + 1) * GROUP]).result())
        for i, item in enumerate(items)
    ]


def with_baselines(model: Any, task: Task, groups: list[RolloutGroup], version: int, limit: int) -> list[RolloutGroup]:
    """Add the greedy completion of every prompt."""
    rows = generate(model, np.array([group.item.prompt_ids for group in groups]), limit, None)
    found = []
    for group, row in zip(groups, rows, strict=True):
        completion = completion_of(*row, task.stop_token_ids, version)
        (graded,) = task.start_grading(group.item, [completion]).result()
        found.append(replace(group, baseline=graded))
    return found


@torch.no_grad()
def generate(
    model: Any, prompts_SP: np.ndarray, limit: int, generator: torch.Generator | None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Ids and log-probabilities of `limit` tokens behind each prompt; without a generator the most likely ones."""
    step_ids = torch.tensor(prompts_SP, dtype=torch.long)
    cache = DynamicCache()
    tokens, logprobs = [], []
    for _ in range(limit):
        logits = model(step_ids, past_key_values=cache).logits[:, -1].double()
        rows = torch.log_softmax(logits, dim=-1)
        if generator is None:
            step_ids = rows.argmax(dim=-1, keepdim=True)
        else:
            step_ids = torch.multinomial(rows.exp(), 1, generator=generator)
        tokens.append(step_ids[:, 0])
        logprobs.append(rows.gather(1, step_ids)[:, 0])
    ids_SR, logprobs_SR = torch.stack(tokens, 1).numpy(), torch.stack(logprobs, 1).numpy()
    return list(zip(ids_SR, logprobs_SR, strict=True))


def _ignore() -> None:
    """Nobody waits for a sign of life."""


def main(folder: Path, settings: Sequence[str]) -> None:
    """Write the curve of each setting to `<folder>/<setting>.json`."""
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as artifacts:
        for name in settings:
            (folder / f"{name}.json").write_text(json.dumps(curve(name, Path(artifacts)), indent=1) + "\n")
            print(name, flush=True)


if __name__ == "__main__":
    if not os.environ.keys() >= INSTRUCTIONS.keys():  # they are read when torch is imported
        os.execve(sys.executable, [sys.executable, "-m", __spec__.name, *sys.argv[1:]], {**os.environ, **INSTRUCTIONS})
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else GOLDEN, sys.argv[2:] or list(SETTINGS))
