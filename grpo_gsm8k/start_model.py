"""The model that a run starts from: published, randomly initialized, or the result of an earlier run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from grpo_gsm8k.config import Config, ModelSection, TeacherConfig
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.files.aside import written_aside
from grpo_gsm8k.files.json_lines import read_json
from grpo_gsm8k.models import resolve_model
from grpo_gsm8k.tracking import run_folder
from grpo_gsm8k.tracking.saved_config import read_config

if TYPE_CHECKING:
    from grpo_gsm8k.tracking.run_folder import RunFolder

RUN = "run:"
ADAPTER_CONFIG = "adapter_config.json"
MERGED_FROM = "merged_from.json"  # names the base of an adapter that was merged, which the merged folder cannot tell


def pin_model(config: Config) -> Config:
    """Return `config` with `model.path` set to one plain model: `policy_gradient.model_id` takes precedence.

    `run:latest:sft` is the best checkpoint of the newest run of command=sft, `run:NAME` that of a named run; the path
    of a run, a checkpoint or an adapter is also accepted. An adapter is merged into its base. A run does this once and
    stores the result in config.yaml, so that a resumed run starts from the same model. The same is done to the path of
    a teacher. Raises UserError.
    """
    model = config.model
    if config.command == "policy_gradient" and config.policy_gradient.model_id is not None:
        model = ModelSection(path=config.policy_gradient.model_id, revision=None, init="pretrained")
    folder = _local_result(model.path, config.artifacts)
    if folder is not None:
        model = ModelSection(path=str(folder), revision=None, init=model.init)
    pg = config.policy_gradient.model_copy(update={"model_id": None, "teacher": _pinned_teacher(config)})
    return config.model_copy(update={"model": model, "policy_gradient": pg})


def start_folder(config: Config) -> Path:
    """Return the local folder of `model`; creates it first for `init=random`. Raises UserError."""
    folder = resolve_model(config.model.path, config.model.revision, config.artifacts)
    return folder if config.model.init == "pretrained" else _random_model(folder, config.seed, config.artifacts)


def teacher_folder(config: Config) -> Path | None:
    """Return the local folder of the model to distill from; None if the method has none, or a server has it.

    Raises UserError.
    """
    teacher = config.policy_gradient.teacher
    if not _distills(config) or teacher.base_url is not None:
        return None
    if teacher.path is None:
        raise UserError(
            "policy_gradient.advantage=distill needs a teacher: set policy_gradient.teacher.path to a model, such as "
            "run:latest:sft, or policy_gradient.teacher.base_url to a server"
        )
    return resolve_model(teacher.path, None, config.artifacts, "policy_gradient.teacher.path")


def _distills(config: Config) -> bool:
    return config.command == "policy_gradient" and config.policy_gradient.advantage_name == "distill"


def _pinned_teacher(config: Config) -> TeacherConfig:
    teacher = config.policy_gradient.teacher
    folder = _local_result(teacher.path, config.artifacts) if teacher.path and _distills(config) else None
    return teacher if folder is None else teacher.model_copy(update={"path": str(folder)})


def best_step(run: RunFolder) -> int:
    """Return the checkpoint with the best validation, or the newest if none was validated. Raises UserError."""
    steps = run_folder.checkpoint_steps(run)
    if not steps:
        raise UserError(f"{run.path} has no complete checkpoint")
    if run.summary_json.is_file():
        best = read_json(run.summary_json).get("best_validation")
        if best and best["version"] in steps:
            return int(best["version"])
    return max(steps)


def merged_folder(run: RunFolder, step: int, target: Path | None = None) -> Path:
    """Return the checkpoint's adapter merged into its base; created once, in `run.path/merged` or at `target`."""
    from grpo_gsm8k.learner.merging import write_merged  # lazy: it needs torch

    target = target or run.path / "merged" / f"step_{step}"
    if not target.exists():
        trained = read_config(run)
        with written_aside(target) as folder:
            write_merged(trained.learner, start_folder(trained), run.checkpoints / f"step_{step}" / "model", folder)
    return target


def _local_result(path: str, artifacts: Path) -> Path | None:
    """Return the plain model of a run, a checkpoint or an adapter; None for any other path."""
    if path.startswith(RUN):
        return _model_of_run(path, artifacts)
    folder = Path(path)
    if folder.name == "model" and folder.parent.parent.name == "checkpoints":
        folder = folder.parent
    if folder.parent.name == "checkpoints" or (folder / "checkpoints").is_dir():
        return _model_of_run(f"{RUN}{folder}", artifacts)
    return _merged_adapter(folder, artifacts) if (folder / ADAPTER_CONFIG).is_file() else None


def _model_of_run(spec: str, artifacts: Path) -> Path:
    name, _, command = spec.removeprefix(RUN).partition(":")
    run, step = run_folder.find(artifacts, name, command or None)
    if Path(name).parent.name != "checkpoints" or step is None:
        step = best_step(run)
    folder = run.checkpoints / f"step_{step}" / "model"
    return merged_folder(run, step) if (folder / ADAPTER_CONFIG).is_file() else folder


def _merged_adapter(folder: Path, artifacts: Path) -> Path:
    """Return a peft adapter merged into the base that it names, in float32; created once per adapter."""
    tensors = folder / "adapter_model.safetensors"
    if not tensors.is_file():
        raise UserError(f"model.path={folder} has no adapter_model.safetensors: save the adapter with safetensors")
    adapter_config = (folder / ADAPTER_CONFIG).read_bytes()
    base = json.loads(adapter_config).get("base_model_name_or_path")
    if not base:
        raise UserError(f"{folder / ADAPTER_CONFIG} names no base_model_name_or_path: add it")
    target = artifacts / "models" / f"merged_{hashlib.sha256(adapter_config + tensors.read_bytes()).hexdigest()[:8]}"
    if target.is_dir() and not target.is_symlink():
        return target
    base_folder = resolve_model(base, None, artifacts)
    from transformers.utils import logging

    from grpo_gsm8k.learner.merging import merge  # lazy: it needs torch

    logging.disable_progress_bar()  # it would garble the run's progress display
    with written_aside(target) as merged:
        merge(base_folder, folder, merged)
        (merged / MERGED_FROM).write_text(json.dumps({"base_model": base}))
    return target


def _random_model(folder: Path, seed: int, artifacts: Path) -> Path:
    """Return a copy of the model with randomly initialized weights; created once per architecture and seed."""
    digest = hashlib.sha256((folder / "config.json").read_bytes()).hexdigest()[:8]
    target = artifacts / "models" / f"random_{digest}_{seed}"
    if target.is_dir() and not target.is_symlink():
        return target
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would garble the run's progress display
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    with written_aside(target) as made:
        model.save_pretrained(made)
        AutoTokenizer.from_pretrained(folder).save_pretrained(made)
    return target
