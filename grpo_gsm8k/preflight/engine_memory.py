"""What the generating side needs: weights, keys and values, room in /dev/shm and on the disk. All amounts in bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpo_gsm8k.preflight.memory import ADAMW, ADAMW_8BIT, F32

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config
    from grpo_gsm8k.preflight.parameters import ModelShape

CUDA_GRAPHS = 1.0 * 2**30  # vLLM's captured graphs and sampler buffers, of a 1.5B to 3B model
ENGINE_ON_CPU = 1.2 * 2**30  # the process with vLLM and torch imported
SFT_VERSIONS = 3  # two validations under way and the version that is written, see learner.sft
PG_VERSIONS = 2  # the one that is loaded and the one that is written


@dataclass(frozen=True, slots=True)
class ActorMemory:
    """Of one engine; `sequences` of the full context fit into its cache at once."""

    weights: float
    overhead: float
    cache: float
    cache_per_token: float
    sequences: int

    @property
    def total(self) -> float:
        """What the engine takes."""
        return self.weights + self.overhead + self.cache


def actor_memory(shape: ModelShape, config: Config, device_bytes: float, share: float) -> ActorMemory:
    """The engine of `config.actor` with `share` of a device; on a CPU its cache has `actor.kv_cache_mb`."""
    actor = config.actor
    width = 2 if actor.dtype == "bfloat16" else F32
    weights = float(width * shape.parameters)
    cache_per_token = 2.0 * shape.layers * shape.key_value * width
    if actor.device == "cpu":
        overhead, cache = ENGINE_ON_CPU, actor.kv_cache_mb * 2.0**20
    else:
        # Its profiling run: the widest values of a full batch of tokens, and float32 logits of every sequence.
        profiled = actor.max_batched_tokens * (2 * shape.intermediate + 4 * shape.hidden) * width
        overhead = CUDA_GRAPHS * (not actor.enforce_eager) + profiled + 2 * F32 * actor.max_num_seqs * shape.vocab
        cache = max(0.0, share * device_bytes - weights - overhead)
    sequences = int(cache / (cache_per_token * actor.max_model_len))
    return ActorMemory(weights, overhead, cache, cache_per_token, min(sequences, actor.max_num_seqs))


def shm_bytes(shape: ModelShape, config: Config) -> float:
    """All versions of the weights that lie in /dev/shm at once."""
    versions = SFT_VERSIONS if config.command == "sft" else PG_VERSIONS
    lora = config.learner.lora
    if lora.enabled and config.actor.lora == "adapter":
        return float(versions * F32 * shape.adapter(lora.rank, lora.targets))
    return float(versions * (2 if config.actor.dtype == "bfloat16" else F32) * shape.parameters)


def checkpoint_bytes(shape: ModelShape, config: Config) -> float:
    """One checkpoint: weights in float32, or an adapter, and the optimizer's state; a critic's too."""
    learner = config.learner
    lora = learner.lora
    trained = shape.adapter(lora.rank, lora.targets) if lora.enabled else shape.parameters
    each = F32 + (ADAMW if learner.optimizer == "adamw" else ADAMW_8BIT)
    critic = config.command != "sft" and config.policy_gradient.critic.kind == "separate"
    return each * trained * (2.0 if critic else 1.0)


def disk_bytes(shape: ModelShape, config: Config) -> float:
    """The last checkpoints, the best one, and the one that is written before an old one goes."""
    training = config.training
    records = training.keep_last if config.command != "sft" and config.policy_gradient.record else 0
    return (training.keep_last + 2 + records) * checkpoint_bytes(shape, config)
