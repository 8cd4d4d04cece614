"""Commands on a run that is finished: replay a step, merge an adapter, push a model."""

from __future__ import annotations

from pathlib import Path

import yaml

from grpo_gsm8k.config import Config, parse_config
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.files.aside import written_aside
from grpo_gsm8k.models import resolve_model
from grpo_gsm8k.start_model import start_folder
from grpo_gsm8k.tracking import run_folder
from grpo_gsm8k.tracking.run_folder import RunFolder


def replay_step(config: Config) -> int:
    """Print a recorded update's loss and gradient norm, the same computed now, and the differences."""
    from grpo_gsm8k.learner.replay import replay

    if config.run is None or config.step is None:
        raise UserError("command=replay needs run=<run folder or latest> and step=<N>")
    run, _ = run_folder.find(config.artifacts, config.run)
    trained = trained_with(run)
    if config.device:
        trained = trained.model_copy(update={"learner": trained.learner.model_copy(update={"device": config.device})})
    model_folder = start_folder(trained)
    critic_path = trained.policy_gradient.critic.path
    critic_folder = resolve_model(critic_path, None, trained.artifacts) if critic_path else model_folder
    then, now = replay(trained, run.path, config.step, model_folder, critic_folder)
    print(f"{'':14}{'recorded':>24}{'replayed':>24}{'difference':>24}")
    for name in ("loss", "grad_norm"):
        recorded, replayed = getattr(then, name), getattr(now, name)
        print(f"{name:14}{recorded:24.16g}{replayed:24.16g}{replayed - recorded:24.16g}")
    return 0


def merge_adapter(config: Config) -> int:
    """Write base plus adapter of a checkpoint as a plain Hugging Face folder."""
    run, step, trained = _checkpoint(config)
    if not trained.learner.lora.enabled:
        raise UserError(
            f"run={config.run} was trained without an adapter: {run.checkpoints}/step_{step}/model is plain"
        )
    if config.output is not None and config.output.exists():
        raise UserError(f"output={config.output} exists already: name another folder")
    target = merged_folder(run, step, config.output)
    print(f"{target}: base and adapter of step {step} as one model")
    return 0


def merged_folder(run: RunFolder, step: int, target: Path | None = None) -> Path:
    """Base and adapter of a checkpoint as one plain model; made unless it is there."""
    from grpo_gsm8k.learner.merging import write_merged

    target = target or run.path / "merged" / f"step_{step}"
    if not target.exists():
        trained = trained_with(run)
        with written_aside(target) as folder:
            write_merged(trained.learner, start_folder(trained), run.checkpoints / f"step_{step}" / "model", folder)
    return target


def push_model(config: Config) -> int:
    """Upload a checkpoint's model, or its merged form where there is one, with a model card."""
    from grpo_gsm8k.commands.model_card import upload

    if config.push.repo_id is None:
        raise UserError("command=push needs push.repo_id=OWNER/NAME")
    run, step, trained = _checkpoint(config)
    merged = run.path / "merged" / f"step_{step}"
    folder = merged if merged.is_dir() else run.checkpoints / f"step_{step}" / "model"
    print(upload(folder, run, step, trained, config.push.repo_id, config.push.private))
    return 0


def trained_with(run: RunFolder) -> Config:
    """The configuration of a run. Raises UserError for one that this version cannot read."""
    return parse_config(yaml.safe_load(Path(run.config_yaml).read_text(encoding="utf-8")))


def _checkpoint(config: Config) -> tuple[RunFolder, int, Config]:
    if config.run is None:
        raise UserError(f"command={config.command} needs run=<latest, a run folder or a checkpoint folder>")
    run, newest = run_folder.find(config.artifacts, config.run)
    step = newest if config.step is None else config.step
    if step is None or step not in run_folder.checkpoint_steps(run):
        raise UserError(f"step={step}: {run.checkpoints} has {run_folder.checkpoint_steps(run) or 'no checkpoints'}")
    return run, step, trained_with(run)
