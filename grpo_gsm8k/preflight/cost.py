"""Duration of an update and cost of a run: estimated from device rates, refined from the measured updates.

The estimate is a roofline: generation is bound by memory bandwidth (each token reads weights and KV cache once) or by
arithmetic, learning by arithmetic. New weights are copied to the engine after each update, and on a GPU the contexts of
running requests are then computed again. The achieved shares of the peak rates, the rates of the copies and the length
of an answer are assumptions, named below; that is why the estimate is refined after `MEASURED_UPDATES` updates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpo_gsm8k.data.limits import limit_count
from grpo_gsm8k.preflight.devices import Device
from grpo_gsm8k.preflight.engine_memory import shm_bytes
from grpo_gsm8k.preflight.workload import TYPICAL_PROMPT, answer_tokens, workload_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.preflight.cpu_times import CpuTimes
    from grpo_gsm8k.preflight.engine_memory import ActorMemory
    from grpo_gsm8k.preflight.parameters import ModelShape

MEASURED_UPDATES = 10
# Of the bf16 rate, assumed: eager blocks with a float32 residual stream, small kernels between the products.
LEARNING_SHARE = 0.27
COMPILED_SHARE = 0.35  # assumed, with learner.compile
CPU_SHARE = 0.4  # of CORE's rate
PUBLISH_GB_S = 1.5  # assumed: weights from the device into /dev/shm, with their checksums
LOAD_GB_S = 2.0  # assumed: checksums verified, weights to the engine's device
GENERATING_SHARE = 0.5  # of the bf16 rate
BANDWIDTH_SHARE = 0.6
TOKEN_OVERHEAD_S = 0.006  # scheduling and sampling of one engine step
START_S = 90.0  # loading, compiling, capturing graphs
START_ON_CPU_S = 15.0
CORE = Device("cpu core", 0.0, 8.0, 0.04, 0.0)  # one core of a rented CPU, in float32


@dataclass(frozen=True, slots=True)
class Estimate:
    """Duration and cost of a whole run."""

    step_s: float
    updates: int
    hours: float
    usd: float | None  # None: no price is known
    usd_per_hour: float | None
    measured_updates: int = 0  # updates that `step_s` was measured on; 0: not measured


def estimate(
    shape: ModelShape,
    config: Config,
    updates: int,
    actor: ActorMemory,
    devices: tuple[Device, Device],
    shared: bool,
    usd_per_hour: float | None,
    prompt: float = TYPICAL_PROMPT,
    cpu: CpuTimes | None = None,
) -> Estimate:
    """Estimate a run before its start. `devices` are the actor's and the learner's.

    `shared`: they slow each other down; `prompt` is the mean length of a prompt in tokens; `cpu` predicts a run whose
    processes are both on a CPU with measured rates.
    """
    work, training = workload_of(config, prompt), config.training
    questions = (1 + math.ceil(updates / training.eval_every)) * limit_count(training.eval_limit, config.data.val_size)
    if cpu is not None:
        return _on_measured_cpu(cpu, config, updates, questions, shared, usd_per_hour)
    on_actor, on_learner = devices
    learning = learning_s(shape, config, work.learned_tokens, on_learner)
    generating = _generating_s(shape, actor, config, work.generated, on_actor, prompt)
    if work.generated:
        published = shm_bytes(shape, config) / work.weight_versions / 1e9
        learning += published / PUBLISH_GB_S
        generating += published / LOAD_GB_S
        if work.overlapping and on_actor.name != "cpu":
            generating += _recomputing_s(shape, actor, config, on_actor, prompt)
    step_s = max(learning, generating) if work.overlapping and not shared else learning + generating
    validation_s = 0.0
    if work.waits_for_validations or shared:
        validation_s = _generating_s(shape, actor, config, questions, on_actor, prompt)
    start_s = START_ON_CPU_S if on_actor.name == "cpu" else START_S
    return _whole_run(step_s, updates, start_s + validation_s, usd_per_hour)


def _on_measured_cpu(
    cpu: CpuTimes, config: Config, updates: int, questions: int, shared: bool, usd_per_hour: float | None
) -> Estimate:
    """Estimate a run on a CPU: both sides at once, or one after the other if `shared` or never overlapping."""
    work = workload_of(config)
    learning, generating = cpu.learning_s(config.learner.all_threads), cpu.generating_s(config.actor.threads)
    validating = cpu.validating_s(questions, config.actor.threads)
    if (work.overlapping or not work.generated) and not shared:
        whole = max(updates * learning, updates * generating + validating)
        step_s = max(learning, generating)
    else:
        step_s = learning + generating
        whole = updates * step_s + validating
    return _whole_run(step_s, updates, START_ON_CPU_S + whole - updates * step_s, usd_per_hour)


def refine(before: Estimate, step_seconds: Sequence[float], step: int, elapsed_s: float) -> Estimate:
    """Estimate again from measured updates, the last of which is `step`, `elapsed_s` after the run's start.

    The mean leaves out the first update, which compiles kernels and fills caches, unless it is the only one.
    """
    steady = step_seconds[1:] or step_seconds
    step_s = sum(steady) / len(steady)
    left = max(0, before.updates - step)
    made = _whole_run(step_s, left, elapsed_s, before.usd_per_hour)
    return Estimate(step_s, before.updates, made.hours, made.usd, before.usd_per_hour, len(step_seconds))


def _whole_run(step_s: float, updates: int, other_s: float, usd_per_hour: float | None) -> Estimate:
    hours = (step_s * updates + other_s) / 3600
    return Estimate(step_s, updates, hours, None if usd_per_hour is None else hours * usd_per_hour, usd_per_hour)


def learning_s(shape: ModelShape, config: Config, tokens: float, device: Device) -> float:
    """Seconds for forward and backward passes over `tokens`, of which each GPU of the learner computes its part.

    Operations per parameter and token: 2 forward, 4 backward (2 if frozen), and 2 to recompute with checkpointing.
    """
    learner = config.learner
    operations = 4 if learner.lora.enabled else 6
    operations += 2 if learner.gradient_checkpointing else 0
    # The embedding multiplies nothing and the head does: together as many operations as the trunk's count, tied or not.
    share = CPU_SHARE if device.name == "cpu" else COMPILED_SHARE if learner.compile else LEARNING_SHARE
    gpus = len(learner.devices or [device])
    scored = 0.0
    if shape.teacher is not None:  # once, whatever the number of epochs
        scored = 2 * shape.teacher.trunk * tokens / config.policy_gradient.epochs_per_batch
    return (operations * shape.trunk * tokens + scored) / (gpus * share * device.bf16_tflops * 1e12)


def _recomputing_s(shape: ModelShape, actor: ActorMemory, config: Config, device: Device, prompt: float) -> float:
    """Seconds to compute the contexts of all running requests again with new weights: 2 operations per parameter."""
    context = prompt + answer_tokens(config) / 2
    running = min(actor.sequences, workload_of(config).generated / config.actor.replicas)
    return 2 * shape.parameters * running * context / (GENERATING_SHARE * tflops(device, config) * 1e12)


def tflops(device: Device, config: Config) -> float:
    """Return the rate of one engine; what its GPUs lose by exchanging activations is not counted."""
    return device.bf16_tflops * config.actor.tensor_parallel


def _generating_s(
    shape: ModelShape, actor: ActorMemory, config: Config, answers: int, device: Device, prompt: float
) -> float:
    """Seconds for `answers` completions, in rounds of as many sequences as fit at once."""
    if answers == 0:
        return 0.0
    answer = answer_tokens(config)
    shares = config.actor.replicas
    fitting = int(actor.cache / actor.cache_per_token / (prompt + answer))
    at_once = max(1, min(config.actor.max_num_seqs, fitting, -(-answers // shares)))
    rounds = answers / shares / at_once
    read = actor.weights + at_once * (prompt + answer / 2) * actor.cache_per_token
    waiting = read / (BANDWIDTH_SHARE * device.bandwidth_gb_s * 1e9)
    computing = 2 * shape.parameters * at_once / (GENERATING_SHARE * tflops(device, config) * 1e12)
    return rounds * answer * (max(waiting, computing) + TOKEN_OVERHEAD_S)
