"""Puts a learner together: data, policy, optimizer, and the state of a checkpoint where there is one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch
from transformers import AutoTokenizer

from grpo_gsm8k.data.prepare import load_split
from grpo_gsm8k.errors import CheckpointError, UserError
from grpo_gsm8k.learner import checkpoint
from grpo_gsm8k.learner.critic import build_critic
from grpo_gsm8k.learner.model import load_policy, load_reference
from grpo_gsm8k.learner.objective import Models
from grpo_gsm8k.learner.optimizer import Optimizer
from grpo_gsm8k.learner.policy_gradient import PolicyGradientSession
from grpo_gsm8k.learner.publisher import Publisher
from grpo_gsm8k.learner.rollouts import Plan, Rollouts
from grpo_gsm8k.learner.schedules import KlController
from grpo_gsm8k.learner.session import open_token_budget
from grpo_gsm8k.learner.task import Task
from grpo_gsm8k.learner.update import Optimizers
from grpo_gsm8k.learner.validation import Validation
from grpo_gsm8k.models import stop_token_ids
from grpo_gsm8k.transport.protocol import LoadWeights, Ready, Resumed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from grpo_gsm8k.config import Config, LearnerConfig
    from grpo_gsm8k.learner.checkpoint import TrainerState
    from grpo_gsm8k.learner.client import Client
    from grpo_gsm8k.learner.model import Policy
    from grpo_gsm8k.learner.session import Session
    from grpo_gsm8k.learner.spec import LearnerSpec
    from grpo_gsm8k.learner.task import Item


def open_policy_gradient(spec: LearnerSpec, client: Client) -> PolicyGradientSession:
    """Check everything that can be checked without an engine, report ready, then load the weights."""
    config = spec.config
    set_up_torch(config)
    tokenizer = AutoTokenizer.from_pretrained(spec.model_folder)
    task = Task(tokenizer, config, stop_token_ids(spec.model_folder, tokenizer))
    items, too_long = task.training_items(load_split(spec.data, "train"))
    validation_items = task.validation_items(load_split(spec.data, "val")[: config.policy_gradient.eval_limit])
    found = find_checkpoint(spec)
    client.report(Ready())

    folder, state = found if found else (None, None)
    start = state.step if state else 0
    models = open_models(config, spec.model_folder, spec.critic_folder, folder)
    optimizers = open_optimizers(models, config.learner)
    updates = config.policy_gradient.updates
    validation = Validation(client, task, validation_items, config, updates, spec.run_folder / "validation")
    plan = state.plan if state else Plan(0, {})
    if folder and state:
        restore(folder, state, models, optimizers, validation)
    client.report(Resumed(start))
    session = PolicyGradientSession(
        config=config,
        updates=updates,
        client=client,
        models=models,
        optimizers=optimizers,
        kl=KlController(config.policy_gradient, state.kl_coefficient if state else None),
        tokenizer=tokenizer,
        rollouts=Rollouts(client, task, items, too_long, config, start, plan),
        validation=validation,
        publisher=Publisher(spec.weights_root, models.policy, config, items),
        run_folder=spec.run_folder,
        wandb_run_id=spec.wandb_run_id,
        start=start,
        unvalidated=state.pending_validations if state else (0,),
        token_budget=open_token_budget(config, client),
    )
    resubmit_validations(session, items, spec)
    return session


def restore(folder: Path, state: TrainerState, models: Models, optimizers: Optimizers, validation: Validation) -> None:
    """Go on from a checkpoint; those of later steps are history."""
    checkpoint.restore(folder, models, optimizers)
    checkpoint.set_aside_later(folder.parent, state.step)
    validation.accuracy.update(state.accuracy)


def open_models(config: Config, model_folder: Path, critic_folder: Path, checkpoint_folder: Path | None) -> Models:
    """Policy, reference and critic, as far as they are asked for; the policy from a checkpoint's folder."""
    policy = open_policy(config.learner, model_folder, checkpoint_folder)
    reference = None
    if config.policy_gradient.kl.coef and not policy.is_adapter:
        reference = load_reference(model_folder, config.learner)
    return Models(policy, reference, build_critic(config, policy, critic_folder))


def open_policy(learner: LearnerConfig, model_folder: Path, checkpoint_folder: Path | None) -> Policy:
    """The policy of a checkpoint, or the one to begin with."""
    if checkpoint_folder is None:
        return load_policy(model_folder, learner)
    if learner.lora.enabled:
        return load_policy(model_folder, learner, adapter=checkpoint_folder / "model")
    return load_policy(checkpoint_folder / "model", learner)


def open_optimizers(models: Models, learner: LearnerConfig) -> Optimizers:
    """One for the policy and one for a critic."""
    critic = None if models.critic is None else Optimizer(models.critic.named_parameters(), learner)
    return Optimizers(Optimizer(models.policy.named_parameters(), learner), critic)


def resubmit_validations(session: Session, items: Sequence[Item], spec: LearnerSpec) -> None:
    """Queue the validations of earlier versions that were under way, with the weights of their own checkpoints.

    Version 0 has none: it is what the run starts from.
    """
    config = session.config
    for version in session.unvalidated:
        folder = checkpoint.step_folder(session.run_folder / "checkpoints", version) if version else None
        if version < session.start and (folder is None or folder.is_dir()):
            if folder is not None:
                checkpoint.read_state(folder)  # verifies it
            policy = open_policy(config.learner, spec.model_folder, folder)
            publisher = Publisher(spec.weights_root, policy, config, items)
            session.client.queue(LoadWeights(publisher.publish(version).ref))
            session.validation.submit(version)


def find_checkpoint(spec: LearnerSpec) -> tuple[Path, TrainerState] | None:
    """The checkpoint to go on from, verified. Raises CheckpointError."""
    checkpoints = spec.run_folder / "checkpoints"
    if spec.resume_step is None:
        found = checkpoint.newest_valid(checkpoints)
    else:
        folder = checkpoint.step_folder(checkpoints, spec.resume_step)
        found = folder, checkpoint.read_state(folder)
    if found and found[1].seed != spec.config.seed:
        raise CheckpointError(f"{found[0]} was made with seed={found[1].seed}: resume with that seed")
    return found


def set_up_torch(config: Config) -> None:
    """Threads, seed, determinism; every device that is asked for must be there."""
    torch.set_num_threads(config.learner.threads)
    torch.manual_seed(config.seed)
    _check_devices(config)
    if config.learner.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)


def _check_devices(config: Config) -> None:
    """Every GPU that is asked for must be there; the learner looks, because it sees all of them."""
    last_actor = config.actor.device
    if last_actor.startswith("cuda:"):
        last_actor = f"cuda:{int(last_actor.removeprefix('cuda:')) + config.actor.replicas - 1}"
    for key, device in (("actor.device", last_actor), ("learner.device", config.learner.device)):
        if device.startswith("cuda:") and int(device.removeprefix("cuda:")) >= torch.cuda.device_count():
            raise UserError(
                f"{key}: {device} is asked for, torch sees {torch.cuda.device_count()} GPUs: set {key}=cpu or another "
                "device, or use preset=one_gpu or preset=cpu_demo"
            )
