"""The sections `traces`, `preprocess` and `sft`: supervised fine-tuning and its data."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from grpo_gsm8k.config.fields import (
    FolderName,
    ItemLimit,
    KeepLast,
    OptionalStopTexts,
    Section,
    changed_keys,
    require_both,
    require_one,
)
from grpo_gsm8k.config.loss_config import DpoConfig


class TracesConfig(Section):
    """Solutions from a teacher model: requests, cost limits, and filters."""

    folder: FolderName
    teacher: Literal["api", "local"]
    base_url: str = Field(pattern=r"^https?://")
    model: str
    api_key_env: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    samples_per_prompt: int = Field(ge=1)
    limit: int | None = Field(ge=1)
    max_tokens: int = Field(ge=1)
    temperature: float | None = Field(ge=0)
    concurrency: int = Field(ge=1)
    timeout_s: float = Field(gt=0)
    max_attempts: int = Field(ge=1)
    usd_per_million_input: float = Field(ge=0)
    usd_per_million_output: float = Field(ge=0)
    max_cost_usd: float | None = Field(gt=0)
    max_total_tokens: int | None = Field(ge=1)
    drop_echoes: bool
    drop_wrong: bool
    drop_truncated: bool
    drop_duplicates: bool
    drop_empty: bool
    shortest: int | None = Field(ge=1)
    pairs: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _check_pairs(self) -> Self:
        if self.pairs is not None and self.samples_per_prompt < 2:
            raise ValueError(
                f"pairs={self.pairs} needs several solutions of a problem: set traces.samples_per_prompt to 2 or more"
            )
        return self


class PreprocessConfig(Section):
    """Tokenization of the texts for supervised fine-tuning."""

    folder: FolderName
    source: Literal["auto", "main", "socratic", "traces", "pairs", "jsonl"]
    path: Path | None
    calculator: bool
    max_tokens: int = Field(ge=2)
    overlong: Literal["drop", "keep"]
    shard_items: int = Field(ge=1)

    @model_validator(mode="after")
    def _check_path(self) -> Self:
        from_file = self.source == "jsonl"
        require_both("preprocess.source=jsonl", from_file, "preprocess.path=FILE", self.path is not None)
        return self


class SftConfig(Section):
    """The schedule of supervised fine-tuning, and its own optimizer settings."""

    loss: Literal["likelihood", "dpo"] = "likelihood"
    dpo: DpoConfig = DpoConfig()
    epochs: int = Field(ge=1)
    min_tokens_per_update: int | None = Field(ge=1)
    batch_size: int | None = Field(default=None, ge=1)
    lr: float = Field(ge=0)
    weight_decay: float = Field(ge=0)
    warmup_updates: int = Field(ge=0)
    max_new_tokens: int = Field(ge=1)
    eval_every: int = Field(ge=1)
    eval_limit: ItemLimit | None
    stop: OptionalStopTexts = None
    patience: int | None = Field(ge=1)
    save_every: int = Field(ge=1)
    keep_last: KeepLast
    resume_from: str | None

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        example = f"sft.min_tokens_per_update=null sft.batch_size={self.batch_size or 16}"
        require_one("min_tokens_per_update", self.min_tokens_per_update, "batch_size", self.batch_size, example)
        return self

    @model_validator(mode="after")
    def _check_dpo(self) -> Self:
        changed = changed_keys(self.dpo)
        if changed and self.loss != "dpo":
            raise ValueError(f"dpo.{changed[0]} has no effect with loss={self.loss}: set sft.loss=dpo, or drop the key")
        return self

    @property
    def needs_reference(self) -> bool:
        """Whether an update needs the start model's log-probabilities."""
        return self.loss == "dpo"

    @property
    def versions_at_once(self) -> int:
        """Weight versions that the engine holds at once: two unfinished validations, and the one being loaded."""
        return 3
