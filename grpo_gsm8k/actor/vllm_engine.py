"""vLLM's engine in this process, as an `Engine`. Only this module and `engine_arguments` import vllm.

docs/architecture.md lists the properties of vLLM 0.32 that the code relies on.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

# Read by vLLM when imported: run the engine core in this process, so that killing the actor leaves no orphan.
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")

import numpy as np
from safetensors import safe_open
from vllm import LLMEngine
from vllm.distributed import get_tensor_model_parallel_rank
from vllm.distributed import get_tensor_model_parallel_world_size as tensor_parallel_size
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

from grpo_gsm8k.actor.engine_arguments import canary_params, engine_args, sampling_params
from grpo_gsm8k.actor.engine_results import group_result
from grpo_gsm8k.actor.reserved_memory import reserved_gpu_bytes
from grpo_gsm8k.actor.weight_probe import Probe, probe_weights
from grpo_gsm8k.children.parent_death import die_with
from grpo_gsm8k.config import MIN_TEMPERATURE
from grpo_gsm8k.errors import WeightsError
from grpo_gsm8k.transport import weights
from grpo_gsm8k.transport.protocol import Failed, GroupResult, WeightsLive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch

    from grpo_gsm8k.actor.engine import EngineSpec
    from grpo_gsm8k.transport.protocol import GenerateGroup

CANARY_ID = "canary/"
MIN_COMPARED = 2  # tensors that the weight probe must find, so that a reload counts as proven


@dataclass
class ShmInit(WeightTransferInitInfo):
    """Settings of the backend: none."""


@dataclass
class ShmUpdate(WeightTransferUpdateInfo):
    """A safetensors file with the whole model."""

    file: str


class ShmWeightTransfer(WeightTransferEngine[ShmInit, ShmUpdate]):
    """vLLM weight-transfer backend that reads a verified safetensors file from /dev/shm."""

    init_info_cls = ShmInit
    update_info_cls = ShmUpdate

    def init_transfer_engine(self, init_info: ShmInit) -> None:
        """Do nothing: there is no connection to open."""

    def start_weight_update(self) -> None:
        """Restore the loadable form of every layer."""
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: ShmUpdate) -> None:
        """Load all tensors; vLLM fuses and shards them as at start-up."""
        self.model.load_weights(_tensors(update_info.file))

    def finish_weight_update(self) -> None:
        """Convert every layer to its form for inference."""
        finalize_layerwise_reload(self.model, self.model_config)
        if self.device.type == "cpu":
            # On a CPU, a tied lm_head keeps its own packed copy, which the layerwise reload does not refresh.
            for module in self.model.modules():
                if isinstance(module, ParallelLMHead):
                    module.quant_method.process_weights_after_loading(module)

    def shutdown(self) -> None:
        """Do nothing: there are no resources to release."""


class WorkerExtension:
    """Methods that vLLM adds to its worker. The import of this module also registers the backend there."""

    get_model: Callable[[], torch.nn.Module]  # the worker's own

    def probe_weights(self, file: str) -> Probe:
        """Compare the running model, or this process's part of it, with the file it was loaded from."""
        return probe_weights(self.get_model(), file, get_tensor_model_parallel_rank(), tensor_parallel_size())

    def end_with(self, parent: int) -> None:
        """End this process at once when `parent` ends: its GPU's memory must be free for the actor that follows."""
        die_with(parent)


EXTENSION = f"{__name__}.{WorkerExtension.__name__}"
WeightTransferEngineFactory.register_engine("shm", ShmWeightTransfer)


