"""`command=scale`: change the number of engines of a run while it goes on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from grpo_gsm8k.config import parse_config
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.files.locks import try_lock
from grpo_gsm8k.preflight.machine import probe
from grpo_gsm8k.tracking import run_folder, scale_request
from grpo_gsm8k.tracking.saved_config import read_config

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config
    from grpo_gsm8k.tracking.run_folder import RunFolder

ANSWER_SECONDS = 60.0  # the run looks for requests several times per second, unless it writes a large record


def scale_run(config: Config) -> int:
    """Ask the run `run` for `actor.replicas` engines, and wait until it has begun to start or has ended them.

    Raises UserError if the run is not active, if its other settings forbid that number, or if a GPU is missing.
    """
    if config.run is None:
        raise UserError("command=scale needs run=<latest, or a run folder>")
    run = run_folder.find_with(config.artifacts, config.run, "config.yaml")
    replicas = config.actor.replicas
    _check_active(run)
    _check_places(read_config(run), replicas)
    answer = scale_request.ask(run, replicas, ANSWER_SECONDS)
    if answer is None:
        raise UserError(f"{run.path} did not answer within {ANSWER_SECONDS:g} s: it may be ending; look at its log")
    if answer.problem:
        raise UserError(f"{run.path} refused: {answer.problem}")
    print(f"{run.path}: actor.replicas={replicas} from now on; a resumed run starts with its own number again")
    return 0


def _check_active(run: RunFolder) -> None:
    lock = try_lock(run.path)
    if lock is not None:
        os.close(lock)
        raise UserError(f"{run.path} is not running: resume it with actor.replicas=N instead")


def _check_places(saved: Config, replicas: int) -> None:
    """Raise UserError if the run's settings do not allow the number, or one of its GPUs does not exist."""
    if saved.command not in ("sft", "policy_gradient"):
        raise UserError(f"run is one of command={saved.command}: only training runs can change actor.replicas")
    values = saved.model_dump(mode="json")
    values["actor"]["replicas"] = replicas
    parse_config(values)
    if saved.actor.device == "cpu":
        return
    if saved.cluster.kind == "ray":  # the machines are not known here: engines without a place wait for one
        return
    gpus, last = len(probe(saved, thorough=False).gpus or ()), saved.actor.first_device(replicas) - 1
    if last >= gpus:
        raise UserError(
            f"actor.replicas={replicas} from actor.device={saved.actor.device} on needs cuda:{last}, this machine has "
            f"{gpus} GPUs"
        )
