"""Rates of a run that has not been made, from the same assumptions and measurements as the preflight's estimate."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from grpo_gsm8k.data.limits import limit_count
from grpo_gsm8k.planning.rates import EngineRates, LearnerRates, Lengths, Network, Pipeline
from grpo_gsm8k.preflight import cost, cpu_cost
from grpo_gsm8k.preflight.cpu_times import COPY_GB_S, passes_of
from grpo_gsm8k.preflight.engine_memory import actor_memory, checkpoint_bytes, shm_bytes
from grpo_gsm8k.preflight.memory import F32
from grpo_gsm8k.preflight.workload import TYPICAL_PROMPT, answer_tokens, workload_of

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config
    from grpo_gsm8k.preflight.cpu_rates import CpuRates
    from grpo_gsm8k.preflight.cpu_times import CpuTimes
    from grpo_gsm8k.preflight.devices import Device
    from grpo_gsm8k.preflight.parameters import ModelShape

MESSAGE_S = 0.005  # assumed, from the learner to an engine: two pipes and the orchestrator between them
RECORDS_S = 0.05  # assumed: metrics, ledger and the file of rollouts of one update
EXCHANGE_GB_S = 20.0  # assumed, between two GPUs of a machine over PCIe
SPREAD = 4.0  # assumed lengths: gamma-distributed with this shape, so with half of their mean as standard deviation
GROUPS = 64  # groups of assumed lengths
SCRIPTED_STEP_S, SCRIPTED_TOKEN_S = 0.0011, 1e-5  # of the scripted engine, on a core of 2026
VERIFY_SHARE = 0.5  # assumed part of the copy's time that goes by beside the engine: checksums


def on_gpus(shape: ModelShape, config: Config, actor: Device, learner: Device, source: str) -> Pipeline:
    """Return the rates on two kinds of GPUs by the roofline of `preflight/cost.py`."""
    engine = gpu_engine(shape, config, actor)
    one = config.model_copy(update={"learner": config.learner.model_copy(update={"devices": None})})
    token_s = cost.learning_s(shape, one, 1.0, learner)
    published = published_bytes(shape, config)
    return _pipeline(shape, config, engine, token_s, published / (cost.PUBLISH_GB_S * 1e9), source)


def gpu_engine(shape: ModelShape, config: Config, device: Device) -> EngineRates:
    """Return the rates of one engine on a GPU."""
    memory = actor_memory(shape, config, device.memory_gib * 2**30, config.actor.gpu_memory)
    answer = answer_tokens(config)
    read = cost.BANDWIDTH_SHARE * device.bandwidth_gb_s * 1e9
    token_s = 2 * shape.parameters / (cost.GENERATING_SHARE * cost.tflops(device, config) * 1e12)
    fitting = int(memory.cache / memory.cache_per_token / (TYPICAL_PROMPT + answer))
    loaded = published_bytes(shape, config) / (cost.LOAD_GB_S * 1e9)
    return EngineRates(
        step_s=cost.TOKEN_OVERHEAD_S,
        sequence_s=0.0,
        prompt_token_s=token_s,
        max_sequences=max(1, min(config.actor.max_num_seqs, fitting)),
        load_s=loaded * (1 - VERIFY_SHARE),
        verify_s=loaded * VERIFY_SHARE,
        weights_s=memory.weights / read,
        cache_s=(TYPICAL_PROMPT + answer / 2) * memory.cache_per_token / read,
        compute_s=token_s,
    )


def on_cpu(times: CpuTimes) -> Pipeline:
    """Return the rates on this machine's CPU by the measured ones of `preflight/cpu_cost.py`."""
    shape, config = times.shape, times.config
    load = passes_of(shape, config, times.prompt)
    seconds = cpu_cost.learning_s(shape, load, times.learner.at(config.learner.threads))
    token_s = seconds / workload_of(config, times.prompt).learned_tokens
    engine = cpu_engine(shape, config, times.engine.at(config.actor.threads), times.prompt)
    copied = published_bytes(shape, config) / (COPY_GB_S * 1e9)
    return _pipeline(shape, config, engine, token_s, copied, "this CPU's measured rates", times.prompt)


