"""The model that a run starts from: a published one, one with random weights, or what an earlier run made."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from grpo_gsm8k.config import Config, ModelSection
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.files.aside import written_aside
from grpo_gsm8k.models import resolve_model
from grpo_gsm8k.tracking import run_folder

if TYPE_CHECKING:
    from grpo_gsm8k.tracking.run_folder import RunFolder

RUN = "run:"
ADAPTER_CONFIG = "adapter_config.json"


def pin_model(config: Config) -> Config:
    """The same with one plain `model.path`: `policy_gradient.model_id` wins, and runs and adapters become folders.

    `run:latest:sft` is the best checkpoint of the newest run of command=sft, `run:NAME` that of a named one; the path
    of a run, a checkpoint or an adapter will do as well. An adapter is merged into its base. Done once per run and kept
    in its config.yaml, so that a resumed run starts from the same model. Raises UserError.
    """
    model = config.model
    if config.command == "policy_gradient" and config.policy_gradient.model_id is not None:
        model = ModelSection(path=config.policy_gradient.model_id, revision=None, init="pretrained")
    folder = _own_folder(model.path, config.artifacts)
    if folder is not None:
        model = ModelSection(path=str(folder), revision=None, init=model.init)
    pg = config.policy_gradient.model_copy(update={"model_id": None})
    return config.model_copy(update={"model": model, "policy_gradient": pg})


def start_folder(config: Config) -> Path:
    """The local folder of `model`, made first where its weights are to be random. Raises UserError."""
    folder = resolve_model(config.model.path, config.model.revision, config.artifacts)
    return folder if config.model.init == "pretrained" else _with_random_weights(folder, config.seed, config.artifacts)


def best_step(run: RunFolder) -> int:
    """The checkpoint with the best validation, or the newest where none was validated. Raises UserError."""
    steps = run_folder.checkpoint_steps(run)
    if not steps:
        raise UserError(f"{run.path} has no complete checkpoint")
    if run.summary_json.is_file():
        best = json.loads(run.summary_json.read_text(encoding="utf-8")).get("best_validation")
        if best and best["version"] in steps:
            return int(best["version"])
    return max(steps)


def _own_folder(path: str, artifacts: Path) -> Path | None:
    """The plain model that a run, a checkpoint or an adapter means; None for every other path."""
    if path.startswith(RUN):
        return _model_of_run(path, artifacts)
    folder = Path(path)
    if folder.name == "model" and folder.parent.parent.name == "checkpoints":
        folder = folder.parent
    if folder.parent.name == "checkpoints" or (folder / "checkpoints").is_dir():
        return _model_of_run(f"{RUN}{folder}", artifacts)
    return _with_adapter(folder, artifacts) if (folder / ADAPTER_CONFIG).is_file() else None


def _with_adapter(folder: Path, artifacts: Path) -> Path:
    """The base that an adapter of peft names, with the adapter merged into it; made once per adapter."""
    tensors = folder / "adapter_model.safetensors"
    if not tensors.is_file():
        raise UserError(f"model.path={folder} has no adapter_model.safetensors: save the adapter with safetensors")
    words = (folder / ADAPTER_CONFIG).read_bytes()
    base = json.loads(words).get("base_model_name_or_path")
    if not base:
        raise UserError(f"{folder / ADAPTER_CONFIG} names no base_model_name_or_path: add it")
    target = artifacts / "models" / f"merged_{hashlib.sha256(words + tensors.read_bytes()).hexdigest()[:8]}"
    if target.is_dir() and not target.is_symlink():
        return target
    base_folder = resolve_model(base, None, artifacts)
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would tear the run's own display
    model = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32, use_safetensors=True)
    with written_aside(target) as made:
        PeftModel.from_pretrained(model, folder).merge_and_unload().save_pretrained(made)
        AutoTokenizer.from_pretrained(base_folder).save_pretrained(made)
    return target


def _model_of_run(spec: str, artifacts: Path) -> Path:
    name, _, command = spec.removeprefix(RUN).partition(":")
    run, step = run_folder.find(artifacts, name, command or None)
    if Path(name).parent.name != "checkpoints" or step is None:
        step = best_step(run)
    folder = run.checkpoints / f"step_{step}" / "model"
    if not (folder / ADAPTER_CONFIG).is_file():
        return folder
    from grpo_gsm8k.commands.finished_run import merged_folder  # lazy: it needs torch

    return merged_folder(run, step)


def _with_random_weights(folder: Path, seed: int, artifacts: Path) -> Path:
    """A copy of the model with weights as at the start of a pretraining; made once per model and seed."""
    digest = hashlib.sha256((folder / "config.json").read_bytes()).hexdigest()[:8]
    target = artifacts / "models" / f"random_{digest}_{seed}"
    if target.is_dir() and not target.is_symlink():
        return target
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would tear the run's own display
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    with written_aside(target) as made:
        model.save_pretrained(made)
        AutoTokenizer.from_pretrained(folder).save_pretrained(made)
    return target
