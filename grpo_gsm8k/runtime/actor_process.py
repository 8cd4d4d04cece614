"""Start actor processes: engine settings and environment."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from grpo_gsm8k.actor.engine import EngineSpec
from grpo_gsm8k.models import check_tensor_parallel
from grpo_gsm8k.runtime.process import Deadlines, Deliver, Worker, spawn
from grpo_gsm8k.runtime.worker import actor_main, worker_setup
from grpo_gsm8k.tracking.cpu_allocator import allocator_variables
from grpo_gsm8k.tracking.gpu_list import DEVICE_ORDER, VISIBLE, visible_entry
from grpo_gsm8k.tracking.hardware import usable_cores

if TYPE_CHECKING:
    from pathlib import Path

    from grpo_gsm8k.config import Config


def spawn_actor(config: Config, spec: EngineSpec, logs: Path, index: int, deliver: Deliver) -> Worker:
    """Start the actor process `actor-<index>`."""
    actor = config.actor
    name = f"actor-{index}"
    return spawn(
        name,
        actor_main,
        (worker_setup(logs, name, actor.cores), spec),
        actor_environment(config, index),
        Deadlines(actor.start_timeout_s, actor.progress_timeout_s),
        deliver,
    )


def engine_spec(
    config: Config,
    model_folder: Path,
    lora_rank: int,
    lora_versions: int,
    own_version: int = -1,
    kv_cache_bytes: int | None = None,
) -> EngineSpec:
    """Return the engine settings of `config.actor`; the last four arguments are those of `EngineSpec`.

    Raises UserError if the model's heads cannot be divided among `actor.tensor_parallel` GPUs.
    """
    actor = config.actor
    check_tensor_parallel(model_folder, actor.tensor_parallel)
    return EngineSpec(
        kind=actor.engine,
        model_folder=str(model_folder),
        device=actor.device,
        dtype=actor.dtype,
        gpu_memory=actor.gpu_memory,
        kv_cache_mb=actor.kv_cache_mb,
        max_model_len=actor.max_model_len,
        max_num_seqs=actor.max_num_seqs,
        max_batched_tokens=actor.max_batched_tokens,
        enforce_eager=actor.enforce_eager,
        prefix_caching=actor.prefix_caching,
        lora_rank=lora_rank,
        lora_versions=lora_versions,
        canary_tolerance=actor.canary_tolerance,
        seed=config.seed,
        async_scheduling=actor.async_scheduling,
        tensor_parallel=actor.tensor_parallel,
        sleeps=actor.sleep_between_updates and config.command == "policy_gradient",
        kv_cache_bytes=kv_cache_bytes,
        scripted_lengths=actor.scripted_lengths,
        own_version=own_version,
    )


def _threads_alone(config: Config) -> int:
    """Return the threads of an engine without a learner beside it, as in an evaluation."""
    if config.actor.device != "cpu":
        return 1
    return max(1, usable_cores() // max(config.actor.replicas, config.eval.num_shards))


def engine_variables(config: Config) -> dict[str, str]:
    """Return the variables that vLLM and OpenMP read when they are imported, the same on every machine."""
    actor = config.actor
    values = {
        "OMP_NUM_THREADS": str(actor.threads or _threads_alone(config)),
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, actor.cores)) or "nobind",
        "VLLM_USE_FLASHINFER_SAMPLER": os.environ.get("VLLM_USE_FLASHINFER_SAMPLER", "0"),
    }
    if actor.device == "cpu" and actor.enforce_eager:
        values["TORCHDYNAMO_DISABLE"] = "1"  # else vLLM compiles its log-probability kernel, which needs a C++ compiler
    if actor.device.startswith("cuda:"):
        values |= DEVICE_ORDER | ({"VLLM_BATCH_INVARIANT": "1"} if config.deterministic else {})
    return values


def actor_environment(config: Config, index: int) -> dict[str, str]:
    """Return the variables of actor `index` on this machine, which gets its own GPU.

    Raises UserError if CUDA_VISIBLE_DEVICES does not show that GPU.
    """
    actor = config.actor
    values = engine_variables(config)
    if actor.device == "cpu":
        values |= allocator_variables()
    if actor.device.startswith("cuda:"):
        engine = f"actor.device={actor.device}" + (f" (engine {index})" if index else "")
        numbers = range(actor.first_device(index), actor.first_device(index + 1))
        values[VISIBLE] = ",".join(visible_entry(engine, number, os.environ.get(VISIBLE)) for number in numbers)
    return values
