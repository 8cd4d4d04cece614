"""The section `policy_gradient.teacher`: the model that a run with `advantage=distill` learns from."""

from __future__ import annotations

from pydantic import Field

from grpo_gsm8k.config.fields import Section


class TeacherConfig(Section):
    """The teacher of `advantage=distill`, which scores the student's tokens, and the weights of both objectives."""

    path: str | None = None
    kl_weight: float = Field(default=1.0, gt=0)
    task_weight: float = Field(default=0.0, ge=0)
