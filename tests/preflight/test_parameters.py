"""Counts from config.json equal those of loaded models and of the weight files' headers."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from cli import load_config
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.models import EMBEDDED_TINY
from grpo_gsm8k.preflight.parameters import ModelShape, from_config, from_weights, with_teacher_shape
from tests.preflight.conftest import QWEN, folder_with

SMOLLM2 = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
    "vocab_size": 49152,
}


def test_the_tiny_model_as_it_is_loaded(random_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(random_model)
    for folder in (random_model, EMBEDDED_TINY):
        assert from_config(folder) == from_weights(folder)
        assert from_config(folder).parameters == sum(p.numel() for p in model.parameters())
    shape = from_config(random_model)
    linears = [m for name, m in model.named_modules() if name.endswith("_proj")]
    assert shape.linear == sum(m.weight.numel() for m in linears)
    assert shape.head == model.get_output_embeddings().weight.numel()
    assert shape.tied


def test_published_sizes(tmp_path: Path, shape_3b: ModelShape, shape_1_5b: ModelShape) -> None:
    assert from_config(folder_with(SMOLLM2, tmp_path / "smollm2")).parameters == 134_515_008
    assert shape_1_5b.parameters == 1_543_714_304
    assert shape_3b.parameters == 3_085_938_688


def test_an_adapter_as_peft_makes_it(random_model: Path) -> None:
    from peft import LoraConfig, get_peft_model

    shape = from_config(random_model)
    for targets in (["all-linear"], ["q_proj", "v_proj"]):
        model = AutoModelForCausalLM.from_pretrained(random_model)
        wanted = "all-linear" if targets == ["all-linear"] else targets
        adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=wanted))
        trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
        assert shape.adapter(4, targets) == trained


def test_the_teacher_of_a_run_is_part_of_its_shape(shape_3b: ModelShape, qwen_3b: Path) -> None:
    words = ["command=policy_gradient", "policy_gradient=distill"]
    taught = load_config([*words, f"policy_gradient.teacher.path={qwen_3b}"])
    found = with_teacher_shape(from_weights(EMBEDDED_TINY), taught)
    assert found.teacher == shape_3b
    server = ("policy_gradient.teacher.base_url=http://127.0.0.1:1/v1", "policy_gradient.teacher.model=x")
    for config in (load_config([*words, *server]), load_config(["command=policy_gradient"])):
        assert with_teacher_shape(shape_3b, config).teacher is None


def test_a_head_of_its_own_counts(tmp_path: Path) -> None:
    small = {**QWEN, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_hidden_layers": 2}
    tied = from_config(folder_with({**small, "vocab_size": 1000}, tmp_path / "tied"))
    untied = from_config(folder_with({**small, "vocab_size": 1000, "tie_word_embeddings": False}, tmp_path / "untied"))
    assert untied.parameters - tied.parameters == 64 * 1000 == untied.head
    assert untied.trunk == tied.trunk


def test_unsupported_architectures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.path"):
        from_config(folder_with({"model_type": "no_such"}, tmp_path / "unknown"))
    gpt2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 50}
    with pytest.raises(UserError, match="layer names"):
        from_config(folder_with(gpt2, tmp_path / "gpt2"))
