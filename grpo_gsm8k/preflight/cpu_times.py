"""Seconds of the two parts of an update on a CPU by number of threads, from a run's configuration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpo_gsm8k.config import FORWARD_BEFORE_STEP
from grpo_gsm8k.preflight.cpu_cost import EngineLoad, UpdateLoad, generating_s, learning_s
from grpo_gsm8k.preflight.cpu_rates import MachineRates, cpu_rates
from grpo_gsm8k.preflight.engine_memory import actor_memory, shm_bytes
from grpo_gsm8k.preflight.workload import answer_tokens, workload_of

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config
    from grpo_gsm8k.preflight.machine import Machine
    from grpo_gsm8k.preflight.parameters import ModelShape

COPY_GB_S = 1.0  # published weights written with their checksums, and read again: of one thread, assumed


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Predicted times of a run of `config`; `prompt` is the mean length of a prompt in tokens."""

    shape: ModelShape
    config: Config
    engine: MachineRates
    learner: MachineRates
    prompt: float

    def generating_s(self, threads: int) -> float:
        """Return the seconds of one engine for its part of an update's completions, new weights included."""
        work = workload_of(self.config, self.prompt)
        if not work.generated:
            return 0.0
        return self._answers_s(work.generated, work.prompts, threads) + self._copy_s()

    def validating_s(self, questions: int, threads: int) -> float:
        """Return the seconds of one engine for its part of `questions`, each answered once."""
        return self._answers_s(questions, questions, threads)

    def learning_s(self, threads: int) -> float:
        """Return the seconds of the learner for one update, publishing included."""
        copy = self._copy_s() if workload_of(self.config).generated else 0.0
        return learning_s(self.shape, passes_of(self.shape, self.config, self.prompt), self.learner.at(threads)) + copy

    def _answers_s(self, answers: int, prompts: int, threads: int) -> float:
        engines, answer = self.config.actor.replicas, answer_tokens(self.config)
        memory = actor_memory(self.shape, self.config, 0.0, 0.0)
        fitting = int(memory.cache / memory.cache_per_token / (self.prompt + answer))
        at_once = max(1, min(self.config.actor.max_num_seqs, fitting))
        longest = float(self.config.training.max_new_tokens)  # of many answers, one runs to the limit
        work = EngineLoad(answers / engines, prompts / engines, at_once, self.prompt, answer, longest)
        return generating_s(
            self.shape, work, self.engine.at(threads), 2 if self.config.actor.dtype == "bfloat16" else 4
        )

    def _copy_s(self) -> float:
        return shm_bytes(self.shape, self.config) / workload_of(self.config).weight_versions / (COPY_GB_S * 1e9)


def measured_times(config: Config, machine: Machine, shape: ModelShape, prompt: float) -> CpuTimes | None:
    """Return the times of a run with both processes on this machine's CPU, whose rates are measured if not known yet.

    None for any other run, and where the rates cannot be measured.
    """
    if not (config.actor.engine == "vllm" and config.actor.device == config.learner.device == "cpu"):
        return None
    on_learner, on_actor = config.learner.dtype, config.actor.dtype
    learner = cpu_rates(shape, on_learner, machine.threads)
    engine = learner if on_actor == on_learner else cpu_rates(shape, on_actor, machine.threads)
    return None if engine is None or learner is None else CpuTimes(shape, config, engine, learner, prompt)


def passes_of(shape: ModelShape, config: Config, prompt: float) -> UpdateLoad:
    """Return the passes of one update over its tokens."""
    work, learner, pg = workload_of(config, prompt), config.learner, config.policy_gradient
    trained = shape.adapter(learner.lora.rank, learner.lora.targets) if learner.lora.enabled else shape.parameters
    linears = len(shape.linears) * shape.layers
    tensors = 2 * linears if learner.lora.enabled else linears
    if config.command == "sft":
        epochs, minibatches, models, critic = 1, 1, 1, 0
        forward = 2.0 if config.sft.loss == "dpo" else 0.0  # of the reference, and of the policy before the step
    else:
        epochs, minibatches = pg.epochs_per_batch, pg.minibatches
        critic = int(pg.critic.kind == "separate")
        models = 1 + critic
        forward = float(pg.needs_reference + (pg.off_policy.proximal == "recomputed") + (pg.critic.kind != "none"))
        forward += epochs * (pg.loss_type in FORWARD_BEFORE_STEP)
        if shape.teacher is not None:  # in passes of a model of the policy's size
            forward += shape.teacher.parameters / shape.parameters
    tokens = work.learned_tokens / epochs
    steps = epochs * minibatches
    return UpdateLoad(
        tokens=tokens,
        predicted=work.predicted_tokens / epochs,
        context=work.context,
        microbatches=minibatches * math.ceil(tokens / minibatches / learner.token_budget),
        steps=steps * models,
        trained=trained,
        tensors=tensors,
        training=epochs * models,
        forward=forward,
        frozen=learner.lora.enabled,
        recomputed=learner.gradient_checkpointing,
        adapted=sum(x.outputs for x in shape.adapted(learner.lora.targets)) if learner.lora.enabled else 0.0,
    )
