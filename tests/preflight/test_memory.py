"""The estimated activations equal the tensors that autograd saves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from grpo_gsm8k.learner.batching import Sample, rollout_sample
from grpo_gsm8k.learner.objective import Models, objective
from grpo_gsm8k.learner.setup import open_policy
from grpo_gsm8k.learner.update import microbatches
from grpo_gsm8k.preflight.memory import ADAMW_8BIT, Load, activations, kept_logits, learner_memory, load_of
from grpo_gsm8k.preflight.parameters import ModelShape, from_config
from tests.learner.conftest import small_config

PROMPT, LENGTH = 40, 61
SETTINGS = {
    "full": (),
    "bf16": ("learner.dtype=bfloat16",),
    "checkpointing": ("learner.gradient_checkpointing=true",),
    "lora": ("learner=lora",),
    "lora bf16": ("learner=lora", "learner.dtype=bfloat16"),
    "lora on two layers": ("learner=lora", "learner.lora.targets=[q_proj,v_proj]"),
}


def samples(groups: int, size: int) -> list[Sample]:
    rng = np.random.default_rng(0)
    made = []
    for _ in range(groups):
        prompt = rng.integers(5, 90, size=PROMPT).astype(np.int32)
        for _ in range(size):
            ids = rng.integers(5, 90, size=LENGTH).astype(np.int32)
            made.append(rollout_sample(prompt, ids, np.full(LENGTH, -4.0), np.ones(LENGTH, dtype=bool), 1.0))
    return made


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("size", [1, 6])
def test_activations_are_what_autograd_keeps(random_model: Path, name: str, size: int) -> None:
    config = small_config(*SETTINGS[name])
    policy = open_policy(config.learner, random_model, None)
    (micro,) = microbatches(samples(groups=12 // size, size=size), config, policy.device)
    parameters = {p.untyped_storage().data_ptr() for p in policy.model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)  # kept alive, so that no address is reused
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        objective(Models(policy, None, None), micro, config, 0.0)
    weights = {tuple(p.shape) for p in policy.model.parameters()}
    counted = sum(
        tensor.untyped_storage().nbytes()
        for address, tensor in kept.items()
        if address not in parameters and not ({tuple(tensor.shape), tuple(tensor.shape)[::-1]} & weights)
    )
    tokens, predicted = len(micro.tokens.input_ids_T), len(micro.tokens.targets_N)
    groups = 12 // size
    # The estimate is for one group, so it is multiplied by the number of groups.
    load = Load(tokens // groups, predicted // groups, size if size > 1 else 0, PROMPT)
    shape = from_config(random_model)
    estimate = groups * activations(shape, config.learner, load)
    estimate += kept_logits(shape, config.learner, Load(tokens, predicted, 0, 0))
    assert estimate == pytest.approx(counted, rel=0.08)


def test_full_training_of_a_model_by_hand(shape_3b: ModelShape) -> None:
    config = small_config("learner.device=cuda:0", "learner.dtype=bfloat16")
    memory = learner_memory(shape_3b, config.learner, Load(1000, 900, 0, 0), reference=True, critic="none")
    n = 3_085_938_688
    assert (memory.weights, memory.gradients, memory.optimizer, memory.reference) == (4 * n, 4 * n, 8 * n, 2 * n)
    assert memory.peak > 18 * n


def test_each_switch_saves_what_it_promises(shape_3b: ModelShape) -> None:
    load = Load(8192, 8000, 0, 0)

    def of(*overrides: str):  # type: ignore[no-untyped-def]
        config = small_config("learner.device=cuda:0", "learner.dtype=bfloat16", *overrides)
        return learner_memory(shape_3b, config.learner, load, reference=False, critic="none")

    full, n = of(), 3_085_938_688
    assert of("learner.gradient_checkpointing=true").activations < full.activations / 10
    assert of("learner.optimizer=adamw_8bit").optimizer == ADAMW_8BIT * n < full.optimizer / 3.9
    assert of("learner.offload_optimizer=true").optimizer == 0
    assert of("learner.offload_optimizer=true").host == 16 * n
    lora, qlora = of("learner=lora"), of("learner=qlora", "actor.lora=merged")
    assert lora.weights == pytest.approx(2 * n, rel=0.05)
    assert qlora.weights < 0.4 * lora.weights
    assert of("learner.logprob_chunk=512").logits < full.logits
    small = learner_memory(shape_3b, small_config().learner, Load(4096, 4000, 0, 0), False, "none")
    large = learner_memory(shape_3b, small_config().learner, load, False, "none")
    assert large.activations == pytest.approx(2 * small.activations, rel=0.01)


def test_a_critic_of_its_own_is_a_second_model(shape_3b: ModelShape) -> None:
    learner, load = small_config().learner, Load(4096, 4000, 0, 0)
    alone = learner_memory(shape_3b, learner, load, False, "none")
    assert learner_memory(shape_3b, learner, load, False, "separate").critic == 16 * shape_3b.parameters
    both = learner_memory(shape_3b, learner, load, False, "separate").activations
    assert both == 2 * alone.activations + 4 * shape_3b.vocab * 2048  # logits that the policy keeps meanwhile
    assert learner_memory(shape_3b, learner, load, False, "shared") == alone


def test_a_teacher_is_kept_frozen_beside_the_policy(shape_3b: ModelShape, shape_8b: ModelShape) -> None:
    learner, load = small_config("learner.device=cuda:0", "learner.dtype=bfloat16").learner, Load(4096, 4000, 0, 0)
    alone = learner_memory(shape_3b, learner, load, False, "none")
    beside = learner_memory(replace(shape_3b, teacher=shape_8b), learner, load, False, "none")
    assert beside.teacher == 2 * shape_8b.parameters
    assert beside.peak - alone.peak == beside.teacher  # its pass needs less than those of the training
    # A large one beside a small adapter: its block's values are the peak, 3 x 14336 and 2 x (4096 + 1024) in bf16.
    long = Load(400_000, 4000, 0, 0)
    widest = 400_000 * (3 * 14336 * 2 + 2 * 4096 * 4 + 2 * (4096 + 1024) * 2)
    assert learner_memory(replace(shape_3b, teacher=shape_8b), learner, long, False, "none").teacher_pass == widest


def test_a_sequence_beyond_the_budget_counts_as_a_whole() -> None:
    config = small_config("learner.token_budget=64")
    assert load_of(config).tokens == config.actor.max_model_len == 160
