"""Parts of a session: device, policy, optimizers, and the state of a checkpoint if there is one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from grpo_gsm8k.config.gpu_shares import is_shared, learner_bytes
from grpo_gsm8k.errors import CheckpointError, UserError
from grpo_gsm8k.grading.user_rewards import UserRewards
from grpo_gsm8k.learner import checkpoint
from grpo_gsm8k.learner.critic import build_critic
from grpo_gsm8k.learner.model import load_policy, load_reference
from grpo_gsm8k.learner.objective import Models
from grpo_gsm8k.learner.oom import TokenBudget
from grpo_gsm8k.learner.optimizer import Optimizer
from grpo_gsm8k.learner.parity_probe import EngineProbe, probe_learner
from grpo_gsm8k.learner.ranks import ALONE
from grpo_gsm8k.learner.task import GRADING_THREADS
from grpo_gsm8k.learner.update import Optimizers
from grpo_gsm8k.models import vocabulary_size
from grpo_gsm8k.tracking.gpu_list import VISIBLE
from grpo_gsm8k.tracking.hardware import usable_cores
from grpo_gsm8k.tracking.redaction import without_secrets
from grpo_gsm8k.transport.protocol import OutOfMemory, RewardFailed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import numpy as np

    from grpo_gsm8k.config import Config, LearnerConfig
    from grpo_gsm8k.learner.checkpoint import TrainerState
    from grpo_gsm8k.learner.client import Client
    from grpo_gsm8k.learner.model import Policy
    from grpo_gsm8k.learner.ranks import Ranks
    from grpo_gsm8k.learner.spec import LearnerSpec
    from grpo_gsm8k.learner.task import Item
    from grpo_gsm8k.learner.validation import Validation


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A verified checkpoint to continue from."""

    folder: Path
    state: TrainerState


