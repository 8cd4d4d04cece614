"""How long an update takes and what a run costs: from the rates of the devices, later from what was measured.

A roofline: generating waits for the memory (weights and cache are read once a token) or for arithmetic, learning for
arithmetic. The shares of the peak rates that are reached, and the length of an answer, are assumptions, named below;
that is why the estimate is made again after `MEASURED_UPDATES` updates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpo_gsm8k.preflight.devices import Device
from grpo_gsm8k.preflight.memory import TYPICAL_PROMPT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.preflight.engine_memory import ActorMemory
    from grpo_gsm8k.preflight.parameters import ModelShape

MEASURED_UPDATES = 10
TYPICAL_ANSWER = 320  # tokens of a step-by-step answer to a GSM8K question
LEARNING_SHARE = 0.4  # of the bf16 rate
GENERATING_SHARE = 0.5  # of the bf16 rate
BANDWIDTH_SHARE = 0.6
TOKEN_OVERHEAD_S = 0.006  # scheduling and sampling of one engine step
START_S = 90.0  # loading, compiling, capturing graphs
START_ON_CPU_S = 20.0
CORE = Device("cpu core", 0.0, 8.0, 0.04, 0.0)  # one core of a rented CPU, in float32


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of a whole run. `usd` is None where no price is known; `measured_updates` is how many it rests on."""

    step_s: float
    updates: int
    hours: float
    usd: float | None
    usd_per_hour: float | None
    measured_updates: int = 0


def estimate(
    shape: ModelShape,
    config: Config,
    updates: int,
    actor: ActorMemory,
    devices: tuple[Device, Device],
    shared: bool,
    usd_per_hour: float | None,
) -> Estimate:
    """Before the start; `devices` are the actor's and the learner's, `shared` when they are one."""
    on_actor, on_learner = devices
    if config.command == "sft":
        step_s = _learning_s(shape, config, 1.25 * config.sft.min_tokens_per_update, on_learner)
        questions = updates // config.sft.eval_every * (config.sft.eval_limit or config.data.val_size)
        checks_s = 0.0 if not shared else _generating_s(shape, actor, config, questions, on_actor)
    else:
        pg = config.policy_gradient
        answer = min(TYPICAL_ANSWER, pg.max_new_tokens)
        tokens = pg.episodes_per_update * answer + pg.prompts_per_update * TYPICAL_PROMPT
        learning = _learning_s(shape, config, tokens * pg.epochs_per_batch, on_learner)
        generating = _generating_s(shape, actor, config, pg.episodes_per_update, on_actor)
        overlapping = pg.max_staleness > 0 and not shared
        step_s = max(learning, generating) if overlapping else learning + generating
        questions = updates // pg.eval_every * (pg.eval_limit or config.data.val_size)
        checks_s = _generating_s(shape, actor, config, questions, on_actor)
    start = START_ON_CPU_S if on_actor.memory_gib == 0 else START_S
    return _of(step_s, updates, start + checks_s, usd_per_hour)


def refine(before: Estimate, step_seconds: Sequence[float], step: int, elapsed_s: float) -> Estimate:
    """The same once some updates were measured, the last of them `step`, `elapsed_s` after the run's start.

    The mean leaves out the first update, in which kernels are compiled and caches filled, where there are others.
    """
    steady = step_seconds[1:] or step_seconds
    step_s = sum(steady) / len(steady)
    left = max(0, before.updates - step)
    made = _of(step_s, left, elapsed_s, before.usd_per_hour)
    return Estimate(step_s, before.updates, made.hours, made.usd, before.usd_per_hour, len(step_seconds))


def _of(step_s: float, updates: int, besides_s: float, usd_per_hour: float | None) -> Estimate:
    hours = (step_s * updates + besides_s) / 3600
    return Estimate(step_s, updates, hours, None if usd_per_hour is None else hours * usd_per_hour, usd_per_hour)


def _learning_s(shape: ModelShape, config: Config, tokens: float, device: Device) -> float:
    """Per parameter and token 2 operations forwards, 4 backwards, of which frozen ones need 2, and 2 to recompute."""
    learner = config.learner
    operations = 4 if learner.lora.enabled else 6
    operations += 2 if learner.gradient_checkpointing else 0
    # The trunk less its embedding, which multiplies nothing, and the head: just the trunk, tied or not.
    return operations * shape.trunk * tokens / (LEARNING_SHARE * device.bf16_tflops * 1e12)


def _generating_s(shape: ModelShape, actor: ActorMemory, config: Config, answers: int, device: Device) -> float:
    """Rounds of as many sequences as run at once, each as long as an answer."""
    if answers == 0:
        return 0.0
    answer = min(TYPICAL_ANSWER, config.training.max_new_tokens)
    shares = config.actor.replicas
    fitting = int(actor.cache / actor.cache_per_token / (TYPICAL_PROMPT + answer))
    at_once = max(1, min(config.actor.max_num_seqs, fitting, -(-answers // shares)))
    rounds = answers / shares / at_once
    read = actor.weights + at_once * (TYPICAL_PROMPT + answer / 2) * actor.cache_per_token
    waiting = read / (BANDWIDTH_SHARE * device.bandwidth_gb_s * 1e9)
    computing = 2 * shape.parameters * at_once / (GENERATING_SHARE * device.bf16_tflops * 1e12)
    return rounds * answer * (max(waiting, computing) + TOKEN_OVERHEAD_S)
