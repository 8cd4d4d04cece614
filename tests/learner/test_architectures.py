"""Each architecture is exact, packed and beyond its window, or refused before anything starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.learner.architectures import EXACT, check_trainable
from grpo_gsm8k.learner.model import load_policy
from tests.conftest import REPO
from tests.learner import model_zoo
from tests.learner.conftest import small_config


@pytest.mark.parametrize("name", model_zoo.EXACT)
def test_logprobs_and_gradients_equal_hugging_face(name: str, tmp_path: Path) -> None:
    folder = model_zoo.make(name, tmp_path / "model")
    check_trainable(folder, 128)
    gap = model_zoo.gap(folder)
    assert gap.logprob < 2e-5
    assert gap.gradient < 1e-5


def test_every_exact_architecture_is_compared() -> None:
    assert {str(settings["model_type"]) for settings in model_zoo.EXACT.values()} == EXACT


@pytest.mark.parametrize(("name", "reason"), model_zoo.REFUSED.items())
def test_others_are_refused_with_type_and_reason(name: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": name}))
    with pytest.raises(UserError, match=f"{name} cannot be trained, .*{reason}"):
        check_trainable(tmp_path, 128)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, r"RoPE \(dynamic\) changes with the length"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, r"RoPE \(dynamic\) changes"),
        (
            {"rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 64}},
            "actor.max_model_len=64",
        ),
        ({"rope_parameters": {"rope_type": "mrope"}}, r"RoPE \(mrope\)"),
        ({"layer_types": ["linear_attention", "full_attention"]}, "layers of type linear_attention"),
        ({"quantization_config": {"quant_method": "gptq"}}, r"quantized \(gptq\)"),
    ],
)
def test_settings_are_refused(settings: dict[str, Any], reason: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", **settings}))
    with pytest.raises(UserError, match=reason):
        check_trainable(tmp_path, 128)


def test_longrope_within_its_original_length(tmp_path: Path) -> None:
    rope = {"rope_type": "longrope", "original_max_position_embeddings": 128}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "phi3", "rope_scaling": rope}))
    check_trainable(tmp_path, 128)


def test_a_model_that_ignores_the_layout_is_refused(tmp_path: Path) -> None:
    """Should the table of architectures ever be wrong, the attention itself refuses."""
    config = AutoConfig.for_model("opt", vocab_size=99, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                                  ffn_dim=32, word_embed_proj_dim=32, max_position_embeddings=64)  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    policy = load_policy(tmp_path, small_config().learner)
    with pytest.raises(UserError, match="does not pass `layout`"):
        policy.model(torch.tensor([[1, 2, 3]]))


@pytest.mark.parametrize("kind", ["missing", "unexpected"])
def test_weights_that_do_not_belong_to_the_config(kind: str, tmp_path: Path) -> None:
    folder = model_zoo.make("Llama", tmp_path / "model")
    layers = 4 if kind == "missing" else 2
    other = model_zoo.changed(folder, tmp_path / "other", num_hidden_layers=layers)
    word = "lacks" if kind == "missing" else "has the unexpected tensor"
    with pytest.raises(UserError, match=rf"{word} model\.layers\.\d.* and \d+ more"):
        load_policy(other, small_config().learner)


def test_broken_weights_are_one_line(tmp_path: Path) -> None:
    folder = model_zoo.make("Llama", tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be loaded"):
        load_policy(folder, small_config().learner)


def test_the_table_of_the_documentation_is_current() -> None:
    table = (REPO / "docs" / "models.md").read_text()
    for row in model_zoo.rows():
        assert row in table, "make check-models"
