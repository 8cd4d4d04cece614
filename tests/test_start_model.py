"""Start models from adapters and runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from cli import load_config
from grpo_gsm8k.config import Config
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.models import EMBEDDED_TINY
from grpo_gsm8k.start_model import pin_model, start_folder


def config(path: Path, artifacts: Path) -> Config:
    return load_config(["command=eval", "preset=cpu_demo", f"model.path={path}", f"artifacts={artifacts}"])


def test_an_adapter_is_merged_into_the_base_that_it_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(EMBEDDED_TINY, dtype=torch.float32)
    tuned = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"]))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    tuned.save_pretrained(tmp_path / "adapter")
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        expected = tuned(ids).logits
        plain = AutoModelForCausalLM.from_pretrained(EMBEDDED_TINY, dtype=torch.float32)(ids).logits
    folder = start_folder(pin_model(config(tmp_path / "adapter", tmp_path / "artifacts")))
    with torch.no_grad():
        found = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(ids).logits
    assert not torch.allclose(expected, plain, atol=1e-2)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert start_folder(pin_model(config(tmp_path / "adapter", tmp_path / "artifacts"))) == folder  # created once

    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    with pytest.raises(UserError, match="save the adapter with safetensors"):
        pin_model(config(tmp_path / "adapter", tmp_path / "artifacts"))


def test_a_run_without_checkpoints_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "artifacts" / "runs" / "20260101-000000_empty"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text("{}")
    (run / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="no complete checkpoint"):
        pin_model(config(run, tmp_path / "artifacts"))