def cpu_engine(shape: ModelShape, config: Config, rates: CpuRates, prompt: float) -> EngineRates:
    """Return the rates of one engine on a CPU: the terms of `cpu_cost.generating_s` by step, sequence and prompt."""
    answer = answer_tokens(config)
    memory = actor_memory(shape, config, 0.0, 0.0)
    fitting = int(memory.cache / memory.cache_per_token / (prompt + answer))
    width = 2 if config.actor.dtype == "bfloat16" else 4
    inner = shape.layers * (shape.hidden + shape.intermediate) * cpu_cost.ENGINE_VALUES / rates.values
    operations = (cpu_cost.SEQUENCE_OPS + cpu_cost.ANSWER_OPS / answer) / rates.small_ops
    attention = 4 * shape.layers * shape.query * (prompt + answer / 2) / rates.generating
    copied = published_bytes(shape, config) / (COPY_GB_S * 1e9)
    return EngineRates(
        step_s=(cpu_cost.STEP_OPS + shape.layers * cpu_cost.LAYER_OPS) / rates.small_ops,
        sequence_s=operations + shape.vocab * cpu_cost.SAMPLED_VALUES / rates.values + inner + attention,
        prompt_token_s=(2 * shape.linear + 2 * shape.layers * shape.query * prompt) / rates.learning + inner,
        max_sequences=max(1, min(config.actor.max_num_seqs, fitting)),
        load_s=copied * (1 - VERIFY_SHARE),
        verify_s=copied * VERIFY_SHARE,
        weights_s=width * shape.parameters / rates.reading,
        compute_s=2 * (shape.linear + shape.head) / rates.generating,
    )


def scripted_pipeline(shape: ModelShape, config: Config) -> Pipeline:
    """Return the rates of the engine without a model, beside a learner of which only a recorded run knows more."""
    engine = EngineRates(SCRIPTED_STEP_S, SCRIPTED_TOKEN_S, 0.0, config.actor.max_num_seqs, 0.0, 0.0)
    return _pipeline(shape, config, engine, 0.0, 0.0, "the scripted engine, beside a learner that takes no time")


def assumed_lengths(config: Config, prompt: float = TYPICAL_PROMPT) -> Lengths:
    """Return lengths around the preflight's mean, up to the limit; all at the limit for an untrained model."""
    limit, mean, rng = config.training.max_new_tokens, answer_tokens(config), random.Random(config.seed)

    def length() -> int:
        return limit if mean >= limit else max(1, min(limit, round(rng.gammavariate(SPREAD, mean / SPREAD))))

    size = config.policy_gradient.group_size
    questions = limit_count(config.training.eval_limit, config.data.val_size)
    groups = tuple(tuple(length() for _ in range(size)) for _ in range(GROUPS))
    return Lengths(groups, tuple(length() for _ in range(questions)), round(prompt))


def published_bytes(shape: ModelShape, config: Config) -> float:
    """Return the size of one published version."""
    return shm_bytes(shape, config) / workload_of(config).weight_versions


def _pipeline(
    shape: ModelShape,
    config: Config,
    engine: EngineRates,
    token_s: float,
    publish_s: float,
    source: str,
    prompt: float = TYPICAL_PROMPT,
) -> Pipeline:
    pg, lora = config.policy_gradient, config.learner.lora
    gradients = F32 * (shape.adapter(lora.rank, lora.targets) if lora.enabled else shape.parameters)
    learner = LearnerRates(
        token_s=token_s,
        update_s=0.0,
        publish_s=publish_s,
        records_s=RECORDS_S,
        checkpoint_s=checkpoint_bytes(shape, config) / (cost.PUBLISH_GB_S * 1e9),
        ranks=len(config.learner.rank_devices),
        exchange_s=pg.epochs_per_batch * pg.minibatches * 2 * gradients / (EXCHANGE_GB_S * 1e9),
    )
    network = Network(MESSAGE_S, published_bytes(shape, config), None, config.cluster.actors_per_node)
    return Pipeline(engine, learner, network, assumed_lengths(config, prompt), source)
