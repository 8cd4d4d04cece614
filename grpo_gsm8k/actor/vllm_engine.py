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
from vllm.lora.request import LoRARequest
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.sampling_params import RequestOutputKind

from grpo_gsm8k.errors import WeightsError
from grpo_gsm8k.transport import weights
from grpo_gsm8k.transport.protocol import Completion, Failed, GroupResult, PromptScores, VersionSpan, WeightsLive

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from grpo_gsm8k.actor.engine import EngineSpec
    from grpo_gsm8k.transport.protocol import GenerateGroup, WeightsRef

CANARY_ID = "canary"
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # those that vLLM has kernels for
CANARY_PARAMS = SamplingParams(
    temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY
)


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


@dataclass(frozen=True, slots=True)
class _Proof:
    """Weights that were loaded, in `seconds`, and whose canary is on its way."""

    ref: WeightsRef
    verified: weights.VerifiedWeights
    seconds: float


class VllmEngine:
    """`LLMEngine` driven step by step, with exact weight swaps under running requests."""

    def __init__(self, spec: EngineSpec) -> None:
        """Start the engine. Takes seconds (eager) to minutes (compiled)."""
        self._spec = spec
        self._engine = LLMEngine.from_engine_args(_engine_args(spec))
        self._engine.collective_rpc("init_weight_transfer_engine", kwargs={"init_info": {}})
        self._adapter: LoRARequest | None = None
        self._adapters_loaded = 0
        self._version = spec.own_version
        if spec.own_version >= 0:
            self._engine.set_weight_version(str(spec.own_version))
        self._admitted: dict[str, int] = {}  # version of the adapter that a running request keeps to its end
        self._proving: _Proof | None = None
        self._digest = ""
        self._canary_logprobs: tuple[float, ...] = ()

    def add(self, request: GenerateGroup) -> None:
        """Start a request. Raises ValueError when vLLM refuses it (too long, say)."""
        prompt = TokensPrompt(prompt_token_ids=request.prompt_ids.tolist())
        self._engine.add_request(request.request_id, prompt, _sampling_params(request), lora_request=self._adapter)
        if self._adapter is not None:
            self._admitted[request.request_id] = self._version

    def abort(self, request_ids: Sequence[str]) -> None:
        """Forget these requests, running or not."""
        self._engine.abort_request(list(request_ids))
        for request_id in request_ids:
            self._admitted.pop(request_id, None)

    def step(self) -> list[GroupResult | Failed | WeightsLive]:
        """Sample one token for every running sequence; returns the groups that finished, and a proof that did.

        Raises WeightsError when the canary shows that the loaded weights are not the ones that run.
        """
        finished: list[GroupResult | Failed | WeightsLive] = []
        for output in self._engine.step():
            if output.request_id == CANARY_ID:
                finished.append(self._prove(output.prompt_logprobs))
            elif output.finished:
                finished.append(_result(output, self._admitted.pop(output.request_id, None)))
        return finished

    def load(self, ref: WeightsRef) -> None:
        """Verify, swap, and send the canary ahead of everything that waits.

        New weights replace the old under running requests, whose contexts are recomputed. A new adapter is for the
        requests that start from now on; those that run keep theirs.
        """
        started = time.monotonic()
        verified = weights.verify(ref)  # before the engine is touched: a failed update cannot be undone
        if verified.kind == "adapter":
            self._load_adapter(verified)
        else:
            self._load_model(verified)
        self._version = ref.version
        self._proving = _Proof(ref, verified, time.monotonic() - started)
        prompt = TokensPrompt(prompt_token_ids=list(verified.canary.token_ids))
        self._engine.add_request(CANARY_ID, prompt, CANARY_PARAMS, lora_request=self._adapter, priority=-1)

    def _load_model(self, verified: weights.VerifiedWeights) -> None:
        self._engine.collective_rpc("start_weight_update")
        file = verified.folder / weights.MODEL_FILE
        self._engine.collective_rpc("update_weights", kwargs={"update_info": {"file": str(file)}})
        self._engine.collective_rpc("finish_weight_update")
        self._engine.reset_prefix_cache(reset_running_requests=True)
        self._engine.set_weight_version(str(verified.version))

    def _load_adapter(self, verified: weights.VerifiedWeights) -> None:
        """Under a number and a name never used before: vLLM keeps what it has under a known one."""
        self._adapters_loaded += 1
        number = self._adapters_loaded
        self._adapter = LoRARequest(f"v{verified.version}.{number}", number, str(verified.folder))
        if not self._engine.add_lora(self._adapter):
            raise WeightsError(f"weights version {verified.version}: the engine refused the adapter")

    def _prove(self, prompt_logprobs: Any) -> WeightsLive:
        """Compare the engine's canary with the learner's, and with its own under the weights before."""
        assert self._proving is not None
        proof, self._proving = self._proving, None
        canary = proof.verified.canary
        pairs = zip(canary.token_ids[1:], prompt_logprobs[1:], strict=True)
        measured = tuple(position[token].logprob for token, position in pairs)
        if measured == self._canary_logprobs and proof.verified.digest != self._digest:
            raise WeightsError(
                f"weights version {proof.ref.version} did not become live: the file changed, the canary did not"
            )
        gap = float(np.mean(np.abs(np.subtract(measured, canary.logprobs))))
        if not gap <= self._spec.canary_tolerance:  # NaN must fail too
            raise WeightsError(
                f"weights version {proof.ref.version}: the engine's canary is {gap:.4g} off the learner's on average, "
                f"more than actor.canary_tolerance={self._spec.canary_tolerance}"
            )
        self._digest, self._canary_logprobs = proof.verified.digest, measured
        return WeightsLive(proof.ref, proof.seconds, gap)


