"""Memory of the generating side: weights, KV cache, room in /dev/shm and on the disk. All amounts in bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpo_gsm8k.preflight.memory import ADAMW, ADAMW_8BIT, F32
from grpo_gsm8k.preflight.workload import workload_of

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config
    from grpo_gsm8k.preflight.parameters import ModelShape

CUDA_GRAPHS = 1.0 * 2**30  # vLLM's captured graphs and sampler buffers for a 1.5B to 3B model
SCORED_ROWS = 1024  # prompt positions whose logits vLLM keeps at once (CHUNK_SIZE in sample/prompt_logprob.py)
COMPUTED_CACHE = 0.95  # of a computed cache: beside another process no measurement corrects the estimated overhead
ENGINE_ON_CPU = 1.2 * 2**30  # the process with vLLM and torch imported


@dataclass(frozen=True, slots=True)
class ActorMemory:
    """Memory of one engine, on each of its devices; its cache holds `sequences` of the full context at once."""

    weights: float
    overhead: float
    cache: float
    cache_per_token: float
    sequences: int

    @property
    def total(self) -> float:
        """Memory that the engine allocates."""
        return self.weights + self.overhead + self.cache


def actor_memory(shape: ModelShape, config: Config, device_bytes: float, share: float) -> ActorMemory:
    """Return the memory of an engine with `share` of a device; on a CPU its cache has `actor.kv_cache_mb`."""
    actor = config.actor
    width = 2 if actor.dtype == "bfloat16" else F32
    weights = width * shape.parameters / actor.tensor_parallel
    cache_per_token = 2.0 * shape.layers * shape.key_value * width / actor.tensor_parallel
    if actor.device == "cpu":
        overhead, cache = ENGINE_ON_CPU, actor.kv_cache_mb * 2.0**20
    else:
        # The widest activations of a full token batch, and two copies of float32 logits: of every sequence, or of the
        # prompts that the parity probe has scored.
        widest = actor.max_batched_tokens * (2 * shape.intermediate + 4 * shape.hidden) * width
        rows = max(actor.max_num_seqs, SCORED_ROWS if actor.probe else 0)
        overhead = CUDA_GRAPHS * (not actor.enforce_eager) + widest + 2 * F32 * rows * shape.vocab
        overhead += _adapters(shape, config, width)
        cache = max(0.0, share * device_bytes - weights - overhead)
    sequences = int(cache / (cache_per_token * actor.max_model_len))
    return ActorMemory(weights, overhead, cache, cache_per_token, min(sequences, actor.max_num_seqs))


def _adapters(shape: ModelShape, config: Config, width: int) -> float:
    """Return vLLM's room for adapters, which it reserves for every linear layer and all versions in use at once."""
    lora = config.learner.lora
    if not lora.enabled or config.actor.lora != "adapter":
        return 0.0
    return float(width * config.training.versions_at_once * shape.adapter(lora.rank, ["all-linear"]))


def cache_bytes(shape: ModelShape, config: Config, device_bytes: float, share: float) -> int:
    """Return the size of the KV cache for an engine that is told it, in bytes; 0 if the weights leave no room."""
    return int(COMPUTED_CACHE * actor_memory(shape, config, device_bytes, share).cache)


def shm_bytes(shape: ModelShape, config: Config) -> float:
    """Return the size of all weight versions that are in /dev/shm at once."""
    versions = workload_of(config).weight_versions
    lora = config.learner.lora
    if lora.enabled and config.actor.lora == "adapter":
        return float(versions * F32 * shape.adapter(lora.rank, lora.targets))
    return float(versions * (2 if config.actor.dtype == "bfloat16" else F32) * shape.parameters)


def checkpoint_bytes(shape: ModelShape, config: Config) -> float:
    """Return the size of one checkpoint: float32 weights or an adapter, optimizer state, and those of a critic."""
    learner = config.learner
    lora = learner.lora
    trained = shape.adapter(lora.rank, lora.targets) if lora.enabled else shape.parameters
    each = F32 + (ADAMW if learner.optimizer == "adamw" else ADAMW_8BIT)
    return each * trained * (2.0 if workload_of(config).critic == "separate" else 1.0)


def disk_bytes(shape: ModelShape, config: Config, updates: int) -> float:
    """Return the size of all checkpoints of a run: the last ones, the best, one being written, those for replay."""
    training = config.training
    last = training.keep_last
    if last == "all":
        last = sum(n % training.save_every == 0 or n % training.eval_every == 0 for n in range(1, updates + 1))
    return (last + 2 + workload_of(config).recorded_checkpoints) * checkpoint_bytes(shape, config)
