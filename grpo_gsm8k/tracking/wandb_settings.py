"""Settings of a Weights & Biases run: keys of `wandb`, else wandb's own environment variables, else defaults."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.tracking.method import training_method

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config

Mode = Literal["online", "offline", "off"]
MODES: dict[str, Mode] = {
    "online": "online",
    "run": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "off",
}
PROJECT = "grpo-gsm8k"
MAX_TAG_CHARS = 64  # W&B refuses longer tags


@dataclass(frozen=True, slots=True)
class WandbSettings:
    """What a W&B run is created with. `folder` is None for the run folder, `name` for the run folder's name."""

    mode: Mode
    project: str
    entity: str | None
    group: str
    job_type: str
    tags: tuple[str, ...]
    name: str | None
    folder: str | None


def wandb_mode(config: Config) -> Mode:
    """Return the mode of W&B; off unless `tracker` contains it. Raises UserError for an unknown WANDB_MODE."""
    if "wandb" not in config.tracker:
        return "off"
    given = config.wandb.mode
    if given is not None:
        return given
    text = os.environ.get("WANDB_MODE") or "offline"
    if text not in MODES:
        raise UserError(f"WANDB_MODE={text} is not one of {', '.join(MODES)}: change it, or set wandb.mode")
    return MODES[text]


def wandb_settings(config: Config) -> WandbSettings:
    """Return the settings of a run. The default group is the sweep, else the method. Raises UserError."""
    keys, method = config.wandb, training_method(config)
    sweep: str | None = getattr(config, "sweep", None)
    tags = keys.tags if keys.tags is not None else _tags(os.environ.get("WANDB_TAGS"))
    default_tags = dict.fromkeys((config.command, method, config.data.folder))
    return WandbSettings(
        mode=wandb_mode(config),
        project=keys.project or os.environ.get("WANDB_PROJECT") or PROJECT,
        entity=keys.entity or os.environ.get("WANDB_ENTITY") or None,
        group=keys.group or os.environ.get("WANDB_RUN_GROUP") or sweep or method,
        job_type=os.environ.get("WANDB_JOB_TYPE") or config.command,
        tags=tuple(default_tags if tags is None else tags),
        name=os.environ.get("WANDB_NAME") or None,
        folder=os.environ.get("WANDB_DIR") or None,
    )


def _tags(text: str | None) -> list[str] | None:
    """Return the tags of WANDB_TAGS, separated by commas. Raises UserError."""
    tags = [tag.strip() for tag in (text or "").split(",") if tag.strip()]
    if long := [tag for tag in tags if len(tag) > MAX_TAG_CHARS]:
        raise UserError(f"WANDB_TAGS: {long[0]!r} is longer than {MAX_TAG_CHARS} characters: shorten it")
    return tags or None
