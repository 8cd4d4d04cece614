"""vLLM's engine, in this process, behind the `Engine` protocol. The only module that imports vllm.

Facts that the code relies on were measured with vLLM 0.32 and are listed in docs/architecture.md.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

# Read by vLLM at import: the engine core lives in this process, so nothing is orphaned when the actor is killed.
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")

import numpy as np
from safetensors import safe_open
from vllm import EngineArgs, LLMEngine, SamplingParams
from vllm.config import WeightTransferConfig
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.inputs import TokensPrompt
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.sampling_params import RequestOutputKind

from grpo_gsm8k import weights
from grpo_gsm8k.errors import WeightsError
from grpo_gsm8k.protocol import Completion, Failed, GroupResult, VersionSpan, WeightsLive

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from grpo_gsm8k.actor.engine import EngineSpec
    from grpo_gsm8k.protocol import GenerateGroup, WeightsRef

CANARY_ID = "canary"


@dataclass
class ShmInit(WeightTransferInitInfo):
    """Nothing is needed to start."""


@dataclass
class ShmUpdate(WeightTransferUpdateInfo):
    """One safetensors file with the whole model."""

    file: str


class ShmWeightTransfer(WeightTransferEngine[ShmInit, ShmUpdate]):
    """vLLM weight-transfer backend that reads a verified safetensors file from /dev/shm."""

    init_info_cls = ShmInit
    update_info_cls = ShmUpdate

    def init_transfer_engine(self, init_info: ShmInit) -> None:
        """Nothing to connect."""

    def start_weight_update(self) -> None:
        """Put every layer back into its loadable form."""
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: ShmUpdate) -> None:
        """Load all tensors; vLLM fuses and shards them as it does at start-up."""
        self.model.load_weights(_tensors(update_info.file))

    def finish_weight_update(self) -> None:
        """Put every layer back into its fast form."""
        finalize_layerwise_reload(self.model, self.model_config)
        if self.device.type == "cpu":
            # On a CPU a tied lm_head keeps a packed copy of its own that the layerwise reload never refreshes.
            for module in self.model.modules():
                if isinstance(module, ParallelLMHead):
                    module.quant_method.process_weights_after_loading(module)

    def shutdown(self) -> None:
        """Nothing to release."""


class WorkerExtension:
    """Named in the engine's arguments so that vLLM imports this module, which registers the backend."""


WeightTransferEngineFactory.register_engine("shm", ShmWeightTransfer)


