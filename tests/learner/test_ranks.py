"""A learner of two ranks computes what one rank does: gradients, weights and metrics; ranks that fail are named."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from grpo_gsm8k.learner import checkpoint
from grpo_gsm8k.learner.checkpoint import TrainerState
from tests.learner.conftest import small_config
from tests.learner.two_ranks import GRADIENTS, WEIGHTS, distance, gradient_distances, one_update, opened, spec_of, train

pytestmark = pytest.mark.slow

ALWAYS = ("grpo", "lora", "sft")
PPO = ("policy_gradient=ppo", "policy_gradient.critic.cliprange=0.2")
CASES = {
    "grpo": ("policy_gradient.epochs_per_batch=2", "policy_gradient.minibatches=2"),
    "grpo_kl": ("policy_gradient.kl.coef=0.1", "policy_gradient.off_policy.proximal=recomputed"),
    "ppo_shared": (*PPO, "policy_gradient.critic.kind=shared"),
    "ppo_separate": (*PPO, "policy_gradient.critic.kind=separate", "policy_gradient.kl.coef=0.1"),
    "ppo_pretraining": (*PPO, "policy_gradient.critic.kind=shared", "policy_gradient.critic.pretrain_updates=1"),
    "m2po": ("policy_gradient=m2po", "policy_gradient.m2po.threshold=0.002", "policy_gradient.minibatches=2"),
    "kl_cov": ("policy_gradient=kl_cov", "policy_gradient.kl_cov.fraction=0.1", "policy_gradient.minibatches=2"),
    "clip_cov": (
        *("policy_gradient=clip_cov", "policy_gradient.clip_cov.fraction=0.1", "policy_gradient.clip_cov.low=0.01"),
        "policy_gradient.minibatches=2",
    ),
    "lora": ("learner=lora",),
    "lora_kl": ("learner=lora", "policy_gradient.kl.coef=0.1", "policy_gradient.off_policy.proximal=recomputed"),
    "online_dpo": ("policy_gradient=online_dpo", "policy_gradient.minibatches=2"),
    "sft": ("command=sft",),
    "dpo": ("command=sft", "sft.loss=dpo"),
    "dpo_lora": ("command=sft", "sft.loss=dpo", "learner=lora"),
    "distill": ("policy_gradient=distill", "policy_gradient.teacher.task_weight=0.5"),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in ALWAYS else pytest.mark.more) for name in CASES],
)
def test_two_ranks_learn_what_one_does(name: str, random_model: Path, tmp_path: Path) -> None:
    """The token budget makes several micro-batches, of another composition on two ranks."""
    words = ("learner.token_budget=60", *CASES[name])
    one = one_update(small_config(*words), random_model, tmp_path / "one")
    two = one_update(small_config(*words, "learner.ranks=2"), random_model, tmp_path / "two")
    assert max(gradient_distances(two.gradients, one.gradients)) < GRADIENTS
    assert distance(two.weights, one.weights) < WEIGHTS
    for left, right in zip(two.metrics, one.metrics, strict=True):
        assert left.keys() == right.keys()
        for metric, value in right.items():
            assert math.isclose(left[metric], value, rel_tol=1e-4, abs_tol=1e-6), metric


# One of each kind: no adapters, which are refused, and nothing that differs from another one outside of the passes.
FULL = ("grpo", "sft", "dpo", "ppo_shared", "ppo_separate", "ppo_pretraining", "kl_cov", "distill")


@pytest.mark.parametrize("name", [FULL[0], *(pytest.param(name, marks=pytest.mark.more) for name in FULL[1:])])
def test_divided_models_learn_what_whole_ones_do(name: str, random_model: Path, tmp_path: Path) -> None:
    """FSDP2: gradients of matrices in blocks are known through their norm alone, the others by themselves."""
    words = ("learner.token_budget=60", *CASES[name])
    one = one_update(small_config(*words), random_model, tmp_path / "one")
    full = one_update(small_config(*words, "learner.ranks=2", "learner.shard=full"), random_model, tmp_path / "full")
    assert sum(map(len, full.gradients)) < sum(map(len, one.gradients))
    assert max(gradient_distances(full.gradients, one.gradients)) < GRADIENTS
    assert distance(full.weights, one.weights) < WEIGHTS
    for left, right in zip(full.metrics, one.metrics, strict=True):
        assert left.keys() == right.keys()
        assert math.isclose(left["train/grad_norm"], right["train/grad_norm"], rel_tol=GRADIENTS)
        for metric, value in right.items():
            assert math.isclose(left[metric], value, rel_tol=1e-4, abs_tol=1e-6), metric


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("learner.dtype=bfloat16",), id="bf16"),
        *(
            pytest.param((f"learner.{key}=true",), id=key, marks=pytest.mark.more)
            for key in ("gradient_checkpointing", "offload_optimizer")
        ),
    ],
)
def test_dividing_the_model_changes_no_step(words: tuple[str, ...], random_model: Path, tmp_path: Path) -> None:
    """The same micro-batches on two ranks with whole models; gathering in bf16 rounds as autocast does."""
    found = []
    for shard in ("optimizer", "full"):
        config = small_config("learner.token_budget=60", "learner.ranks=2", f"learner.shard={shard}", *words)
        found.append(one_update(config, random_model, tmp_path / shard))
    whole, full = found
    assert distance(full.weights, whole.weights) < WEIGHTS


@pytest.mark.more
def test_three_ranks(random_model: Path, tmp_path: Path) -> None:
    """More than two, whose sums depend on their order, with the optimizer's state on all of them."""
    words = ("learner.token_budget=60", *CASES["ppo_shared"])
    one = one_update(small_config(*words), random_model, tmp_path / "one")
    three = ("learner.ranks=3", "learner.shard=optimizer")
    found = one_update(small_config(*words, *three), random_model, tmp_path / "three")
    assert max(gradient_distances(found.gradients, one.gradients)) < GRADIENTS
    assert distance(found.weights, one.weights) < WEIGHTS


