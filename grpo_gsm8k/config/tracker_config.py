"""The sections `wandb`, `completion_tables` and `console`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from grpo_gsm8k.config.fields import Section


class WandbConfig(Section):
    """Weights & Biases. wandb reads its API key from the environment; it is not a configuration key."""

    mode: Literal["online", "offline", "off"] | None
    project: str | None
    entity: str | None
    group: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    tags: list[Annotated[str, Field(min_length=1, max_length=64)]] | None = None


class CompletionTablesConfig(Section):
    """Sampled completions that the trackers show: every how many updates, and how many."""

    every: int = Field(default=10, ge=0)
    rows: int = Field(default=16, ge=1, le=1000)


class ConsoleConfig(Section):
    """The terminal: how many sampled completions it shows."""

    samples: int = Field(default=1, ge=0, le=8)
