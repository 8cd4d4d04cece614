"""`command=replay`: compute a recorded policy update again and compare."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.models import resolve_model
from grpo_gsm8k.start_model import start_folder, teacher_folder
from grpo_gsm8k.tracking import run_folder
from grpo_gsm8k.tracking.saved_config import read_config

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config


def replay_update(config: Config) -> int:
    """Print loss and gradient norm of update `step` as recorded and as computed now, with their differences."""
    from grpo_gsm8k.learner.replay import replay  # lazy: it needs torch

    if config.run is None or config.step is None:
        raise UserError("command=replay needs run=<run folder or latest> and step=<N>")
    run, _ = run_folder.find(config.artifacts, config.run)
    trained = read_config(run)
    if config.device:
        trained = trained.model_copy(update={"learner": trained.learner.model_copy(update={"device": config.device})})
    model_folder = start_folder(trained)
    critic_path = trained.policy_gradient.critic.path
    critic_folder = resolve_model(critic_path, None, trained.artifacts) if critic_path else model_folder
    then, now = replay(trained, run.path, config.step, model_folder, critic_folder, teacher_folder(trained))
    print(f"{'':14}{'recorded':>24}{'replayed':>24}{'difference':>24}")
    for name in ("loss", "grad_norm"):
        recorded, replayed = getattr(then, name), getattr(now, name)
        print(f"{name:14}{recorded:24.16g}{replayed:24.16g}{replayed - recorded:24.16g}")
    return 0