def _tensors(file: str) -> Iterator[tuple[str, Any]]:
    with safe_open(file, framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - safe_open is not a mapping
            yield name, tensors.get_tensor(name)


@dataclass(frozen=True, slots=True)
class _PendingCanary:
    """Weights that were loaded in `seconds`, and whose canary is still in the engine.

    `measured` holds the engine's log-probabilities of the canary's tokens so far, by their position.
    """

    verified: weights.VerifiedWeights
    seconds: float
    measured: dict[int, float] = field(default_factory=dict)


class VllmEngine:
    """`LLMEngine`, driven step by step, with weight swaps under running requests."""

    def __init__(self, spec: EngineSpec) -> None:
        """Start the engine. Takes seconds (eager) to minutes (compiled)."""
        self._spec = spec
        self._engine = LLMEngine.from_engine_args(engine_args(spec, EXTENSION))
        if spec.tensor_parallel > 1:  # vLLM's workers notice the end of a pipe, on a busy machine after many seconds
            self._engine.collective_rpc("end_with", kwargs={"parent": os.getpid()})
        self._engine.collective_rpc("init_weight_transfer_engine", kwargs={"init_info": {}})
        self._adapter: LoRARequest | None = None
        self._adapters_loaded = 0
        self._version = spec.own_version
        if spec.own_version >= 0:
            self._engine.set_weight_version(str(spec.own_version))
        self._admitted: dict[str, int] = {}  # adapter version of each running request
        self._pending: _PendingCanary | None = None

    def add(self, request: GenerateGroup) -> None:
        """Start a request. Raises ValueError when vLLM refuses it, for example because it is too long."""
        if request.score_prompt and self._spec.lora_rank:
            # vLLM fails or returns wrong numbers, depending on model and device (vllm#16668, #29955, #51594).
            raise ValueError("an engine with an adapter cannot score prompts: set actor.lora=merged")
        if 0 < request.sampling.temperature < MIN_TEMPERATURE:
            raise ValueError(f"temperature={request.sampling.temperature}: vLLM would sample at {MIN_TEMPERATURE}")
        prompt = TokensPrompt(prompt_token_ids=request.prompt_ids.tolist())
        self._engine.add_request(
            request.request_id,
            prompt,
            sampling_params(request),
            lora_request=self._adapter,
            priority=request.priority,
        )
        if self._adapter is not None:
            self._admitted[request.request_id] = self._version

    def abort(self, request_ids: Sequence[str]) -> None:
        """Drop these requests, running or not."""
        self._engine.abort_request(list(request_ids))
        for request_id in request_ids:
            self._admitted.pop(request_id, None)

    def sleep(self) -> None:
        """Free the GPU's memory; the weights are kept in the host's.

        Level 2 would discard them, but a base under adapters is never loaded again, and further requests for the same
        weights may come (`policy_gradient.active_sampling`).
        """
        self._engine.sleep(level=1)

    def wake(self) -> None:
        """Take the memory again and copy the weights back. Raises RuntimeError if it is not free."""
        if not self._engine.wake_up():
            raise RuntimeError("the engine did not get all of its GPU memory back")

    def gpu_bytes(self) -> int:
        """Return how much GPU memory the engine holds; 0 on a CPU, and for an engine of several processes."""
        alone = self._spec.device.startswith("cuda") and self._spec.tensor_parallel == 1
        return reserved_gpu_bytes() if alone else 0

    def step(self) -> list[GroupResult | Failed | WeightsLive]:
        """Sample one token for every running sequence; returns finished groups, and WeightsLive after a `load`.

        Raises WeightsError when the canary shows that the engine does not run the loaded weights.
        """
        finished: list[GroupResult | Failed | WeightsLive] = []
        for output in self._engine.step():
            if output.request_id.startswith(CANARY_ID):
                finished += self._take_canary(output)
            elif output.finished:
                finished.append(group_result(output, self._admitted.pop(output.request_id, None)))
        return finished

    def load(self, verified: weights.VerifiedWeights) -> None:
        """Swap the weights, and send the canary ahead of all waiting requests.

        A new model replaces the old one under running requests, whose contexts are recomputed. A new adapter applies
        to requests that start from now on; running requests keep theirs.
        """
        started = time.monotonic()
        if verified.kind == "adapter":
            self._load_adapter(verified)
        else:
            self._load_model(verified)
        self._version = verified.ref.version
        self._pending = _PendingCanary(verified, time.monotonic() - started)
        self._send_canary(verified.canary.token_ids)

    def _send_canary(self, ids: tuple[int, ...]) -> None:
        """Request the log-probability of each canary token as one generated after the tokens before it.

        Those of a prompt are not available with an adapter.
        """
        for i in range(1, len(ids)):
            self._engine.add_request(
                f"{CANARY_ID}{i}",
                TokensPrompt(prompt_token_ids=list(ids[:i])),
                canary_params(ids[i]),
                lora_request=self._adapter,
                priority=-1,
            )

    def _load_model(self, verified: weights.VerifiedWeights) -> None:
        self._engine.collective_rpc("start_weight_update")
        file = verified.folder / weights.MODEL_FILE
        self._engine.collective_rpc("update_weights", kwargs={"update_info": {"file": str(file)}})
        self._engine.collective_rpc("finish_weight_update")
        for probe in self._engine.collective_rpc("probe_weights", kwargs={"file": str(file)}):
            _check_probe(probe, verified.ref.version)
        self._engine.reset_prefix_cache(reset_running_requests=True)
        self._engine.set_weight_version(str(verified.ref.version))

    def _load_adapter(self, verified: weights.VerifiedWeights) -> None:
        """Load an adapter under a new number and name: vLLM does not reload an adapter that it knows."""
        self._adapters_loaded += 1
        number = self._adapters_loaded
        self._adapter = LoRARequest(f"v{verified.ref.version}.{number}", number, str(verified.folder))
        if not self._engine.add_lora(self._adapter):
            raise WeightsError(f"weights version {verified.ref.version}: the engine refused the adapter")

    def _take_canary(self, output: Any) -> list[WeightsLive]:
        """Take one canary token; when all are there, compare them with the learner's."""
        assert self._pending is not None
        pending, ref, canary = self._pending, self._pending.verified.ref, self._pending.verified.canary
        i = int(output.request_id.removeprefix(CANARY_ID))
        pending.measured[i] = output.outputs[0].logprobs[0][canary.token_ids[i]].logprob
        if len(pending.measured) < len(canary.logprobs):
            return []
        self._pending = None
        measured = [pending.measured[i] for i in range(1, len(canary.token_ids))]
        gap = float(np.mean(np.abs(np.subtract(measured, canary.logprobs))))
        if not gap <= self._spec.canary_tolerance:  # NaN must fail too
            raise WeightsError(
                f"weights version {ref.version}: the canary log-probabilities of engine and learner differ by "
                f"{gap:.4g} on average, more than actor.canary_tolerance={self._spec.canary_tolerance}"
            )
        return [WeightsLive(ref, pending.seconds, gap, pending.verified.seconds)]


def _check_probe(probe: Probe, version: int) -> None:
    if probe.differs:
        raise WeightsError(
            f"weights version {version} did not become live: {probe.differs} of the engine differs from the file"
        )
    if probe.compared < MIN_COMPARED:
        raise WeightsError(
            f"weights version {version}: only {probe.compared} of the engine's tensors could be compared with the "
            "file, so the reload cannot be verified: this architecture is not supported"
        )