def set_up_torch(config: Config) -> None:
    """Set threads, device, seed and determinism. Raises UserError for a configured device that does not exist."""
    torch.set_num_threads(config.learner.threads or max(1, usable_cores() // len(config.learner.rank_devices)))
    _check_devices(config)
    if config.learner.device != "cpu":
        _claim_gpu(config)
    torch.manual_seed(config.seed)
    if config.learner.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)


def _claim_gpu(config: Config) -> None:
    """Make the learner's GPU the current one, and leave the engines their shares if they use it, too.

    Random states and peft's loading use the current device. Without the limit, an engine that is replaced would find
    its share taken by the learner's cached blocks, and vLLM refuses to start then.
    """
    torch.cuda.set_device(config.learner.device)
    # cuDNN's attention plans anew for each shape, 20 ms and more, and every micro-batch has other shapes.
    torch.backends.cuda.enable_cudnn_sdp(False)
    if is_shared(config):
        total = torch.cuda.get_device_properties(config.learner.device).total_memory
        torch.cuda.set_per_process_memory_fraction(learner_bytes(config, total) / total, config.learner.device)


def _check_devices(config: Config) -> None:
    """Raise UserError for a missing GPU. The learner checks the actors' too, because it sees all GPUs.

    Of MIG devices a process sees only the first, so there the actors' cannot be checked here.
    """
    last_actor = config.actor.device
    if os.environ.get(VISIBLE, "").startswith("MIG-"):
        last_actor = "cpu"
    if last_actor.startswith("cuda:"):
        last_actor = f"cuda:{config.actor.first_device(config.engines_here) - 1}"
    key = "learner.device" if config.learner.devices is None else "learner.devices"
    wanted = [("actor.device", last_actor), *((key, device) for device in config.learner.rank_devices)]
    for key, device in wanted:
        if device.startswith("cuda:") and int(device.removeprefix("cuda:")) >= torch.cuda.device_count():
            raise UserError(
                f"{key}={device} is configured, but torch sees {torch.cuda.device_count()} GPUs: set {key}="
                f"{'null' if key == 'learner.devices' else 'cpu or another device'}, or use preset=one_gpu or "
                "preset=cpu_demo"
            )


def check_token_ids(model_folder: Path, stop_token_ids: Sequence[int], texts: Iterable[np.ndarray]) -> None:
    """Raise UserError if a token of the prompts or responses, or a stop token, has no row in the model's embedding."""
    rows = vocabulary_size(model_folder)
    if rows is None:
        return
    largest = max((int(ids.max()) for ids in texts if len(ids)), default=0)
    for what, found in (("the prompts need token id", largest), ("the stop tokens include", max(stop_token_ids))):
        if found >= rows:
            raise UserError(
                f"model.path={model_folder}: {what} {found}, but the embedding has {rows} rows: use the tokenizer that "
                "the model was trained with, or resize the embedding"
            )


def find_checkpoint(spec: LearnerSpec) -> Checkpoint | None:
    """Return the verified checkpoint to continue from, or None for a new run. Raises CheckpointError."""
    checkpoints = spec.run_folder / "checkpoints"
    checkpoint.remove_leftovers(checkpoints)
    if spec.resume_step is None:
        newest = checkpoint.newest_valid(checkpoints)
        if newest is None:
            return None
        found = Checkpoint(*newest)
    else:
        folder = checkpoint.step_folder(checkpoints, spec.resume_step)
        found = Checkpoint(folder, checkpoint.read_state(folder))
    if found.state.seed != spec.config.seed and not spec.config.resume_force:
        raise CheckpointError(f"{found.folder} was made with seed={found.state.seed}: resume with that seed")
    return found


def restore(found: Checkpoint, models: Models, optimizers: Optimizers, validation: Validation) -> None:
    """Continue from a checkpoint; later ones are moved aside."""
    checkpoint.restore(found.folder, models, optimizers)
    checkpoint.set_aside_later(found.folder.parent, found.state.step)
    validation.accuracy.update(found.state.accuracy)


def open_models(
    config: Config,
    model_folder: Path,
    critic_folder: Path,
    checkpoint_folder: Path | None,
    teacher_folder: Path | None = None,
) -> Models:
    """Load policy, reference, critic and teacher as far as configured; the policy from the checkpoint if given."""
    policy = open_policy(config.learner, model_folder, checkpoint_folder)
    reference = None
    if config.training.needs_reference and not policy.is_adapter:
        reference = load_reference(model_folder, config.learner)
    teacher = None if teacher_folder is None else load_reference(teacher_folder, config.learner)
    return Models(policy, reference, build_critic(config, policy, critic_folder), teacher)


def open_trained(
    config: Config,
    model_folder: Path,
    critic_folder: Path,
    checkpoint_folder: Path | None,
    ranks: Ranks = ALONE,
    teacher_folder: Path | None = None,
) -> tuple[Models, Optimizers]:
    """Load the models of the configured command, as `open_models` does, and create their optimizers."""
    learner = config.learner
    if config.command != "sft":
        models = open_models(config, model_folder, critic_folder, checkpoint_folder, teacher_folder)
    else:
        policy = open_policy(learner, model_folder, checkpoint_folder)
        with_reference = config.training.needs_reference and not policy.is_adapter
        models = Models(policy, load_reference(model_folder, learner) if with_reference else None, None)
        learner = learner.model_copy(update={"lr": config.sft.lr, "weight_decay": config.sft.weight_decay})
    if learner.shard == "full":
        _divide(models, ranks)
    return models, open_optimizers(models, learner, ranks)


def _divide(models: Models, ranks: Ranks) -> None:
    """Divide all models among the ranks, which wait for each other here."""
    ranks.connect()
    models.policy.divide(ranks, "policy")
    if models.reference is not None:
        models.reference.divide(ranks, "reference")
    if models.teacher is not None:
        models.teacher.divide(ranks, "teacher")
    if models.critic is not None:
        models.critic.head.to(ranks.device)
        if models.critic.trunk is not None:
            models.critic.trunk.divide(ranks, "critic")


def open_policy(learner: LearnerConfig, model_folder: Path, checkpoint_folder: Path | None) -> Policy:
    """Load the policy of a checkpoint, or the start model if it is None."""
    if checkpoint_folder is None:
        return load_policy(model_folder, learner)
    if learner.lora.enabled:
        return load_policy(model_folder, learner, adapter=checkpoint_folder / "model")
    return load_policy(checkpoint_folder / "model", learner)


def open_optimizers(models: Models, learner: LearnerConfig, ranks: Ranks = ALONE) -> Optimizers:
    """Create the optimizer of the policy, and that of a critic if there is one."""
    critic = None if models.critic is None else Optimizer(models.critic.named_parameters(), learner, ranks, "critic")
    return Optimizers(Optimizer(models.policy.named_parameters(), learner, ranks), critic)


def open_token_budget(config: Config, client: Client) -> TokenBudget:
    """Create the configured token budget; the orchestrator is notified whenever it is halved."""

    def report(tokens: int, reason: str) -> None:
        client.report(OutOfMemory(tokens, reason))

    return TokenBudget(config.learner.token_budget, report)


def open_user_rewards(spec: LearnerSpec, client: Client) -> UserRewards | None:
    """Return the functions of the run's copies of its rewards files; None without `policy_gradient.rewards_file`."""
    pg = spec.config.policy_gradient
    files = [spec.run_folder / "rewards" / path.name for path in pg.rewards_files]
    if not files:
        return None

    def report(part: str, reason: str) -> None:
        client.report(RewardFailed(part, reason))

    return UserRewards(files, pg.reward_limits(spec.config.seed), without_secrets(os.environ), GRADING_THREADS, report)


def probe(policy: Policy, items: Sequence[Item], config: Config, client: Client) -> EngineProbe | None:
    """Run the learner's part of the parity probe; returns the engine's part, None if it is off or not possible.

    The scripted engine computes nothing, and vLLM cannot score a prompt with an adapter (vllm#29955).
    """
    if not config.actor.probe:
        return None
    batch = probe_learner(policy, items, config)
    adapter = config.learner.lora.enabled and config.actor.lora == "adapter"
    return None if adapter or config.actor.engine == "scripted" else EngineProbe(policy, batch, client, config)
