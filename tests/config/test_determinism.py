"""`deterministic=true`: what it sets, and which settings it refuses because timing would decide the result."""

from __future__ import annotations

import pytest

from cli import load_config
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.runtime.actor_process import engine_variables

CPU = ("command=policy_gradient", "preset=cpu_demo", "deterministic=true")
GPUS = ("command=policy_gradient", "deterministic=true")
SYNCHRONOUS = "policy_gradient.max_staleness=0"


def test_the_learner_is_deterministic_and_a_gpu_engine_batch_invariant() -> None:
    on_cpu, on_gpus = load_config([*CPU, SYNCHRONOUS]), load_config([*GPUS, SYNCHRONOUS])
    assert on_cpu.learner.deterministic
    assert on_gpus.learner.deterministic
    assert engine_variables(on_gpus)["VLLM_BATCH_INVARIANT"] == "1"
    assert "VLLM_BATCH_INVARIANT" not in engine_variables(on_cpu)
    assert "VLLM_BATCH_INVARIANT" not in engine_variables(load_config(["command=policy_gradient"]))


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        ((*CPU, "policy_gradient.max_staleness=2"), SYNCHRONOUS),
        ((*CPU, "policy_gradient.max_staleness=1", "policy_gradient.late=drop"), SYNCHRONOUS),
        ((*CPU, SYNCHRONOUS, "actor.replicas=2"), "actor.replicas=1"),
        ((*GPUS, SYNCHRONOUS, "learner=lora"), "actor.lora=merged"),
        ((*GPUS, SYNCHRONOUS, "cluster=ray"), "cluster=local"),
    ],
)
def test_what_depends_on_timing_is_refused(words: tuple[str, ...], fix: str) -> None:
    with pytest.raises(UserError, match=f"deterministic=true is for runs that repeat bit by bit, .*: set {fix}"):
        load_config(list(words))


@pytest.mark.parametrize(
    "words",
    [
        (*GPUS, SYNCHRONOUS, "actor.replicas=2", "learner.device=cuda:2"),
        ("command=sft", "deterministic=true", "policy_gradient.max_staleness=2"),
    ],
)
def test_what_does_not_is_allowed(words: tuple[str, ...]) -> None:
    assert load_config(list(words)).learner.deterministic


def test_a_learner_that_is_told_otherwise_is_refused() -> None:
    with pytest.raises(UserError, match=r"learner\.deterministic=false contradicts deterministic=true"):
        load_config([*CPU, SYNCHRONOUS, "learner.deterministic=false"])
