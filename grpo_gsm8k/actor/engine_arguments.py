"""Settings of vLLM's engine and of its requests. Only `vllm_engine` imports this module: it sets vLLM's variables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vllm import EngineArgs, SamplingParams
from vllm.config import WeightTransferConfig
from vllm.sampling_params import RequestOutputKind

if TYPE_CHECKING:
    from grpo_gsm8k.actor.engine import EngineSpec
    from grpo_gsm8k.transport.protocol import GenerateGroup

LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # those for which vLLM has kernels


def canary_params(token: int) -> SamplingParams:
    """Return the parameters of a request for the log-probability of one token."""
    return SamplingParams(
        temperature=0.0,
        max_tokens=1,
        logprob_token_ids=[token],
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def engine_args(spec: EngineSpec, extension: str) -> EngineArgs:
    """Return the engine's arguments; `extension` is the dotted name of the class that is added to its worker."""
    device: dict[str, Any] = {"gpu_memory_utilization": spec.gpu_memory}
    if spec.kv_cache_bytes is not None:  # else vLLM takes what other processes allocate meanwhile for its own
        device["kv_cache_memory_bytes"] = spec.kv_cache_bytes
    if spec.device == "cpu":
        # Chunked prefill rewinds the random generator of a seeded request, which raises on a CPU. Blocks of 32 tokens
        # are the smallest on a CPU: the completions of a group then share all of their prompt but the last block.
        device = {
            "kv_cache_memory_bytes": spec.kv_cache_mb * 2**20,
            "enable_chunked_prefill": False,
            "block_size": 32,
        }
    if spec.tensor_parallel > 1:
        # Its processes are children of this one, with a pipe that ends them when it dies.
        device |= {"tensor_parallel_size": spec.tensor_parallel, "distributed_executor_backend": "mp"}
    if spec.lora_rank:
        device |= {
            "enable_lora": True,
            "max_lora_rank": next(rank for rank in LORA_RANKS if rank >= spec.lora_rank),
            "max_loras": spec.lora_versions,
            "max_cpu_loras": spec.lora_versions,
        }
    return EngineArgs(
        model=spec.model_folder,
        dtype=spec.dtype,
        seed=spec.seed,
        max_model_len=spec.max_model_len,
        max_num_seqs=spec.max_num_seqs,
        max_num_batched_tokens=spec.max_batched_tokens,
        enforce_eager=spec.enforce_eager,
        enable_prefix_caching=spec.prefix_caching,
        logprobs_mode="processed_logprobs",
        scheduling_policy="priority",  # requests of equal priority are served in order of arrival
        generation_config="vllm",  # ignore the sampling defaults in the model's folder
        worker_extension_cls=extension,
        weight_transfer_config=WeightTransferConfig(backend="shm"),
        disable_log_stats=True,
        # vLLM's own default depends on the device. With it a step is in flight while weights are swapped.
        async_scheduling=spec.async_scheduling,
        enable_sleep_mode=spec.sleeps,
        **device,
    )


def sampling_params(request: GenerateGroup) -> SamplingParams:
    """Return the parameters of a group's completions."""
    sampling = request.sampling
    return SamplingParams(
        n=request.n,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        repetition_penalty=sampling.repetition_penalty,
        seed=sampling.seed,
        max_tokens=sampling.max_new_tokens,
        stop_token_ids=list(sampling.stop_token_ids),
        stop=list(sampling.stop_texts),
        logprobs=0,
        prompt_logprobs=0 if request.score_prompt else None,
        flat_logprobs=True,
        detokenize=bool(sampling.stop_texts),
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
