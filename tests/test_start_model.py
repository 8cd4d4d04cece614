"""Start models from adapters and runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from cli import load_config
from grpo_gsm8k.config import Config
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.models import EMBEDDED_TINY
from grpo_gsm8k.orchestrator.run import check_teacher
from grpo_gsm8k.start_model import pin_model, start_folder, teacher_folder


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


def test_the_path_of_a_teacher_is_pinned_as_that_of_the_model(tmp_path: Path) -> None:
    run = tmp_path / "artifacts" / "runs" / "20260101-000000_taught"
    model = run / "checkpoints" / "step_3" / "model"
    shutil.copytree(EMBEDDED_TINY, model)
    (model.parent / "manifest.json").write_text("{}")
    for name in ("config.yaml", "manifest.json"):
        (run / name).write_text("{}")
    words = ["command=policy_gradient", "preset=cpu_demo", f"artifacts={tmp_path / 'artifacts'}"]
    given = load_config([*words, "policy_gradient=distill", "policy_gradient.teacher.path=run:taught"])
    pinned = pin_model(given)
    assert pinned.policy_gradient.teacher.path == str(model)
    assert pinned.model == given.model
    assert teacher_folder(pinned) == model
    assert pin_model(pinned) == pinned


def test_a_teacher_has_to_be_exact_for_all_that_the_student_can_write(tmp_path: Path) -> None:
    taught = load_config(["command=policy_gradient", "preset=cpu_demo", "policy_gradient=distill"])
    check_teacher(taught, EMBEDDED_TINY)
    for changes, words in (
        ({"max_position_embeddings": 100}, "has a context of 100: lower actor.max_model_len=160 to it"),
        ({"model_type": "gpt2"}, "gpt2 cannot be trained"),
    ):
        values = json.loads((EMBEDDED_TINY / "config.json").read_text()) | changes
        (tmp_path / "config.json").write_text(json.dumps(values))
        with pytest.raises(UserError, match=f"^policy_gradient.teacher.path=.*{words}"):
            check_teacher(taught, tmp_path)


def test_only_distillation_needs_a_teacher() -> None:
    words = ["command=policy_gradient", "preset=cpu_demo"]
    assert teacher_folder(load_config(words)) is None
    served = ("policy_gradient.teacher.base_url=http://127.0.0.1:1/v1", "policy_gradient.teacher.model=x")
    assert teacher_folder(load_config([*words, "policy_gradient=distill", *served])) is None
    with pytest.raises(UserError, match=r"distill needs a teacher: set policy_gradient.teacher.path to a model"):
        teacher_folder(load_config([*words, "policy_gradient=distill"]))
    with pytest.raises(UserError, match=r"^policy_gradient.teacher.path=no_model is neither an existing folder"):
        teacher_folder(load_config([*words, "policy_gradient=distill", "policy_gradient.teacher.path=no_model"]))