def _tensors(file: str) -> Iterator[tuple[str, Any]]:
    with safe_open(file, framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - safe_open is no mapping
            yield name, tensors.get_tensor(name)


class VllmEngine:
    """`LLMEngine` driven step by step, with exact weight swaps under running requests."""

    def __init__(self, spec: EngineSpec) -> None:
        """Start the engine. Takes seconds (eager) to minutes (compiled)."""
        self._spec = spec
        self._engine = LLMEngine.from_engine_args(_engine_args(spec))
        self._engine.collective_rpc("init_weight_transfer_engine", kwargs={"init_info": {}})
        self._finished: list[GroupResult | Failed] = []
        self._digest = ""
        self._canary_logprobs: tuple[float, ...] = ()

    def add(self, request: GenerateGroup) -> None:
        """Start a request. Raises ValueError when vLLM refuses it (too long, say)."""
        prompt = TokensPrompt(prompt_token_ids=request.prompt_ids.tolist())
        self._engine.add_request(request.request_id, prompt, _sampling_params(request))

    def abort(self, request_ids: Sequence[str]) -> None:
        """Forget these requests, running or not."""
        self._engine.abort_request(list(request_ids))

    def step(self) -> list[GroupResult | Failed]:
        """Sample one token for every running sequence; returns the groups that finished."""
        for output in self._engine.step():
            if output.finished and output.request_id != CANARY_ID:
                self._finished.append(_result(output))
        finished, self._finished = self._finished, []
        return finished

    def load(self, ref: WeightsRef) -> WeightsLive:
        """Verify, swap, recompute running contexts, and prove with the canary that the new weights are live."""
        started = time.monotonic()
        verified = weights.verify(ref)  # before the engine is touched: a failed update cannot be undone
        self._engine.collective_rpc("start_weight_update")
        self._engine.collective_rpc("update_weights", kwargs={"update_info": {"file": str(verified.file)}})
        self._engine.collective_rpc("finish_weight_update")
        self._engine.reset_prefix_cache(reset_running_requests=True)
        self._engine.set_weight_version(str(ref.version))
        gap = self._check_canary(verified)
        return WeightsLive(ref, time.monotonic() - started, gap)

    def _check_canary(self, verified: weights.VerifiedWeights) -> float:
        """Mean |engine - learner| logprob of the canary; raises WeightsError if the engine does not run `verified`."""
        measured = self._score(verified.canary.token_ids)
        unchanged = measured == self._canary_logprobs and verified.digest != self._digest
        if unchanged:
            raise WeightsError(
                f"weights version {verified.version} did not become live: the file changed, the engine's canary did not"
            )
        gap = float(np.mean(np.abs(np.subtract(measured, verified.canary.logprobs))))
        if not gap <= self._spec.canary_tolerance:  # NaN must fail too
            raise WeightsError(
                f"weights version {verified.version}: the engine's canary is {gap:.4g} off the learner's on average, "
                f"more than actor.canary_tolerance={self._spec.canary_tolerance}"
            )
        self._digest, self._canary_logprobs = verified.digest, measured
        return gap

    def _score(self, token_ids: tuple[int, ...]) -> tuple[float, ...]:
        """Log-probability of every token but the first, in the engine. Other requests advance meanwhile."""
        params = SamplingParams(
            temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY
        )
        self._engine.add_request(CANARY_ID, TokensPrompt(prompt_token_ids=list(token_ids)), params)
        while True:
            for output in self._engine.step():
                if output.request_id == CANARY_ID:
                    pairs = zip(token_ids[1:], output.prompt_logprobs[1:], strict=True)
                    return tuple(position[token].logprob for token, position in pairs)
                if output.finished:
                    self._finished.append(_result(output))


def _engine_args(spec: EngineSpec) -> EngineArgs:
    device: dict[str, Any] = {"gpu_memory_utilization": spec.gpu_memory}
    if spec.device == "cpu":
        # A prompt cut into chunks rewinds its request's random generator, which a CPU generator cannot do: it raises.
        device = {"kv_cache_memory_bytes": spec.kv_cache_mb * 2**20, "enable_chunked_prefill": False}
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
        generation_config="vllm",  # no sampling defaults of the model's author
        worker_extension_cls=f"{__name__}.{WorkerExtension.__name__}",
        weight_transfer_config=WeightTransferConfig(backend="shm"),
        disable_log_stats=True,
        **device,
    )


def _sampling_params(request: GenerateGroup) -> SamplingParams:
    sampling = request.sampling
    return SamplingParams(
        n=request.n,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=0,
        seed=sampling.seed,
        max_tokens=sampling.max_new_tokens,
        stop_token_ids=list(sampling.stop_token_ids),
        logprobs=0,
        flat_logprobs=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _result(output: Any) -> GroupResult | Failed:
    completions = tuple(_completion(item) for item in sorted(output.outputs, key=lambda item: item.index))
    reasons = {completion.finish_reason for completion in completions}
    if not reasons <= {"stop", "length"}:
        return Failed(output.request_id, f"finish reasons {sorted(reasons)}", "")
    return GroupResult(output.request_id, completions)


def _completion(item: Any) -> Completion:
    spans = tuple(VersionSpan(int(span.version), span.start, span.end) for span in item.weight_versions or ())
    return Completion(
        token_ids=np.asarray(item.token_ids, dtype=np.int32),
        logprobs=np.asarray(item.logprobs.logprobs, dtype=np.float32),
        finish_reason=str(item.finish_reason),
        version_spans=spans,
    )