def test_a_rank_without_samples_takes_part(random_model: Path, tmp_path: Path) -> None:
    """Of two prompts one has no advantage, so one rank has nothing to compute."""
    found = []
    for count in (1, 2):
        spec = spec_of(small_config(f"learner.ranks={count}"), random_model, tmp_path / str(count))
        with opened(spec) as session:
            found.append(train(session, range(2), groups=2))
    one, two = found
    assert max(gradient_distances(two.gradients, one.gradients)) < GRADIENTS
    assert distance(two.weights, one.weights) < WEIGHTS


def test_all_ranks_stop_an_update_early(random_model: Path, tmp_path: Path) -> None:
    words = ("policy_gradient.epochs_per_batch=3", "policy_gradient.target_kl=1e-12")
    one = one_update(small_config(*words), random_model, tmp_path / "one")
    two = one_update(small_config(*words, "learner.ranks=2"), random_model, tmp_path / "two")
    epochs = [[metrics["train/epochs"] for metrics in found.metrics] for found in (one, two)]
    assert epochs[0] == epochs[1]
    assert max(epochs[0]) < 3


@pytest.mark.parametrize(
    "name", ["ppo_separate", *(pytest.param(name, marks=pytest.mark.more) for name in ("lora", "adamw_8bit"))]
)
def test_a_sharded_optimizer_does_the_same_steps(name: str, random_model: Path, tmp_path: Path) -> None:
    """Bit by bit: AdamW computes each parameter by itself. The state of a checkpoint is complete."""
    words = CASES.get(name, ("learner.optimizer=adamw_8bit",))
    found = []
    for shard in ("none", "optimizer"):
        config = small_config(*words, "learner.ranks=2", f"learner.shard={shard}")
        with opened(spec_of(config, random_model, tmp_path / shard)) as session:
            weights = train(session, range(2)).weights
            named = [("policy", session.optimizers.policy), ("critic", session.optimizers.critic)]
            states = {f"{n}/{k}": t for n, o in named if o is not None for k, t in o.state_tensors().items()}
        found.append(weights | states)
    whole, sharded = found
    assert whole.keys() == sharded.keys()
    assert all(torch.equal(sharded[key], value) and sharded[key].dtype == value.dtype for key, value in whole.items())


@pytest.mark.parametrize(
    ("method", "shard"),
    [((), "none"), ((), "optimizer"), ((), "full"), (("learner=lora",), "none")],
    ids=["all weights", "sharded", "divided", "lora"],
)
def test_a_run_continues_with_other_ranks(
    method: tuple[str, ...], shard: str, random_model: Path, tmp_path: Path
) -> None:
    """One rank, then two, then one, with a checkpoint between them: the weights of a run that never stopped."""
    undisturbed = one_update(small_config(*method), random_model, tmp_path / "one")
    resumed = None
    for version, words in enumerate([(), ("learner.ranks=2", f"learner.shard={shard}"), ()]):
        spec = spec_of(small_config(*method, *words), random_model, tmp_path / str(version))
        with opened(spec, resumed) as session:
            found = train(session, range(version, version + 1))
            resumed = checkpoint.save(
                spec.run_folder / "checkpoints",
                TrainerState(version + 1, (), {}, None, spec.config.seed),
                session.models,
                session.optimizers,
                AutoTokenizer.from_pretrained(random_model),
            )
    assert distance(found.weights, undisturbed.weights) < WEIGHTS