def _engine_args(spec: EngineSpec) -> EngineArgs:
    device: dict[str, Any] = {"gpu_memory_utilization": spec.gpu_memory}
    if spec.device == "cpu":
        # A prompt cut into chunks rewinds its request's random generator, which a CPU generator cannot do: it raises.
        # Blocks of 32 tokens, the smallest a CPU offers: the completions of a group share all but the end of a prompt.
        device = {
            "kv_cache_memory_bytes": spec.kv_cache_mb * 2**20,
            "enable_chunked_prefill": False,
            "block_size": 32,
        }
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
        scheduling_policy="priority",  # equal priorities are served in the order of their arrival
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
        stop=list(sampling.stop_texts),
        logprobs=0,
        prompt_logprobs=0 if request.score_prompt else None,
        flat_logprobs=True,
        detokenize=bool(sampling.stop_texts),
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _result(output: Any, version: int | None) -> GroupResult | Failed:
    """`version`: of the adapter that made all of it; None where vLLM knows the version of each token."""
    completions = tuple(_completion(item, version) for item in sorted(output.outputs, key=lambda item: item.index))
    reasons = {completion.finish_reason for completion in completions}
    if not reasons <= {"stop", "length"}:
        return Failed(output.request_id, f"finish reasons {sorted(reasons)}")
    return GroupResult(output.request_id, completions, _prompt_scores(output))


def _prompt_scores(output: Any) -> PromptScores | None:
    if output.prompt_logprobs is None:
        return None
    flat = output.prompt_logprobs  # one entry for each token but the first
    return PromptScores(np.array(flat.logprobs, dtype=np.float32), np.array(flat.ranks) == 1)


def _completion(item: Any, version: int | None) -> Completion:
    if version is None:
        spans = tuple(VersionSpan(int(span.version), span.start, span.end) for span in item.weight_versions or ())
    else:
        spans = (VersionSpan(version, 0, len(item.token_ids)),)
    return Completion(
        token_ids=np.asarray(item.token_ids, dtype=np.int32),
        logprobs=np.asarray(item.logprobs.logprobs, dtype=np.float32),
        finish_reason=str(item.finish_reason),
        version_spans=spans,
    )
