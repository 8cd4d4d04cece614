"""Counted operations compared with torch's own counter, and pairs of attention with an enumeration."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from benchmarks.flops import Work, as_a_user_counts, attention_flops, computed_once, matrix_flops, update_flops
from benchmarks.random_models import SHAPES, write_random_model, write_tokenizer
from benchmarks.update_timing import BatchSize, random_rollouts
from grpo_gsm8k.learner.batching import pack_tokens
from grpo_gsm8k.preflight.parameters import ModelShape, from_weights


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model("tiny", tmp_path_factory.mktemp("flops"), dtype="float32")


def counted(model: Path, length: int, frozen: bool) -> tuple[int, int]:
    """Operations of matrix products and of attention, forward and backward, as torch counts them."""
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="eager")
    network.requires_grad_(not frozen)
    embedded = network.get_input_embeddings()(torch.arange(length)[None] % 90).detach().requires_grad_()
    with FlopCounterMode(display=False) as counter:
        network(inputs_embeds=embedded).logits.sum().backward()
    by_operation = {str(op): flops for op, flops in counter.get_flop_counts()["Global"].items()}
    attention = sum(flops for op, flops in by_operation.items() if "bmm" in op)
    return sum(by_operation.values()) - attention, attention


@pytest.mark.parametrize("frozen", [False, True])
def test_operations_are_those_that_torch_counts(model: Path, frozen: bool) -> None:
    shape = from_weights(model)
    length = 24
    matrices, attention = counted(model, length, frozen)
    rotary = 2 * 3 * length * (shape.query // SHAPES["tiny"].heads // 2)  # angles of positions: a product of width 1
    assert update_flops(shape, Work(length, length, 0), frozen) == pytest.approx(matrices, rel=1e-3)
    # Eager attention computes the pairs above the diagonal, too.
    assert 3 * attention_flops(shape, length * length) == pytest.approx(attention, abs=rotary)


def test_the_head_counts_for_predicted_tokens_only(model: Path) -> None:
    shape: ModelShape = from_weights(model)
    assert matrix_flops(shape, 10, 3) - matrix_flops(shape, 10, 2) == 2 * shape.vocab * shape.hidden


def test_work_by_enumeration() -> None:
    groups = random_rollouts(BatchSize(prompts=3, group=4, prompt_tokens=9, completion_tokens=7), 99)
    once, user = computed_once(groups), as_a_user_counts(groups)
    flat = [sample for group in groups for sample in group]
    packed = pack_tokens(flat, torch.device("cpu"))
    assert (once.tokens, once.predicted) == (len(packed.input_ids_T), len(packed.targets_N))
    pairs = 0
    for group in groups:
        prompt = len(group[0].prompt_ids)
        pairs += sum(1 for q in range(prompt) for k in range(prompt) if k <= q)
        for sample in group:
            fed = len(sample.completion_ids) - 1
            pairs += sum(1 for q in range(prompt, prompt + fed) for k in range(prompt + fed) if k <= q)
    assert once.pairs == pairs
    lengths = [len(s.prompt_ids) + len(s.completion_ids) - 1 for s in flat]
    assert (user.tokens, user.predicted) == (sum(lengths), once.predicted)
    assert user.pairs == sum(np.tri(n).sum() for n in lengths)


def test_the_padded_tokenizer_names_every_id_once(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    write_tokenizer(300, tmp_path)
    vocab = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]
    assert sorted(vocab.values()) == list(range(300))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.decode([250]) == "<t250>"
    assert tokenizer.decode(tokenizer("1 + 2")["input_ids"]) == "1 + 2"
