"""The section `policy_gradient.teacher`: the model that a run with `advantage=distill` learns from."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from grpo_gsm8k.config.fields import Section

_OF_SERVERS = ("model", "api_key_env", "timeout_s", "concurrency")


class TeacherConfig(Section):
    """The teacher of `advantage=distill`, which scores the student's tokens, and the weights of both objectives."""

    path: str | None = None
    base_url: str | None = Field(default=None, pattern=r"^https?://[^\s/]+")
    model: str | None = None
    api_key_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    timeout_s: float = Field(default=60.0, gt=0)
    concurrency: int = Field(default=16, ge=1)
    kl_weight: float = Field(default=1.0, gt=0)
    task_weight: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _check_place(self) -> Self:
        if self.path is not None and self.base_url is not None:
            raise ValueError("path and base_url are two teachers: set one of them, the other to null")
        if self.base_url is not None and self.model is None:
            raise ValueError("base_url needs the teacher's name there: set policy_gradient.teacher.model")
        changed = [key for key in _OF_SERVERS if getattr(self, key) != type(self).model_fields[key].default]
        if self.base_url is None and changed:
            raise ValueError(
                f"{changed[0]} has no effect without a server: set policy_gradient.teacher.base_url, or drop the key"
            )
        return self
