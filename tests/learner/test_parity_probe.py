"""The parity probe passes on correct models, and stops a run whose learner, engine or architecture is another one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from grpo_gsm8k.algorithms.logprobs import OutputHead
from grpo_gsm8k.errors import ModelMismatchError
from grpo_gsm8k.grading.problem import Problem
from grpo_gsm8k.learner import attention
from grpo_gsm8k.learner.model import Policy, load_policy
from grpo_gsm8k.learner.parity_probe import COMPARED, EngineProbe, probe_learner, probe_length, probe_sequences
from grpo_gsm8k.learner.task import Item
from grpo_gsm8k.transport.protocol import GenerateGroup, GroupResult, PromptScores
from tests.learner import model_zoo
from tests.learner.conftest import small_config

ITEMS = [Item(Problem(str(i), "q", "a", "1"), np.arange(5 + i, 40 + i, dtype=np.int32)) for i in range(4)]


@pytest.fixture
def mistral(tmp_path: Path) -> Policy:
    return load_policy(model_zoo.make("Mistral", tmp_path / "model"), small_config().learner)


def test_sequences_share_prompts_and_exceed_the_window(mistral: Policy) -> None:
    config = small_config("actor.max_model_len=128")
    length = probe_length(mistral, config)
    assert model_zoo.WINDOW < length < 128
    made = probe_sequences(ITEMS, length)
    assert len({s.prompt_ids.tobytes() for s in made}) == 2
    assert len(made) == 4
    assert all(0 < len(s.completion_ids) <= length for s in made)
    assert max(len(s.prompt_ids) + len(s.completion_ids) for s in made) == length


@pytest.mark.parametrize("name", ["Mistral", "Gemma 2", "Granite"])
def test_correct_models_pass(name: str, tmp_path: Path) -> None:
    policy = load_policy(model_zoo.make(name, tmp_path / "model"), small_config().learner)
    batch = probe_learner(policy, ITEMS, small_config())
    assert all(len(logprobs) <= COMPARED for logprobs in batch.logprobs)
    assert policy.architecture_config._attn_implementation == attention.PACKED_SDPA  # put back


def test_a_window_that_is_ignored_is_found(mistral: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    attend = attention.attend_in_pieces
    monkeypatch.setattr(attention, "attend_in_pieces", lambda *given: attend(*given[:5], None, *given[6:]))
    with pytest.raises(
        ModelMismatchError, match=r"log-probabilities of mistral differ .* Hugging Face.* by \d.*tolerance"
    ):
        probe_learner(mistral, ITEMS, small_config())


def test_a_head_without_its_scale_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = load_policy(model_zoo.make("Granite", tmp_path / "model"), small_config().learner)
    monkeypatch.setattr(
        Policy, "head", property(lambda self: OutputHead(policy._causal.get_output_embeddings().weight))
    )
    with pytest.raises(ModelMismatchError, match="granite"):
        probe_learner(policy, ITEMS, small_config())


class Engine:
    """A client whose engine scores prompts with the learner's own numbers, shifted by `error`."""

    incarnation = 0

    def __init__(self, logprobs: list[np.ndarray], error: float) -> None:
        self.queued: list[GenerateGroup] = []
        self.on_result: list[Callable[[GroupResult], None]] = []
        self._logprobs = logprobs
        self._error = error

    def request(self, request: GenerateGroup, on_result: Callable[[GroupResult], None]) -> None:
        self.queued.append(request)
        self.on_result.append(on_result)

    def poll(self) -> None:
        for index, on_result in enumerate(self.on_result):
            on_result(self._result(index))
        self.on_result = []

    def wait_until(self, condition: Callable[[], bool]) -> bool:
        self.poll()
        return condition()

    def _result(self, index: int) -> GroupResult:
        length = len(self.queued[index].prompt_ids) - 1
        scores = np.zeros(length, dtype=np.float32)
        own = self._logprobs[index]
        scores[length - len(own) :] = own + self._error
        return GroupResult(self.queued[index].request_id, (), PromptScores(scores, scores > 0))


@pytest.mark.parametrize(("error", "stops"), [(0.0, False), (5e-4, False), (0.01, True), (float("nan"), True)])
def test_the_engine_is_compared(mistral: Policy, error: float, stops: bool) -> None:
    batch = probe_learner(mistral, ITEMS, small_config())
    client: Any = Engine(batch.logprobs, error)
    probe = EngineProbe(mistral, batch, client, small_config())
    probe.submit(0)
    assert all(request.pinned and request.score_prompt for request in client.queued)
    if stops:
        with pytest.raises(ModelMismatchError, match="those of the engine"):
            probe.poll(wait=True)
    else:
        probe.poll(wait=False)
        assert not probe.pending
        client.wait_until = lambda condition: pytest.fail("waits for answers that it has")
        probe.poll(wait=True)  # at the end of a run


def test_the_engine_is_compared_with_the_weights_of_its_version(mistral: Policy) -> None:
    """A resumed fine-tuning run publishes its first weights some updates after the probe of the learner."""
    batch = probe_learner(mistral, ITEMS, small_config())
    probe_of_start: Any = Engine(batch.logprobs, 0.0)
    probe = EngineProbe(mistral, batch, probe_of_start, small_config())
    with torch.no_grad():
        mistral.model.model.embed_tokens.weight.mul_(1.1)
    probe.submit(3)
    with pytest.raises(ModelMismatchError):  # this engine still has the weights of the start
        probe.poll(wait=True)
