"""The sections `pipeline`, `report`, `doctor`, `budget` and `push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from grpo_gsm8k.config.fields import Section


class PipelineConfig(Section):
    """The stages of `command=pipeline`, each a list of arguments that starts with `command=...`."""

    stages: list[list[str]] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_stages(self) -> Self:
        for stage in self.stages:
            if not stage or not stage[0].startswith("command=") or stage[0] == "command=pipeline":
                raise ValueError(f"stage {stage}: its first argument must be command=<name>, and not command=pipeline")
        return self


class ReportConfig(Section):
    """The runs of a report, and the price of a GPU-hour."""

    runs: list[str] = Field(min_length=1)
    baseline: str | None
    output: Path | None
    usd_per_gpu_hour: float = Field(ge=0)
    title: str
    live: bool = False
    port: int = Field(0, ge=0, le=65535)

    @model_validator(mode="after")
    def _check_live(self) -> Self:
        if self.port and not self.live:
            raise ValueError(f"port={self.port} has no effect with live=false: set report.live=true")
        if self.live and self.output is not None:
            raise ValueError("output has no effect with live=true, which writes no file: set it to null")
        return self


class DoctorConfig(Section):
    """The GPU and the output of `command=doctor`; `force` starts a training run despite a failed check."""

    # The key is `json`, but pydantic models have a method of that name.
    model_config = ConfigDict(serialize_by_alias=True)

    json_: bool = Field(alias="json")
    gpu: str | None
    force: bool
    plan: bool = False
    plan_from: str | None = None

    @model_validator(mode="after")
    def _check_plan(self) -> Self:
        if self.plan_from is not None and not self.plan:
            raise ValueError(f"plan_from={self.plan_from} has no effect with plan=false: set doctor.plan=true")
        return self


class BudgetConfig(Section):
    """Cost and time limits of a training run, which saves a checkpoint and stops when it reaches one."""

    max_usd: float | None = Field(gt=0)
    max_hours: float | None = Field(gt=0)
    usd_per_hour: float | None = Field(gt=0)


class PushConfig(Section):
    """The target repository of `command=push`. huggingface_hub reads its token from the environment."""

    repo_id: str | None
    private: bool
    what: Literal["auto", "adapter", "merged"] = "auto"
    license: Annotated[str, Field(min_length=1)] | None = None
