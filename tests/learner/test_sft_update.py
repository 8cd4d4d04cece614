"""The loss of supervised fine-tuning: equal however it is packed, equal to Hugging Face's, and it learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from grpo_gsm8k.data.preprocess import encode_examples
from grpo_gsm8k.data.problems import read_problems
from grpo_gsm8k.data.responses import own_answers
from grpo_gsm8k.data.tokens import Example
from grpo_gsm8k.learner.model import Policy, load_policy
from grpo_gsm8k.learner.optimizer import Optimizer
from grpo_gsm8k.learner.schedules import Decay, lr_scale
from grpo_gsm8k.learner.sft_session import as_sequences
from grpo_gsm8k.learner.sft_update import SftStats, fine_tune
from grpo_gsm8k.models import EMBEDDED_TINY
from tests.conftest import GSM8K
from tests.learner.conftest import small_config


def random_examples(count: int = 9) -> list[Example]:
    rng = np.random.default_rng(0)
    return [
        Example(
            str(i),
            rng.integers(3, 90, int(rng.integers(2, 15))).astype(np.int32),
            rng.integers(3, 90, int(rng.integers(1, 20))).astype(np.int32),
        )
        for i in range(count)
    ]


def gradients(policy: Policy, examples: list[Example], token_budget: int) -> tuple[SftStats, dict[str, torch.Tensor]]:
    """Statistics of one step, and the gradients before the optimizer clears them."""
    learner = small_config().learner.model_copy(update={"token_budget": token_budget})
    found: dict[str, torch.Tensor] = {}
    optimizer = Optimizer(policy.named_parameters(), learner)
    hooks = [p.register_post_accumulate_grad_hook(_keep(found, name)) for name, p in policy.named_parameters()]
    stats = fine_tune(policy, optimizer, [s for e in examples for s in as_sequences(e)], learner, 0.0, lambda: None)
    for hook in hooks:
        hook.remove()
    return stats, found


def _keep(found: dict[str, torch.Tensor], name: str):  # type: ignore[no-untyped-def]
    def hook(p: torch.Tensor) -> None:
        assert p.grad is not None
        found[name] = p.grad.clone()

    return hook


def test_packing_and_micro_batches_change_nothing(policy: Policy) -> None:
    examples = random_examples()
    whole, expected = gradients(policy, examples, 10_000)
    for budget in (8, 33, 64):
        stats, found = gradients(policy, examples, budget)
        assert stats.loss_sum == pytest.approx(whole.loss_sum, rel=1e-5)
        assert stats.greedy == whole.greedy
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-6)


def test_equal_to_hugging_face_on_one_padded_batch(policy: Policy, random_model: object) -> None:
    examples = random_examples()
    stats, found = gradients(policy, examples, 64)
    model = AutoModelForCausalLM.from_pretrained(str(random_model), dtype=torch.float32)
    width = max(len(e.prompt_ids) + len(e.response_ids) for e in examples)
    input_ids = torch.zeros(len(examples), width, dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    labels = torch.full_like(input_ids, -100)
    for row, e in enumerate(examples):
        ids = torch.from_numpy(np.concatenate([e.prompt_ids, e.response_ids])).long()
        input_ids[row, : len(ids)] = ids
        attention_mask[row, : len(ids)] = 1
        labels[row, len(e.prompt_ids) : len(ids)] = ids[len(e.prompt_ids) :]
    output = model(input_ids=input_ids, attention_mask=attention_mask, labels=labels)
    output.loss.backward()
    assert stats.loss_sum / stats.tokens == pytest.approx(output.loss.item(), rel=1e-5)
    shifted = labels[:, 1:]
    right = (output.logits[:, :-1].argmax(-1) == shifted)[shifted != -100].sum()
    assert stats.greedy == int(right)
    for name, p in model.named_parameters():
        assert p.grad is not None
        torch.testing.assert_close(found[name], p.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(not GSM8K.is_dir(), reason="needs the GSM8K files beside the checkout")
def test_learns_32_gsm8k_answers_by_heart_and_stops() -> None:
    """The tiny model, on items that fit it: short ones."""
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_TINY)
    config = small_config("preprocess.max_tokens=400")
    texts = own_answers(config, read_problems(GSM8K / "train.jsonl", "train"))
    short = [text for text in texts if len(text.question) + len(text.response) < 200]
    examples = sorted(
        encode_examples(config, short, tokenizer)[0], key=lambda e: len(e.prompt_ids) + 2 * len(e.response_ids)
    )
    torch.manual_seed(0)
    policy = load_policy(EMBEDDED_TINY, config.learner)
    optimizer = Optimizer(policy.named_parameters(), config.learner)
    samples = [s for e in examples[:32] for s in as_sequences(e)]
    steps, losses = 240, []
    for step in range(steps):
        first = step * 8 % len(samples)
        rate = 4e-3 * lr_scale(step, steps, 20, Decay(0.05))
        stats = fine_tune(policy, optimizer, samples[first : first + 8], config.learner, rate, lambda: None)
        losses.append(stats.loss_sum / stats.tokens)
    assert max(losses[-4:]) < 0.05  # the last pass over all
    model = AutoModelForCausalLM.from_pretrained(EMBEDDED_TINY, dtype=torch.float32)
    model.load_state_dict(policy.model.state_dict())
    for e in examples[:32]:
        prompt = torch.from_numpy(e.prompt_ids).long()[None]
        written = model.generate(prompt, max_new_tokens=len(e.response_ids) + 20, do_sample=False)
        assert written[0, len(e.prompt_ids) :].tolist() == e.response_ids.tolist()  # its end token included
